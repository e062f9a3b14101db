"""The reference values of the released code (SPEC section 8), and mutations they must catch."""

import pytest
import torch
from PIL.Image import Resampling

import dataset.pixels
import loss
from CLIP import adapter, weights
from CLIP.adapter import HEADS
from CLIP.tokenizer import tokenize
from CLIP.weights import create_model
from dataset.folder import list_split
from dataset.medical_few import stack_shots
from mvfa.evaluation import Maps
from mvfa.features import prepare
from tests.parity import ARRAYS, CPU, EXPECTED, REFERENCE, SIDE, Bench, difference
from utils import augment

CLOSE = 1e-4
# float32 rounding errors grow during training
FIRST_STEPS = 1e-3
LATER_STEPS = 1e-1
NORMS = 5e-3
OBJECTS = ["Brain", "Chest"]


@pytest.fixture(scope="module", params=OBJECTS)
def bench(request, standin) -> Bench:
    return Bench(standin, request.param)


@pytest.fixture(scope="module")
def brain(standin) -> Bench:
    return Bench(standin, "Brain")


def test_tokens():
    for sentence, ids in EXPECTED["tokens"].items():
        assert tokenize([sentence])[0].tolist() == ids


def test_text_features(bench):
    assert difference(bench.text, ARRAYS[f"text_{bench.info.name}"]) < CLOSE


def test_position_embedding(brain):
    assert difference(brain.clip.visual.positional_embedding[:, ::16], ARRAYS["pos_embed"]) < CLOSE


def test_image_and_token_features(brain):
    image = prepare(brain.tests[0].image[None], CPU)
    assert difference(image, ARRAYS["image0"]) < CLOSE
    with torch.no_grad():
        features = brain.mvfa()(brain.mvfa().stem(image))
    for head in HEADS:
        for level, tokens in enumerate(getattr(features, head)):
            assert difference(tokens[0, :, ::16], ARRAYS[f"{head}_level{level}"]) < CLOSE


def test_augmentation(bench):
    expected = EXPECTED["augment"][bench.info.name]
    support = bench.support
    means = support.images.mean(dim=(1, 2, 3))
    assert difference(means[:22], expected["abnormal_mean"]) < CLOSE
    assert difference(means[22:], expected["normal_mean"]) < CLOSE
    if bench.info.masks:
        shots = [r for r in list_split(REFERENCE / "data", bench.info, "valid") if r.label]
        masks = augment(stack_shots(shots, SIDE)[1][:, None])
        assert difference(masks.mean(dim=(1, 2, 3)), expected["mask_mean"]) < CLOSE


def test_few_shot_scores(bench):
    expected = EXPECTED["test_few"][bench.info.name]
    got = bench.evaluation(few=True)
    assert bench.tests.labels.tolist() == expected["labels"]
    assert difference(got.scores, expected["image_scores"]) < CLOSE
    assert got.image_auroc == pytest.approx(expected["image_auroc"], abs=1e-12)
    if bench.info.masks:
        assert got.pixel_auroc == pytest.approx(expected["pixel_auroc"], abs=1e-5)
    else:
        assert difference(got.text_scores, expected["text_branch"]) < CLOSE
        assert difference(got.memory_scores, expected["memory_branch"]) < CLOSE


def test_zero_shot_scores(bench):
    expected = EXPECTED["test_zero"][bench.info.name]
    got = bench.evaluation(few=False)
    assert difference(got.scores, expected["image_scores"]) < CLOSE
    assert got.image_auroc == pytest.approx(expected["image_auroc"], abs=1e-12)
    if bench.info.masks:
        assert got.pixel_auroc == pytest.approx(expected["pixel_auroc"], abs=1e-5)


def test_maps(brain):
    few = Maps(brain.predictions(few=True))
    zero = Maps(brain.predictions(few=False))
    text, memory, _ = few.block(slice(0, 1))
    assert difference(text[0], ARRAYS["few_map_zero_first"]) < CLOSE
    assert difference(memory[0], ARRAYS["few_map_memory_first"]) < CLOSE
    assert difference(few.block(slice(11, 12))[2][0], ARRAYS["few_map_last"]) < CLOSE
    assert difference(zero.block(slice(11, 12))[2][0], ARRAYS["zero_map_last"]) < CLOSE


def test_memory_holds_class_tokens(bench):
    rows = 11 * 2 * (1 + (SIDE // 14) ** 2)
    assert [tuple(level.shape) for level in bench.memory()] == [(rows, 768)] * 4
    assert len(bench.memory(class_token=False)[0]) == rows - 22


def test_losses_by_hand():
    for case in EXPECTED["loss_by_hand"]:
        p = torch.tensor(case["abnormal_probability"])[None]
        mask = torch.tensor(case["mask"])[None]
        assert difference(loss.focal_loss(p, mask)[0], case["focal"]) < CLOSE
        assert difference(loss.dice_loss(p, mask)[0], case["dice"]) < CLOSE


def test_training(bench):
    expected = EXPECTED["train_few"][bench.info.name]
    assert bench.loss() == pytest.approx(expected["loss_at_lr_0"], rel=CLOSE)
    losses, mvfa = bench.train(rate=1e-3)
    steps = expected["loss_per_step_at_lr_1e-3"]
    assert difference(losses[:22], steps[:22]) < FIRST_STEPS
    assert difference(losses[22:], steps[22:]) < LATER_STEPS
    for name, norm in expected["adapter_norms_after"].items():
        head, key = name.split(".", 1)
        weight = mvfa.adapters(head).state_dict()[key]
        assert weight.norm().item() == pytest.approx(norm, rel=NORMS)


def first_losses_differ(brain, **settings) -> bool:
    losses, _ = brain.train(rate=1e-3, steps=12, **settings)
    expected = EXPECTED["train_few"]["Brain"]["loss_per_step_at_lr_1e-3"][:12]
    return difference(losses, expected) > FIRST_STEPS


def test_detached_tokens_are_caught(brain, monkeypatch):
    back = adapter.Adapter.back
    monkeypatch.setattr(adapter.Adapter, "back", lambda self, t: back(self, t).detach())
    assert first_losses_differ(brain)


def test_other_adam_betas_are_caught(brain):
    assert first_losses_differ(brain, betas=(0.9, 0.999))


def test_quickgelu_is_caught(standin):
    mutant = Bench(standin, "Chest", activation="quickgelu")
    assert difference(mutant.text, ARRAYS["text_Chest"]) > CLOSE
    image = mutant.evaluation(few=False).scores
    assert difference(image, EXPECTED["test_zero"]["Chest"]["image_scores"]) > CLOSE


def test_missing_antialias_is_caught(standin, monkeypatch):
    interpolate = torch.nn.functional.interpolate
    monkeypatch.setattr(
        "CLIP.weights.F.interpolate",
        lambda *args, **kw: interpolate(*args, **(kw | {"antialias": False})),
    )
    weights.load_network.cache_clear()
    mutant = create_model(None, standin / "standin.pt", image_size=SIDE)
    weights.load_network.cache_clear()
    assert difference(mutant.visual.positional_embedding[:, ::16], ARRAYS["pos_embed"]) > CLOSE


def test_unantialiased_images_are_caught(brain, monkeypatch):
    resize = dataset.pixels.resize
    monkeypatch.setattr(
        "dataset.pixels.resize", lambda image, side, _: resize(image, side, Resampling.NEAREST)
    )
    assert difference(prepare(brain.tests[0].image[None], CPU), ARRAYS["image0"]) > CLOSE


def test_a_focal_loss_without_clamp_is_caught(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "clamp", lambda self, *_: self)
    with pytest.raises(AssertionError):
        test_losses_by_hand()
