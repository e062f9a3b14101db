"""Training steps, the memory bank and predictions, on random images and adapters."""

import itertools
import math

import pytest
import torch

from CLIP.weights import create_model
from errors import UserError
from mvfa import scoring
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.evaluation import evaluate
from mvfa.methods.mvfa import Mvfa
from mvfa.recipe import RECIPES
from tests.image_sets import Pictures, drawn_method, loader
from tests.methods import recipe_of


@pytest.fixture
def method(tiny) -> Mvfa:
    return drawn_method(tiny)


def test_gradients_reach_what_they_should(method):
    pictures = Pictures(masked="all")
    mvfa = method.model
    features = mvfa.stem(pictures.images)
    method.loss(features, pictures.labels, pictures.pixels, pictures.nouns).sum().backward()
    for head in ("seg", "det"):
        for level, adapter in enumerate(mvfa.adapters(head)):
            assert adapter.fc1[0].weight.grad is not None
            # nothing follows the last level
            assert (adapter.fc2[0].weight.grad is None) == (level == 2)
    assert all(p.grad is None for p in mvfa.visual.parameters())


def test_no_masks_no_seg_step(method):
    before = method.state()
    batches = loader(method, Pictures(masked="none"))
    trainer = Trainer(method, 1e-3)
    for batch in batches.batches():
        trainer.step(batch, batches)
    after = method.state()
    for name, value in before["seg_adapters"].items():
        assert torch.equal(value, after["seg_adapters"][name])
    first = "0.fc1.0.weight"
    assert not torch.equal(before["det_adapters"][first], after["det_adapters"][first])


def step_gradients(method, size: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the mean loss and gradients of eight images in steps of `size`, averaged over steps.

    Steps do not move the adapters. Seg gradients are read when the seg optimizer makes a step.
    """
    batches = loader(method, Pictures(), size)
    trainer = Trainer(method, 0.0)
    gradients: dict[str, torch.Tensor] = {}

    def add(head: str) -> None:
        for name, p in method.model.adapters(head).named_parameters():
            if p.grad is not None:
                key = f"{head}.{name}"
                gradients[key] = gradients.get(key, 0) + p.grad.clone() * size / 8

    for head, optimizer in trainer.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, head=head: add(head))
    losses = [
        trainer.step(batch, batches)() * len(batch.members) / 8 for batch in batches.batches()
    ]
    return sum(losses), gradients


def test_a_mixed_batch_is_the_mean_of_its_images(tiny):
    """Seg adapters count images with masks only."""
    whole_loss, whole = step_gradients(drawn_method(tiny), 8)
    single_loss, single = step_gradients(drawn_method(tiny), 1)
    assert whole_loss == pytest.approx(single_loss, rel=1e-5)
    assert whole.keys() == single.keys()
    for key, value in whole.items():
        torch.testing.assert_close(value, single[key], rtol=1e-3, atol=1e-6)


def test_a_non_finite_loss_stops(method):
    batches = loader(method, Pictures())
    trainer = Trainer(method, 1e-3)
    before = method.state()
    method.text = {noun: value * float("nan") for noun, value in method.text.items()}
    with pytest.raises(UserError, match="the loss became nan: the text features are not finite"):
        trainer.step(next(batches.batches()), batches)
    after = method.state()  # on a CPU no optimizer has moved
    for group, values in before.items():
        assert all(torch.equal(value, after[group][name]) for name, value in values.items())


def test_the_message_names_what_is_not_finite(method):
    """Only adapters that have diverged are a matter of the learning rate."""
    batches = loader(method, Pictures())
    trainer = Trainer(method, 1e-3)
    batch = next(batches.batches())
    broken = batch._replace(features=batch.features / 0)
    with pytest.raises(
        UserError, match=r"features of images are not finite; .*--clip_path"
    ) as said:
        trainer.step(broken, batches)
    assert "--learning_rate" not in str(said.value)
    with torch.no_grad():
        next(method.model.adapters("det").parameters()).fill_(math.inf)
    with pytest.raises(UserError, match="adapters are not finite; lower --learning_rate"):
        trainer.step(batch, batches)


def test_training_reports_the_loss_of_an_image(method):
    """The mean over images, where the last step is smaller than the others."""
    reported = []
    batches = loader(method, Pictures(7), 3)
    trainer = Trainer(method, 1e-3)
    mean = train(trainer, batches, range(7), report=reported.append)
    assert len(reported) == 3
    assert mean == pytest.approx((3 * reported[0] + 3 * reported[1] + reported[2]) / 7)


@pytest.mark.parametrize(("masks", "few"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("recipe", RECIPES)
def test_batch_1_equals_batch_b(tiny, masks, few, recipe):
    pictures = Pictures(7, masked="all" if masks else "none")
    method = drawn_method(tiny, masks=masks, recipe=recipe_of(recipe, bank_class_token=True))
    results = []
    for size in (1, 3, 7):
        batches = loader(method, pictures, size)
        bank = build_memory(method, batches, [0, 2]) if few else None
        predictions = predict(method, batches, bank)
        results.append(evaluate(predictions))
    for result in results[1:]:
        torch.testing.assert_close(result.scores, results[0].scores, rtol=1e-4, atol=1e-4)
        assert result.image_auroc == results[0].image_auroc
        assert (result.pixel_auroc is None) == (not masks)
        assert (result.memory_scores is None) == (not few)


def test_predictions_hold_labels_and_masks(method):
    pictures = Pictures(7, masked="all")
    predictions = predict(method, loader(method, pictures, 3), None)
    assert predictions.members == list(range(7))
    assert torch.equal(predictions.labels, pictures.labels)
    assert torch.equal(predictions.block_masks(slice(None)), pictures.pixels)


def test_maps_without_masks_are_kept_only_where_they_are_asked_for(tiny):
    method = drawn_method(tiny, noun="Chest", masks=False)
    batches = loader(method, Pictures(4, masked="none"))
    plain = predict(method, batches, None)
    mapped = predict(method, batches, None, maps=True)
    assert plain.logits is None
    assert plain.masks is None
    assert mapped.logits.shape == (4, 3, 16)
    torch.testing.assert_close(plain.text_scores, mapped.text_scores, rtol=0, atol=0)


def test_a_bank_scores_its_own_images_zero(method):
    mvfa = method.model
    features = mvfa.stem(torch.rand(3, 3, 32, 32))
    tokens = mvfa(features).seg
    bank = scoring.normalise_bank(tokens)
    assert [level.shape for level in bank] == [(3 * 17, 64)] * 3
    assert scoring.memory_distance(tokens, bank).abs().max() < 1e-5
    assert scoring.memory_distance(mvfa(torch.randn(1, 17, 64)).seg, bank).min() > 1e-3


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("masks", [True, False])
def test_a_bank_holds_the_tokens_of_its_head(tiny, masks, class_token):
    pictures = Pictures(6)
    method = drawn_method(tiny, masks=masks, recipe=recipe_of(bank_class_token=class_token))
    bank = build_memory(method, loader(method, pictures), [4, 0], 1)
    mvfa = method.model
    tokens = mvfa(mvfa.stem(pictures.images[[4, 0]]))
    expected = scoring.normalise_bank(tokens.seg if masks else tokens.det, class_token)
    assert [len(level) for level in bank] == [2 * (16 + class_token)] * 3
    for a, b in zip(bank, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def first_gradients(tiny_path, backbone: str, precision: str) -> torch.Tensor:
    """Return the gradient of the first seg adapter for a loss that is a ten-millionth.

    It comes through all blocks of a network in the precision `backbone`. `precision` is what the
    trainer takes that for.
    """
    clip = create_model(None, tiny_path, image_size=32, precision=backbone)
    method = drawn_method(clip)
    trainer = Trainer(method, 1e-3, precision=precision)
    batches = loader(method, Pictures(4, masked="all"))
    gradients = []
    weight = (
        method.model.seg_adapters[0].fc2[0].weight
    )  # reaches the loss through later blocks only
    trainer.optimizers["seg"].register_step_pre_hook(
        lambda *_: gradients.append(weight.grad.clone())
    )
    (batch,) = batches.batches()
    trainer.step(batch._replace(total=10_000_000), batches)
    return gradients[0]


def test_small_gradients_of_a_half_precision_backbone_do_not_vanish(tiny_path):
    full = first_gradients(tiny_path, "fp32", "fp32")
    plain = first_gradients(tiny_path, "fp16", "fp32")
    scaled = first_gradients(tiny_path, "fp16", "fp16")
    assert (scaled - full).norm() < 0.05 * full.norm()
    assert (plain - full).norm() > 2 * (scaled - full).norm()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_training_stays_finite_and_learns(tiny_path, precision):
    clip = create_model(None, tiny_path, image_size=32, precision=precision)
    method = drawn_method(clip)
    trainer = Trainer(method, 1e-3, precision=precision)
    batches = loader(method, Pictures(8), cache_gb=1)
    losses = [sum(trainer.step(batch, batches)() for batch in batches.batches()) for _ in range(50)]
    assert losses[-1] < losses[0]
    assert all(torch.isfinite(p).all() for group in method.groups().values() for p in group)
