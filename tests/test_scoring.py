"""Text logits and maps, memory distances and min-max against plain formulas."""

import torch
from torch import nn

from mvfa import scoring


def test_a_bank_is_searched_in_blocks(monkeypatch):
    tokens = [torch.randn(2, 5, 8)]
    rows = [nn.functional.normalize(torch.randn(50, 8), dim=-1)]
    whole = scoring.memory_distance(tokens, rows)
    patches = tokens[0][:, 1:, None]
    similarity = nn.functional.cosine_similarity(patches, rows[0], dim=-1, eps=1e-8)
    torch.testing.assert_close(whole, 1 - similarity.amax(-1))
    monkeypatch.setattr(scoring, "CHUNK", 7)
    torch.testing.assert_close(scoring.memory_distance(tokens, rows), whole)


def test_zero_tokens_are_far_from_everything():
    bank = [nn.functional.normalize(torch.randn(4, 8), dim=-1)]
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
    both = 100 * nn.functional.normalize(tokens[0][:, 1:], dim=-1) @ text  # [B, N, 2]
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
