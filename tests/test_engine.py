"""Training steps, the memory bank and predictions, on random images and adapters."""

import itertools
import math

import pytest
import torch

from CLIP.adapter import MVFA
from CLIP.weights import create_model
from errors import UserError
from mvfa import checkpoint, forms, scoring
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.evaluation import evaluate
from mvfa.recipe import RECIPES
from tests.conftest import released_objective, released_scores
from tests.image_sets import Pictures, drawn_adapters, drawn_text, loader


@pytest.fixture
def mvfa(tiny) -> MVFA:
    return drawn_adapters(tiny)


@pytest.fixture
def text() -> dict[str, torch.Tensor]:
    return drawn_text()


def test_gradients_reach_what_they_should(mvfa, text):
    pictures = Pictures(masked="all")
    trainer = Trainer(mvfa, released_objective(), 1e-3)
    features = mvfa.stem(pictures.images)
    sentences = torch.stack([text["Brain"]] * len(pictures))
    trainer.loss(features, pictures.labels, pictures.pixels, sentences).sum().backward()
    for head in ("seg", "det"):
        for level, adapter in enumerate(mvfa.adapters(head)):
            assert adapter.fc1[0].weight.grad is not None
            # nothing follows the last level
            assert (adapter.fc2[0].weight.grad is None) == (level == 2)
    assert all(p.grad is None for p in mvfa.visual.parameters())


def test_no_masks_no_seg_step(mvfa, text):
    before = checkpoint.adapter_state(mvfa)
    batches = loader(mvfa, Pictures(masked="none"))
    trainer = Trainer(mvfa, released_objective(), 1e-3)
    for batch in batches.batches():
        trainer.step(batch, batches, text)
    after = checkpoint.adapter_state(mvfa)
    for name, value in before["seg_adapters"].items():
        assert torch.equal(value, after["seg_adapters"][name])
    first = "0.fc1.0.weight"
    assert not torch.equal(before["det_adapters"][first], after["det_adapters"][first])


def step_gradients(mvfa, text, size: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the mean loss and gradients of eight images in steps of `size`, averaged over steps.

    Steps do not move the adapters. Seg gradients are read when the seg optimizer makes a step.
    """
    batches = loader(mvfa, Pictures(), size)
    trainer = Trainer(mvfa, released_objective(), 0.0)
    gradients: dict[str, torch.Tensor] = {}

    def add(head: str) -> None:
        for name, p in mvfa.adapters(head).named_parameters():
            if p.grad is not None:
                key = f"{head}.{name}"
                gradients[key] = gradients.get(key, 0) + p.grad.clone() * size / 8

    for head, optimizer in trainer.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, head=head: add(head))
    losses = [
        trainer.step(batch, batches, text) * len(batch.members) / 8 for batch in batches.batches()
    ]
    return sum(losses), gradients


def test_a_mixed_batch_is_the_mean_of_its_images(tiny, text):
    """Seg adapters count images with masks only."""
    whole_loss, whole = step_gradients(drawn_adapters(tiny), text, 8)
    single_loss, single = step_gradients(drawn_adapters(tiny), text, 1)
    assert whole_loss == pytest.approx(single_loss, rel=1e-5)
    assert whole.keys() == single.keys()
    for key, value in whole.items():
        torch.testing.assert_close(value, single[key], rtol=1e-3, atol=1e-6)


def test_a_non_finite_loss_stops(mvfa, text):
    batches = loader(mvfa, Pictures())
    trainer = Trainer(mvfa, released_objective(), 1e-3)
    broken = {noun: value * float("nan") for noun, value in text.items()}
    with pytest.raises(UserError, match="the loss became nan: the text features are not finite"):
        trainer.step(next(batches.batches()), batches, broken)


def test_the_message_names_what_is_not_finite(mvfa, text):
    """Only adapters that have diverged are a matter of the learning rate."""
    batches = loader(mvfa, Pictures())
    trainer = Trainer(mvfa, released_objective(), 1e-3)
    batch = next(batches.batches())
    broken = batch._replace(features=batch.features / 0)
    with pytest.raises(
        UserError, match=r"features of images are not finite; .*--clip_path"
    ) as said:
        trainer.step(broken, batches, text)
    assert "--learning_rate" not in str(said.value)
    with torch.no_grad():
        next(mvfa.adapters("det").parameters()).fill_(math.inf)
    with pytest.raises(UserError, match="adapters are not finite; lower --learning_rate"):
        trainer.step(batch, batches, text)


def test_training_reports_the_loss_of_an_image(mvfa, text):
    """The mean over images, where the last step is smaller than the others."""
    reported = []
    batches = loader(mvfa, Pictures(7), 3)
    trainer = Trainer(mvfa, released_objective(), 1e-3)
    mean = train(trainer, batches, text, range(7), report=reported.append)
    assert len(reported) == 3
    assert mean == pytest.approx((3 * reported[0] + 3 * reported[1] + reported[2]) / 7)


@pytest.mark.parametrize(("masks", "few"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("recipe", RECIPES)
def test_batch_1_equals_batch_b(mvfa, text, masks, few, recipe):
    pictures = Pictures(7, masked="all" if masks else "none")
    form = forms.score_form(RECIPES[recipe])
    results = []
    for size in (1, 3, 7):
        batches = loader(mvfa, pictures, size)
        bank = None
        if few:
            bank = build_memory(mvfa, batches, [0, 2], masks=masks, class_token=True)
        predictions = predict(mvfa, batches, text["Brain"], bank, masks=masks, form=form)
        results.append(evaluate(predictions))
    for result in results[1:]:
        torch.testing.assert_close(result.scores, results[0].scores, rtol=1e-4, atol=1e-4)
        assert result.image_auroc == results[0].image_auroc
        assert (result.pixel_auroc is None) == (not masks)
        assert (result.memory_scores is None) == (not few)


def test_predictions_hold_labels_and_masks(mvfa, text):
    pictures = Pictures(7, masked="all")
    form = released_scores()
    predictions = predict(
        mvfa, loader(mvfa, pictures, 3), text["Brain"], None, masks=True, form=form
    )
    assert predictions.members == list(range(7))
    assert torch.equal(predictions.labels, pictures.labels)
    assert torch.equal(predictions.block_masks(slice(None)), pictures.pixels)


def test_maps_without_masks_are_kept_only_where_they_are_asked_for(mvfa, text):
    batches = loader(mvfa, Pictures(4, masked="none"))
    form = released_scores()
    plain = predict(mvfa, batches, text["Chest"], None, masks=False, form=form)
    mapped = predict(mvfa, batches, text["Chest"], None, masks=False, form=form, maps=True)
    assert plain.logits is None
    assert plain.masks is None
    assert mapped.logits.shape == (4, 3, 16)
    torch.testing.assert_close(plain.text_scores, mapped.text_scores, rtol=0, atol=0)


def test_a_bank_scores_its_own_images_zero(mvfa):
    features = mvfa.stem(torch.rand(3, 3, 32, 32))
    tokens = mvfa(features).seg
    bank = scoring.normalise_bank(tokens)
    assert [level.shape for level in bank] == [(3 * 17, 64)] * 3
    assert scoring.memory_distance(tokens, bank).abs().max() < 1e-5
    assert scoring.memory_distance(mvfa(torch.randn(1, 17, 64)).seg, bank).min() > 1e-3


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("masks", [True, False])
def test_a_bank_holds_the_tokens_of_its_head(mvfa, masks, class_token):
    pictures = Pictures(6)
    bank = build_memory(
        mvfa, loader(mvfa, pictures), [4, 0], masks=masks, class_token=class_token, size=1
    )
    tokens = mvfa(mvfa.stem(pictures.images[[4, 0]]))
    expected = scoring.normalise_bank(tokens.seg if masks else tokens.det, class_token)
    assert [len(level) for level in bank] == [2 * (16 + class_token)] * 3
    for a, b in zip(bank, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def first_gradients(tiny_path, text, backbone: str, precision: str) -> torch.Tensor:
    """Return the gradient of the first seg adapter for a loss that is a ten-millionth.

    It comes through all blocks of a network in the precision `backbone`. `precision` is what the
    trainer takes that for.
    """
    clip = create_model(None, tiny_path, image_size=32, precision=backbone)
    mvfa = drawn_adapters(clip)
    trainer = Trainer(mvfa, released_objective(), 1e-3, precision=precision)
    batches = loader(mvfa, Pictures(4, masked="all"))
    gradients = []
    weight = mvfa.seg_adapters[0].fc2[0].weight  # reaches the loss through later blocks only
    trainer.optimizers["seg"].register_step_pre_hook(
        lambda *_: gradients.append(weight.grad.clone())
    )
    (batch,) = batches.batches()
    trainer.step(batch._replace(total=10_000_000), batches, text)
    return gradients[0]


def test_small_gradients_of_a_half_precision_backbone_do_not_vanish(tiny_path, text):
    full = first_gradients(tiny_path, text, "fp32", "fp32")
    plain = first_gradients(tiny_path, text, "fp16", "fp32")
    scaled = first_gradients(tiny_path, text, "fp16", "fp16")
    assert (scaled - full).norm() < 0.05 * full.norm()
    assert (plain - full).norm() > 2 * (scaled - full).norm()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_training_stays_finite_and_learns(tiny_path, text, precision):
    clip = create_model(None, tiny_path, image_size=32, precision=precision)
    mvfa = drawn_adapters(clip)
    trainer = Trainer(mvfa, released_objective(), 1e-3, precision=precision)
    batches = loader(mvfa, Pictures(8), cache_gb=1)
    losses = [
        sum(trainer.step(batch, batches, text) for batch in batches.batches()) for _ in range(50)
    ]
    assert losses[-1] < losses[0]
    assert all(
        torch.isfinite(p).all() for head in ("seg", "det") for p in mvfa.adapters(head).parameters()
    )
