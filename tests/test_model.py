"""Properties of adapters, memory, training and streams that need no trained weights."""

import itertools

import pytest
import torch
from torch import nn

from CLIP.adapter import MVFA, AdapterForm
from CLIP.weights import create_model
from dataset.items import Item, pack_mask, unpack_masks
from errors import UserError
from loss import Objective
from mvfa import checkpoint, scoring
from mvfa.engine import Trainer, build_memory, predict
from mvfa.evaluation import evaluate
from mvfa.features import FeatureLoader, prepare
from mvfa.recipe import RECIPES
from mvfa.runner import score_form
from tests.conftest import TOLERANCE

LEVELS = (1, 2, 4)
CPU = torch.device("cpu")


class Pictures:
    """Random images of two nouns, one with masks; abnormal ones carry a bright square."""

    def __init__(self, count: int = 8, side: int = 32, masked: str = "mixed") -> None:
        g = torch.Generator().manual_seed(10)
        self.side = side
        self.images = torch.rand(count, 3, side, side, generator=g)
        self.labels = (torch.arange(count) % 2).float()
        self.pixels = torch.zeros(count, side, side, dtype=torch.bool)
        self.pixels[1::2, 4:14, 4:14] = True
        self.masked = (
            (torch.arange(count) < count // 2)
            if masked == "mixed"
            else torch.full((count,), masked == "all")
        )
        self.nouns = ["Brain" if m else "Chest" for m in self.masked.tolist()]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return Item(self.images[index], pack_mask(self.pixels[index]), index)


@pytest.fixture
def mvfa(tiny) -> MVFA:
    return MVFA(tiny.visual, 64, LEVELS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def text() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(11)
    return {
        noun: nn.functional.normalize(torch.randn(64, 2, generator=g), dim=0)
        for noun in ("Brain", "Chest")
    }


def streams(mvfa, source, batch_size=4, **settings) -> FeatureLoader:
    return FeatureLoader(source, mvfa, device=CPU, batch_size=batch_size, **settings)


def test_adapters_start_as_linear_layers_do(tiny):
    torch.manual_seed(111)
    expected = [nn.Linear(*shape, bias=False) for _ in range(6) for shape in ((64, 64), (64, 64))]
    mvfa = MVFA(tiny.visual, 64, LEVELS, generator=torch.Generator().manual_seed(111))
    got = [p for branch in ("seg", "det") for p in mvfa.adapters(branch).parameters()]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs.weight, rtol=0, atol=0)


@pytest.mark.parametrize("levels", [(), (2, 1), (0, 2), (2, 5), (2, 2)])
def test_impossible_levels_are_refused(tiny, levels):
    with pytest.raises(UserError, match="allowed are rising block numbers from 1 to 4"):
        MVFA(tiny.visual, 64, levels)


def test_the_stream_by_hand(tiny, mvfa):
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        x = tiny.visual.embed(image)
        for block in range(1, 5):
            x = tiny.visual.transformer.resblocks[block - 1](x)
            if block in LEVELS:
                level, back = LEVELS.index(block), []
                for branch in ("seg", "det"):
                    adapter = mvfa.adapters(branch)[level].state_dict()
                    t = nn.functional.leaky_relu(x @ adapter["fc1.0.weight"].T, 0.01)
                    back.append(nn.functional.leaky_relu(t @ adapter["fc2.0.weight"].T, 0.01))
                    got = getattr(mvfa(mvfa.stem(image)), branch)[level]
                    torch.testing.assert_close(got, t, **TOLERANCE[torch.float32])
                x = 0.8 * x + 0.1 * back[0] + 0.1 * back[1]


def test_projectors(tiny):
    stream = torch.randn(2, 17, 64)
    last = MVFA(
        tiny.visual, 64, LEVELS, AdapterForm(projector="last"), torch.Generator().manual_seed(0)
    )
    plain = MVFA(tiny.visual, 64, LEVELS, AdapterForm(), torch.Generator().manual_seed(0))
    every = MVFA(
        tiny.visual, 64, LEVELS, AdapterForm(projector="all"), torch.Generator().manual_seed(0)
    )
    for a, b in zip(last(stream).seg[:2], plain(stream).seg[:2], strict=True):
        torch.testing.assert_close(a, b)
    slope = nn.functional.leaky_relu(last(stream).seg[2], 0.01)
    torch.testing.assert_close(slope, plain(stream).seg[2])
    x = tiny.visual.transformer(stream, 1, 2)
    torch.testing.assert_close(every(stream).seg[1], every.adapters("seg")[1].fc1(x))


def test_one_branch_equals_both(mvfa):
    stream = torch.randn(2, 17, 64)
    both = mvfa(stream)
    for branch in ("seg", "det"):
        alone = mvfa(stream, (branch,))
        for a, b in zip(getattr(alone, branch), getattr(both, branch), strict=True):
            torch.testing.assert_close(a, b)


def test_gradients_reach_what_they_should(mvfa, text):
    pictures = Pictures(masked="all")
    trainer = Trainer(mvfa, Objective(), 1e-3)
    stream = mvfa.stem(pictures.images)
    sentences = torch.stack([text["Brain"]] * len(pictures))
    trainer.loss(stream, pictures.labels, pictures.pixels, sentences).sum().backward()
    for branch in ("seg", "det"):
        for level, adapter in enumerate(mvfa.adapters(branch)):
            assert adapter.fc1[0].weight.grad is not None
            assert (adapter.fc2[0].weight.grad is None) == (
                level == 2
            )  # nothing follows the last level
    assert all(p.grad is None for p in mvfa.visual.parameters())


def test_no_masks_no_seg_step(mvfa, text):
    before = checkpoint.adapter_state(mvfa)
    feed = streams(mvfa, Pictures(masked="none"))
    trainer = Trainer(mvfa, Objective(), 1e-3)
    for batch in feed.batches():
        trainer.step(batch, feed, text)
    after = checkpoint.adapter_state(mvfa)
    for name, value in before["seg_adapters"].items():
        assert torch.equal(value, after["seg_adapters"][name])
    assert not torch.equal(
        before["det_adapters"]["0.fc1.0.weight"], after["det_adapters"]["0.fc1.0.weight"]
    )


def test_a_mixed_batch_is_the_mean_of_its_images(tiny, text):
    """The gradient of a batch is the mean over images, seg adapters counting images with masks only."""
    pictures, gradients = Pictures(), []
    for size in (8, 1):
        mvfa = MVFA(tiny.visual, 64, LEVELS, generator=torch.Generator().manual_seed(0))
        feed, trainer = streams(mvfa, pictures, size), Trainer(mvfa, Objective(), 0.0)
        found: dict[str, torch.Tensor] = {}

        def note(branch, mvfa=mvfa, found=found):
            for name, p in mvfa.adapters(branch).named_parameters():
                if p.grad is not None:
                    key = f"{branch}.{name}"
                    found[key] = found.get(key, 0) + p.grad.clone()

        for branch, optimiser in trainer.optimisers.items():
            optimiser.register_step_pre_hook(lambda *_, branch=branch, note=note: note(branch))
        losses = [
            trainer.step(batch, feed, text) * len(batch.members) / 8 for batch in feed.batches()
        ]
        gradients.append(
            (sum(losses), found if size == 8 else {k: v / 8 for k, v in found.items()})
        )
    (loss_a, a), (loss_b, b) = gradients
    assert loss_a == pytest.approx(loss_b, rel=1e-5)
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=1e-3, atol=1e-6)


def test_a_non_finite_loss_stops(mvfa, text):
    feed = streams(mvfa, Pictures())
    trainer = Trainer(mvfa, Objective(), 1e-3)
    broken = {noun: value * float("nan") for noun, value in text.items()}
    with pytest.raises(UserError, match="the loss became nan"):
        trainer.step(next(feed.batches()), feed, broken)


@pytest.mark.parametrize(("masks", "few"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("recipe", RECIPES)
def test_batch_1_equals_batch_b(mvfa, text, masks, few, recipe):
    pictures, results = Pictures(7, masked="all" if masks else "none"), []
    for size in (1, 3, 7):
        feed = streams(mvfa, pictures, size)
        bank = build_memory(mvfa, feed, [0, 2], "seg" if masks else "det") if few else None
        form = score_form(RECIPES[recipe])
        found = predict(mvfa, feed, text["Brain"], bank, masks=masks, form=form)
        results.append(evaluate(found, feed))
    for result in results[1:]:
        torch.testing.assert_close(result.scores, results[0].scores, rtol=1e-4, atol=1e-4)
        assert result.image_auroc == results[0].image_auroc
        assert (result.pixel_auroc is None) == (not masks)
        assert (result.memory_scores is None) == (not few)


def test_a_bank_scores_its_own_images_zero(mvfa):
    stream = mvfa.stem(torch.rand(3, 3, 32, 32))
    tokens = mvfa(stream).seg
    bank = scoring.normalise_bank(tokens)
    assert [level.shape for level in bank] == [(3 * 17, 64)] * 3
    assert scoring.memory_distance(tokens, bank).abs().max() < 1e-5
    assert scoring.memory_distance(mvfa(torch.randn(1, 17, 64)).seg, bank).min() > 1e-3


def test_a_bank_is_searched_in_blocks(monkeypatch):
    tokens, rows = [torch.randn(2, 5, 8)], [nn.functional.normalize(torch.randn(50, 8), dim=-1)]
    whole = scoring.memory_distance(tokens, rows)
    by_hand = 1 - nn.functional.cosine_similarity(
        tokens[0][:, 1:, None], rows[0], dim=-1, eps=1e-8
    ).amax(-1)
    torch.testing.assert_close(whole, by_hand)
    monkeypatch.setattr(scoring, "CHUNK", 7)
    torch.testing.assert_close(scoring.memory_distance(tokens, rows), whole)


def test_zero_tokens_are_far_from_everything():
    bank = [nn.functional.normalize(torch.randn(4, 8), dim=-1)]
    torch.testing.assert_close(
        scoring.memory_distance([torch.zeros(1, 3, 8)], bank), torch.ones(1, 2)
    )


def test_constant_scores_become_zero():
    constant = torch.full((4,), 0.7)
    assert scoring.min_max(constant, constant.min(), constant.max()).tolist() == [0, 0, 0, 0]
    spread = scoring.min_max(torch.tensor([1.0, 2.0, 3.0]), 1.0, 3.0)
    torch.testing.assert_close(spread, torch.tensor([0.0, 0.5, 1.0]))


def test_kept_streams_change_nothing(mvfa):
    pictures = Pictures(7)
    plain, kept = (
        streams(mvfa, pictures, 3),
        streams(mvfa, pictures, 3, cache_gb=4 * 17 * 64 * 4 / 1e9),
    )
    order = [5, 0, 6, 3, 1, 2, 4]
    for _ in range(3):
        for a, b in zip(plain.batches(order), kept.batches(order), strict=True):
            assert a.members.tolist() == b.members.tolist()
            torch.testing.assert_close(a.stream, b.stream)
    assert kept.kept.tolist() == [True] * 4 + [False] * 3
    torch.testing.assert_close(kept.masks([1, 6]), pictures.pixels[[1, 6]])


def test_workers_give_the_same_streams(mvfa):
    pictures = Pictures(6)
    for a, b in zip(
        streams(mvfa, pictures).batches(), streams(mvfa, pictures, workers=2).batches(), strict=True
    ):
        torch.testing.assert_close(a.stream, b.stream)


@pytest.mark.parametrize("side", [7, 32])
def test_masks_are_packed_without_loss(side):
    masks = torch.rand(3, side, side) < 0.3
    assert torch.equal(unpack_masks([pack_mask(m) for m in masks], side), masks)


def test_scaling():
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert prepare(images, CPU).tolist() == torch.ones(1, 3, 2, 2).tolist()
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = torch.tensor([(1 - m) / s for m, s in zip(mean, std, strict=True)])
    torch.testing.assert_close(prepare(images, CPU, "clip")[0, :, 0, 0], expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_near(tiny_path, precision):
    full, half = (
        create_model(None, tiny_path, image_size=32, precision=p) for p in ("fp32", precision)
    )
    assert half.visual.transformer.resblocks[0].mlp.c_fc.weight.dtype != torch.float32
    features = []
    for clip in (full, half):
        mvfa = MVFA(clip.visual, 64, LEVELS, generator=torch.Generator().manual_seed(0))
        stream = mvfa.stem(Pictures(2).images)
        assert stream.dtype == torch.float32
        features.append(mvfa(stream).seg)
    for a, b in zip(*features, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)


def first_gradients(tiny_path, text, precision: str, *, scaled: bool) -> torch.Tensor:
    """Gradient of the first seg adapter, which comes through all blocks, for a loss that is a ten-millionth."""
    clip = create_model(None, tiny_path, image_size=32, precision=precision)
    mvfa = MVFA(clip.visual, 64, LEVELS, generator=torch.Generator().manual_seed(0))
    trainer, feed = (
        Trainer(mvfa, Objective(), 1e-3, scaled=scaled),
        streams(mvfa, Pictures(4, masked="all")),
    )
    found = []
    weight = (
        mvfa.seg_adapters[0].fc2[0].weight
    )  # its output reaches the loss through later blocks only
    trainer.optimisers["seg"].register_step_pre_hook(lambda *_: found.append(weight.grad.clone()))
    (batch,) = feed.batches()
    trainer.step(batch._replace(total=10_000_000), feed, text)
    return found[0]


def test_small_gradients_of_a_half_precision_backbone_do_not_vanish(tiny_path, text):
    full = first_gradients(tiny_path, text, "fp32", scaled=False)
    plain, scaled = (first_gradients(tiny_path, text, "fp16", scaled=s) for s in (False, True))
    assert (scaled - full).norm() < 0.05 * full.norm()
    assert (plain - full).norm() > 2 * (scaled - full).norm()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_training_stays_finite_and_learns(tiny_path, text, precision):
    clip = create_model(None, tiny_path, image_size=32, precision=precision)
    mvfa = MVFA(clip.visual, 64, LEVELS, generator=torch.Generator().manual_seed(0))
    trainer = Trainer(mvfa, Objective(), 1e-3, scaled=precision == "fp16")
    feed = streams(mvfa, Pictures(8), cache_gb=1)
    losses = [sum(trainer.step(batch, feed, text) for batch in feed.batches()) for _ in range(50)]
    assert losses[-1] < losses[0]
    assert all(
        torch.isfinite(p).all() for b in ("seg", "det") for p in mvfa.adapters(b).parameters()
    )
