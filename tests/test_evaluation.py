"""Scores and AUROCs with constants of other images, against maps that are scaled by the formula."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from dataset.items import pack_mask
from errors import UserError
from mvfa import evaluation, scoring
from mvfa.evaluation import (
    FUSION,
    Constants,
    Maps,
    constants_of,
    evaluate,
    fusion_weights,
    joined,
)
from mvfa.predictions import Predictions
from tests.conftest import released_scores

SIDE = 24
LEVELS = 2
PATCHES = 16


def predictions(seed: int, images: int = 12, *, masks: bool = True, memory: bool = True):
    """Return invented predictions; abnormal images have a bright corner."""
    g = torch.Generator().manual_seed(seed)
    labels = (torch.arange(images) % 2).float()
    shift = torch.zeros(images, PATCHES)
    shift[:, :4] = labels[:, None]
    made = Predictions(released_scores(), SIDE, labels, list(range(images)))
    if masks:
        made.logits = torch.randn(images, LEVELS, PATCHES, generator=g) + 2 * shift[:, None]
        made.logits *= 1 + seed
        if memory:
            made.distance = torch.rand(images, PATCHES, generator=g) * (1 + seed) + shift
        corner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        corner[:6] = True
        nothing = torch.zeros_like(corner)
        made.masks = [pack_mask(corner if label else nothing) for label in labels]
    if not (masks and memory):
        made.text_scores = torch.randn(images, generator=g) + labels
    if memory and not masks:
        made.memory_scores = 5 * torch.rand(images, generator=g) + labels
    return made


def raw_maps(made: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    text = scoring.text_map(made.logits, SIDE)
    return text.double(), scoring.memory_map(made.distance, SIDE).double()


def by_formula(text, memory, text_ends, memory_ends) -> np.ndarray:
    """Scale both branches by given constants and fuse them, never clipped (C1)."""
    text = (text - text_ends[0]) / (text_ends[1] - text_ends[0])
    memory = (memory - memory_ends[0]) / (memory_ends[1] - memory_ends[0])
    return (0.5 * text + 0.5 * memory).numpy()


def test_constants_are_the_ends_of_all_pixels():
    made = predictions(1)
    found = constants_of(made)
    text, memory = raw_maps(made)
    assert found.text_map == pytest.approx((float(text.min()), float(text.max())))
    assert found.memory_map == pytest.approx((float(memory.min()), float(memory.max())))
    assert list(found.as_dict()) == ["text_map", "memory_map"]
    scores = predictions(1, masks=False)
    found = constants_of(scores)
    for name in ("text", "memory"):
        values = getattr(scores, f"{name}_scores")
        assert getattr(found, f"{name}_score") == (values.min(), values.max())
    assert list(found.as_dict()) == ["text_score", "memory_score"]


def test_constants_of_parts_are_those_of_the_whole():
    whole = predictions(2)
    parts = []
    for rows in (slice(0, 1), slice(1, 5), slice(5, 12)):
        part = predictions(2)
        part.logits = whole.logits[rows]
        part.distance = whole.distance[rows]
        parts.append(constants_of(part))
    assert joined(parts) == constants_of(whole)


@pytest.mark.parametrize("name", ["logits", "distance"])
def test_constants_that_are_not_finite_are_refused(name):
    made = predictions(0)
    getattr(made, name).view(-1)[-1] = torch.nan
    with pytest.raises(UserError, match="a score to calibrate with is not finite"):
        constants_of(made)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("memory", [True, False])
def test_constants_of_the_test_set_itself_change_nothing(masks, memory):
    made = predictions(3, masks=masks, memory=memory)
    plain = evaluate(made)
    same = evaluate(made, constants=constants_of(made))
    assert torch.equal(same.scores, plain.scores)
    assert (same.image_auroc, same.pixel_auroc) == (plain.image_auroc, plain.pixel_auroc)


@pytest.mark.parametrize("seed", range(1, 6))
def test_calibrated_maps_are_those_of_the_formula(seed):
    made = predictions(0)
    known = constants_of(predictions(seed))
    found = evaluate(made, constants=known)
    fused = by_formula(*raw_maps(made), known.text_map, known.memory_map)
    scores = fused.max(axis=(1, 2))
    order = np.argsort(scores)
    assert (np.diff(found.scores.numpy()[order]) >= -1e-6).all()
    assert found.image_auroc == pytest.approx(roc_auc_score(made.labels, scores), abs=1e-9)
    truth = made.block_masks(slice(None)).numpy().ravel()
    assert found.pixel_auroc == pytest.approx(roc_auc_score(truth, fused.ravel()), abs=1e-6)
    assert 0 <= found.scores.min() <= found.scores.max() <= 1


@pytest.mark.parametrize("seed", range(1, 6))
def test_calibrated_scores_are_those_of_the_formula(seed):
    made = predictions(0, masks=False)
    known = constants_of(predictions(seed, masks=False))
    found = evaluate(made, constants=known)
    branches = (made.text_scores.double(), made.memory_scores.double())
    scores = by_formula(*branches, known.text_score, known.memory_score)
    assert np.argsort(scores).tolist() == found.scores.argsort().tolist()
    assert found.image_auroc == roc_auc_score(made.labels, scores)


def test_constants_can_change_an_auroc():
    """Else the tests above would show nothing."""
    made = predictions(0)
    known = constants_of(made)
    wide = Constants(text_map=(0, 1e4), memory_map=known.memory_map)
    assert evaluate(made, constants=wide).pixel_auroc != evaluate(made).pixel_auroc


def test_exchanged_weights_are_caught(monkeypatch):
    right = fusion_weights
    monkeypatch.setattr(evaluation, "fusion_weights", lambda *ends: right(*ends)[::-1])
    with pytest.raises(AssertionError):
        test_calibrated_maps_are_those_of_the_formula(seed=3)


def test_without_a_memory_branch_constants_change_nothing():
    made = predictions(0, memory=False)
    plain = evaluate(made)
    other = evaluate(made, constants=constants_of(predictions(4, memory=False)))
    assert (other.image_auroc, other.pixel_auroc) == (plain.image_auroc, plain.pixel_auroc)


def test_weights():
    ends = ((0.0, 2.0), (1.0, 5.0))
    assert fusion_weights(ends, ends) == FUSION
    assert fusion_weights(ends, ((7.0, 8.0), (0.0, 4.0))) == (2 / 3, 1 / 3)
    assert fusion_weights(ends, ((7.0, 7.0), (0.0, 4.0))) == (0.0, 1.0)
    assert fusion_weights(ends, ((7.0, 7.0), (0.0, 0.0))) == (0.0, 0.0)
    g = torch.Generator().manual_seed(0)
    one = torch.ones(1)
    for _ in range(1_000):
        low = torch.rand(4, generator=g, dtype=torch.float64)
        pairs = torch.stack([low, low + torch.rand(4, generator=g, dtype=torch.float64)], dim=1)
        weights = fusion_weights(pairs[:2].tolist(), pairs[2:].tolist())
        assert weights[0] * one + weights[1] * one <= 1  # what a histogram takes


def test_maps_are_scaled_by_the_test_set():
    """Only their sum is calibrated: text and memory maps stay in [0, 1] for pictures."""
    made = predictions(0)
    known = constants_of(predictions(3))
    for (_, plain), (_, other) in zip(Maps(made), Maps(made, known), strict=True):
        assert torch.equal(plain[0], other[0])
        assert torch.equal(plain[1], other[1])
        assert not torch.equal(plain[2], other[2])
