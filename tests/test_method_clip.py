"""Plain CLIP against slow formulas, with the demo network: one patch, one bank row at a time."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.medical_few import evaluation_set
from errors import UserError
from mvfa.engine import build_memory, predict
from mvfa.evaluation import evaluate
from mvfa.features import FeatureLoader
from mvfa.methods import clip as plain
from mvfa.methods.base import Source
from mvfa.recipe import FIELDS, RECIPES
from mvfa.score_form import ScoreForm
from prompt import text_features
from tests.conftest import TOLERANCE, listed_shots

SIDE = 120
LEVELS = (6, 12, 24)  # the last of them is the last block
CPU = torch.device("cpu")
close = torch.testing.assert_close
TIGHT = TOLERANCE[torch.float32]


@pytest.fixture(scope="module")
def network(demo_weights):
    return create_model("ViT-demo", demo_weights, image_size=SIDE)


@pytest.fixture(scope="module")
def text(network):
    return text_features(network, "Brain")


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(5)
    smooth = torch.rand(4, 3, 8, 8, generator=generator)
    large = torch.nn.functional.interpolate(smooth, size=SIDE, mode="bicubic").clamp(0, 1)
    return (255 * large).round().to(torch.uint8)


def options(weights, **changes):
    """Return what `create` reads of the options."""
    values = {
        "model_name": "ViT-demo",
        "clip_path": weights,
        "img_size": SIDE,
        "recipe": RECIPES["released"],
        "features_list": LEVELS,
        "score_levels": (),
        "text_cache": None,
    }
    return SimpleNamespace(**(values | changes))


def made(weights, obj="Brain", **changes):
    """Return the method of an object; Brain has masks, Chest does not."""
    of_recipe = {name: changes.pop(name) for name in FIELDS.keys() & changes.keys()}
    recipe = replace(RECIPES["released"], **of_recipe)
    env = SimpleNamespace(device=CPU, precision="fp32")
    chosen = options(weights, recipe=recipe, **changes)
    return plain.create(chosen, env, object_info(obj), torch.Generator())


def slow_hidden(network, images):
    """Return the hidden tokens after every block, by block number."""
    x = network.visual.embed(images)
    after = {}
    for number, block in enumerate(network.visual.transformer.resblocks, start=1):
        x = block(x)
        after[number] = x
    return after


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def slow_probability(network, token, text):
    """Return the softmax over 100 times the two cosines of a hidden token: of "abnormal"."""
    visual = network.visual
    x = token.double()
    norm = (x - x.mean()) / (x.var(unbiased=False) + visual.ln_post.eps).sqrt()
    norm = norm * visual.ln_post.weight.double() + visual.ln_post.bias.double()
    embedded = visual.proj.double().T @ norm
    logits = torch.tensor([100 * cosine(embedded, text[:, column]) for column in (0, 1)])
    return float(logits.softmax(0)[1])


def slow_distance(hidden, bank_hidden, image, patch, levels=LEVELS, first=0):
    """Return the sum over levels of 1 - the largest cosine of a patch with the bank's tokens."""
    total = 0.0
    for level in levels:
        token = hidden[level][image, 1 + patch]
        rows = [row for other in bank_hidden[level] for row in other[first:]]
        total += 1 - max(cosine(token, row) for row in rows)
    return total


def test_features_are_the_hidden_tokens_after_each_level_and_the_last_block(
    demo_weights, network, images
):
    method = made(demo_weights)
    features = method.features(images)
    after = slow_hidden(network, images.float() / 255)
    assert features.dtype == torch.float32
    assert features.shape == (4, *method.feature_shape)
    for tap, block in enumerate((*LEVELS, 24)):
        close(features[:, tap], after[block], **TIGHT)


def test_clip_scaling_is_applied_before_the_tower(demo_weights, network, images):
    features = made(demo_weights, scaling="clip").features(images)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    after = slow_hidden(network, (images.float() / 255 - mean) / std)
    close(features[:, 0], after[LEVELS[0]], **TIGHT)


def test_text_logits_give_the_softmax_of_each_patch(demo_weights, network, text, images):
    method = made(demo_weights)
    values = method.score(method.features(images), None)
    hidden = slow_hidden(network, images.float() / 255)[24]
    assert values["logits"].shape == (4, 1, 144)
    for image, patch in ((0, 0), (1, 17), (3, 143)):
        expected = slow_probability(network, hidden[image, 1 + patch], text)
        assert values["logits"][image, 0, patch].sigmoid().item() == pytest.approx(expected, 1e-4)


def test_the_text_score_is_the_decision_of_the_class_token(demo_weights, network, images):
    method = made(demo_weights, "Chest")
    text = text_features(network, "Chest X-ray film")
    values = method.score(method.features(images), None)
    hidden = slow_hidden(network, images.float() / 255)[24]
    expected = [slow_probability(network, hidden[image, 0], text) for image in range(4)]
    close(values["text_scores"], torch.tensor(expected), **TIGHT)


@pytest.mark.parametrize("class_token", [True, False])
def test_the_distance_is_the_sum_over_levels_to_the_nearest_row(
    demo_weights, network, images, class_token
):
    method = made(demo_weights, bank_class_token=class_token)
    features = method.features(images)
    bank = method.bank(features[2:])
    assert [level.shape for level in bank] == [(2 * (144 + class_token), 64)] * 3
    assert (method.bank_levels, method.embed_dim) == (3, 64)
    assert all(method.bank_rows(image) == 144 + class_token for image in images)
    values = method.score(features[:2], bank)
    after = slow_hidden(network, images.float() / 255)
    bank_hidden = {block: after[block][2:] for block in LEVELS}
    for image, patch in ((0, 3), (1, 140)):
        expected = slow_distance(after, bank_hidden, image, patch, first=1 - class_token)
        assert values["distance"][image, patch].item() == pytest.approx(expected, abs=1e-5)


def test_class_tokens_can_be_the_nearest_rows(demo_weights, images):
    method = made(demo_weights)
    features = method.features(images)
    copied = features[:2].clone()
    copied[:, :, 1] = features[2:3, :, 0]  # a patch that equals a class token of the bank
    without = made(demo_weights, bank_class_token=False)
    near = method.score(copied, method.bank(features[2:]))["distance"][:, 0]
    far = without.score(copied, without.bank(features[2:]))["distance"][:, 0]
    close(near, torch.zeros(2), atol=1e-5, rtol=0)
    assert far.min() > 1e-3


def test_a_bank_scores_its_own_images_zero(demo_weights, images):
    method = made(demo_weights)
    features = method.features(images)
    distance = method.score(features, method.bank(features))["distance"]
    close(distance, torch.zeros(4, 144), atol=1e-5, rtol=0)


def test_scored_levels_choose_features_and_rows(demo_weights, network, images):
    method = made(demo_weights, score_levels=(12,))
    features = method.features(images)
    bank = method.bank(features[2:])
    assert len(bank) == len(LEVELS)  # the bank has all, as a detector's file does
    values = method.score(features[:2], bank)
    after = slow_hidden(network, images.float() / 255)
    bank_hidden = {block: after[block][2:] for block in LEVELS}
    expected = slow_distance(after, bank_hidden, 1, 70, levels=(12,))
    assert values["distance"][1, 70].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("pool", "reduction"), [("mean", "sum"), ("max", "mean")])
def test_memory_scores_are_the_mean_of_the_map_or_the_largest_distance(
    demo_weights, images, pool, reduction
):
    method = made(demo_weights, "Chest", image_score=pool, level_reduction=reduction)
    features = method.features(images)
    values = method.score(features[:2], method.bank(features[2:]), maps=True)
    distance = values["distance"]
    grid = distance.reshape(2, 1, 12, 12)
    pixels = torch.nn.functional.interpolate(grid, size=SIDE, mode="bilinear", align_corners=True)
    expected = distance.amax(1) if pool == "max" else pixels.mean((1, 2, 3))
    close(values["memory_scores"], expected, **TIGHT)
    summed = made(demo_weights, "Chest").score(features[:2], method.bank(features[2:]), maps=True)[
        "distance"
    ]
    close(distance, summed / 3 if reduction == "mean" else summed, **TIGHT)


MAPS = {"logits", "distance"}
SCORES = {"text_scores", "memory_scores"}


@pytest.mark.parametrize(
    ("obj", "few", "maps", "pool", "expected"),
    [
        ("Brain", True, False, "mean", MAPS),  # the score is the maximum of the fused map
        ("Brain", True, False, "max", MAPS | SCORES),
        ("Brain", False, False, "mean", {"logits", "text_scores"}),
        ("Chest", True, False, "mean", SCORES),
        ("Chest", True, True, "mean", MAPS | SCORES),
        ("Chest", False, False, "mean", {"text_scores"}),
        ("Chest", False, True, "mean", {"logits", "text_scores"}),
    ],
)
def test_only_what_the_evaluation_reads_is_given(
    demo_weights, images, obj, few, maps, pool, expected
):
    method = made(demo_weights, obj, image_score=pool)
    features = method.features(images)
    bank = method.bank(features[2:]) if few else None
    assert set(method.score(features[:2], bank, maps=maps)) == expected


def test_an_image_scores_the_same_alone_and_in_a_batch(demo_weights, images):
    method = made(demo_weights, "Chest")
    features = method.features(images)
    bank = method.bank(features[2:])
    together = method.score(features, bank, maps=True)
    for i in range(4):
        alone = method.score(method.features(images[i : i + 1]), bank, maps=True)
        for name, values in alone.items():
            close(values[0], together[name][i], **TIGHT)


def test_nothing_is_trained(demo_weights):
    method = made(demo_weights)
    assert method.keys == ()
    assert method.state() == {}
    assert method.groups() == {}
    assert not any(values.requires_grad for values in method.parameters())
    assert method.weights == demo_weights


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
@pytest.mark.parametrize("few", [False, True])
def test_it_runs_through_the_loops(demo_weights, demo_root, obj, few):
    info = object_info(obj)
    method = made(demo_weights, obj)
    support = method.support(listed_shots(demo_root, obj, 2), info, torch.Generator())
    tests = evaluation_set(demo_root / "data", info, SIDE)
    loader = FeatureLoader(tests, method, device=CPU, batch_size=4, cache_gb=1)
    shots = FeatureLoader(support, method, device=CPU, batch_size=4)
    bank = build_memory(method, shots, support.normal) if few else None
    evaluation = evaluate(predict(method, loader, bank))
    assert (evaluation.memory_scores is not None) == few
    assert (evaluation.pixel_auroc is not None) == info.masks
    pixels = torch.stack([tests[i].image for i in range(len(tests))])
    scores = method.score(method.features(pixels), bank, maps=True)
    if not few:
        text = scores["text_scores"]
        close(evaluation.scores, (text - text.min()) / (text.max() - text.min()), **TIGHT)


def settings(**changes):
    """Return what `load` reads of a detector's settings."""
    values = {
        "model_name": "ViT-demo",
        "img_size": SIDE,
        "recipe": replace(RECIPES["released"], activation="quickgelu"),
        "features_list": LEVELS,
        "masks": True,
    }
    return SimpleNamespace(**(values | changes))


@pytest.mark.parametrize("late", [False, True])
def test_a_loaded_method_scores_as_the_one_that_was_saved(demo_weights, images, tmp_path, late):
    method = made(demo_weights, activation="quickgelu")
    tensors = {name: values.clone() for name, values in method.tensors().items()}
    assert {name: tuple(values.shape) for name, values in tensors.items()} == {"text": (64, 2)}
    source = Source(tmp_path / "a.detector", demo_weights, CPU, "fp32", late=late)
    loaded = plain.load(settings(), tensors, source)
    features = method.features(images)
    expected = method.score(features, method.bank(features[2:]))
    again = loaded.features(images)
    got = loaded.score(again, loaded.bank(again[2:]))
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        assert torch.equal(values, got[name])


@pytest.mark.parametrize("tensors", [{}, {"text": torch.zeros(63, 2)}])
def test_text_features_that_do_not_fit_are_refused(demo_weights, tmp_path, tensors):
    source = Source(tmp_path / "a.detector", demo_weights, CPU, "fp32")
    with pytest.raises(UserError, match=r"a\.detector.*text features"):
        plain.load(settings(), tensors, source)


def test_a_block_that_the_tower_does_not_have_is_refused(demo_weights):
    with pytest.raises(UserError, match="from 1 to 24"):
        made(demo_weights, features_list=(6, 25))


def test_the_form_is_the_recipes(demo_weights):
    method = made(demo_weights, image_score="max", level_reduction="mean", score_levels=(6,))
    assert method.form == ScoreForm("max", "mean", (6,))
    assert method.side == SIDE
