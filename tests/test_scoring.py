"""Text logits and maps, memory distances and min-max against plain formulas."""

import pytest
import torch
import torch.nn.functional as F

from mvfa import scoring


def test_a_bank_is_searched_in_blocks(monkeypatch):
    tokens = [torch.randn(2, 5, 8)]
    rows = [F.normalize(torch.randn(50, 8), dim=-1)]
    whole = scoring.memory_distance(tokens, rows)
    patches = tokens[0][:, 1:, None]
    similarity = F.cosine_similarity(patches, rows[0], dim=-1, eps=1e-8)
    torch.testing.assert_close(whole, 1 - similarity.amax(-1))
    monkeypatch.setattr(scoring, "CHUNK", 7)
    torch.testing.assert_close(scoring.memory_distance(tokens, rows), whole)


def test_zero_tokens_are_far_from_everything():
    bank = [F.normalize(torch.randn(4, 8), dim=-1)]
    distance = scoring.memory_distance([torch.zeros(1, 3, 8)], bank)
    torch.testing.assert_close(distance, torch.ones(1, 2))


def test_constant_scores_become_zero():
    constant = torch.full((4,), 0.7)
    assert scoring.min_max(constant, constant.min(), constant.max()).tolist() == [0, 0, 0, 0]
    spread = scoring.min_max(torch.tensor([1.0, 2.0, 3.0]), 1.0, 3.0)
    torch.testing.assert_close(spread, torch.tensor([0.0, 0.5, 1.0]))


def test_two_class_softmax_is_the_sigmoid_of_the_difference():
    g = torch.Generator().manual_seed(9)
    tokens = [torch.randn(2, 10, 6, generator=g)]
    text = torch.randn(6, 2, generator=g)
    both = 100 * F.normalize(tokens[0][:, 1:], dim=-1) @ text  # [B, N, 2]
    maps = scoring.upsample(both.transpose(1, 2), 7).softmax(dim=1)[:, 1]  # [B, S, S]
    torch.testing.assert_close(scoring.text_map(scoring.text_logits(tokens, text), 7), maps)
    many = text.expand(2, 6, 2)
    torch.testing.assert_close(scoring.text_logits(tokens, many), scoring.text_logits(tokens, text))


def test_levels_are_summed_or_averaged():
    values = torch.tensor([[[1.0, 5.0], [3.0, 4.0]]])  # [B, L, N]
    assert scoring.over_levels(values, "sum").tolist() == [[4, 9]]
    assert scoring.over_levels(values, "mean").tolist() == [[2, 4.5]]
    assert scoring.image_score(values, "max").tolist() == [[5, 4]]
    assert scoring.image_score(values, "mean").tolist() == [[3, 3.5]]


def random_search(count: int, rows: int, width: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unit patches [2, count, width] and bank rows [rows, width] that lie near them."""
    g = torch.Generator().manual_seed(3)
    patches = F.normalize(torch.randn(2, count, width, generator=g), dim=-1)
    near = patches.flatten(0, 1)[torch.randint(2 * count, (rows,), generator=g)]
    return patches, F.normalize(near + 0.02 * torch.randn(rows, width, generator=g), dim=-1)


@pytest.mark.parametrize("tile", [1, 7000, 10_000, scoring.TILE])
def test_the_search_in_half_finds_a_row_as_near(monkeypatch, tile):
    """Its similarity is a float32 one of a real row, at most twice float16's error too low."""
    monkeypatch.setattr(scoring, "TILE", tile)
    patches, rows = random_search(30, 500)
    exact = scoring.similarity_exact(patches, rows)
    half = scoring.similarity_half(patches, rows)
    assert half.dtype == torch.float32
    assert half.shape == (2, 30)
    similarities = patches @ rows.T  # [2, 30, 500]
    error = ((patches.half() @ rows.half().T).float() - similarities).abs().max()
    assert 0 < error < 1e-3
    assert (half <= exact + 1e-6).all()
    assert (half >= exact - 2 * error - 1e-6).all()
    found = (similarities - half[..., None]).abs().amin(dim=-1)
    assert found.max() < 1e-6


def test_the_winner_is_computed_again_in_float32():
    """Rows whose similarities are one number in float16 are told apart by float32."""
    patches = F.normalize(torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    rows = patches[0] * (1 - 1e-4)
    half = scoring.similarity_half(patches, rows)
    torch.testing.assert_close(half, torch.full((1, 5), 1 - 1e-4), rtol=0, atol=1e-6)


def test_a_patch_without_direction_is_nearest_to_nothing_in_half():
    bank = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(2)), dim=-1)
    distance = scoring.memory_distance([torch.zeros(1, 3, 8)], [bank], half=True)
    assert torch.equal(distance, torch.ones(1, 2))
