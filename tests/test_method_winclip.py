"""WinCLIP against anomalib's, with equal weights, and against plain formulas."""

import importlib.util
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from CLIP.model import ClipConfig, Tower
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.medical_few import evaluation_set
from errors import UserError
from mvfa.engine import build_memory, predict
from mvfa.evaluation import evaluate
from mvfa.features import CLIP_MEAN, CLIP_STD, FeatureLoader
from mvfa.methods import winclip
from mvfa.methods.base import Source
from mvfa.recipe import RECIPES
from prompt import NORMAL_STATES
from tests.conftest import listed_shots, random_state

SIDE = 48
GRID = 6
K = 2
CPU = torch.device("cpu")
EXACT = {"rtol": 0, "atol": 1e-5}
SMALL = ClipConfig(
    embed_dim=64,
    vision=Tower(128, 3, 2),  # wider than the joint space, as in ViT-L/14
    patch_size=8,
    grid=GRID,
    text=Tower(64, 2, 1),
    context_length=77,
    vocab_size=49_408,
)
NARROW = replace(SMALL, embed_dim=192)
close = torch.testing.assert_close
needs_anomalib = pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None, reason="anomalib is not installed"
)


def write_weights(folder, config):
    """Write random weights, those of the tower large enough for scores that differ."""
    state = random_state(config)
    state["visual.class_embedding"] *= 3
    state["visual.positional_embedding"] *= 3
    state["visual.conv1.weight"] *= 20
    torch.save(state, folder / "small.pt")
    return folder / "small.pt"


@pytest.fixture(scope="module", params=[SMALL, NARROW], ids=["wide", "narrow"])
def weights(request, tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("winclip"), request.param)


@pytest.fixture(scope="module")
def images():
    """Return four test images and two reference images."""
    generator = torch.Generator().manual_seed(7)
    smooth = torch.rand(4 + K, 3, 9, 9, generator=generator)
    large = torch.nn.functional.interpolate(smooth, size=SIDE, mode="bicubic").clamp(0, 1)
    return (255 * large).round().to(torch.uint8)


def made(weights, obj="Brain", side=SIDE, **recipe):
    """Return the method of an object; Brain has masks, Chest does not."""
    options = SimpleNamespace(
        model_name=None,
        clip_path=weights,
        img_size=side,
        recipe=replace(RECIPES["released"], scaling="clip", **recipe),
    )
    env = SimpleNamespace(device=CPU, precision="fp32")
    return winclip.create(options, env, object_info(obj), torch.Generator())


# ---------------------------------------------------------------- anomalib


def patches_first(open_clip_visual):
    """Let a tower of open_clip take hidden tokens as older releases did: [T, B, D].

    anomalib's window embeddings are made for these; newer ones take [B, T, D].
    """
    inner = open_clip_visual.transformer

    class OldOrder(torch.nn.Module):
        def forward(self, x):
            return inner(x.transpose(0, 1)).transpose(0, 1)

    def forward(x):
        x = open_clip_visual._embeds(x).transpose(0, 1)
        x = open_clip_visual.transformer(x).transpose(0, 1)
        pooled, tokens = open_clip_visual._pool(x)
        return pooled @ open_clip_visual.proj, tokens

    if getattr(inner, "batch_first", False):
        open_clip_visual.transformer = OldOrder()
        open_clip_visual.forward = forward


def anomalib_model(monkeypatch, weights, noun):
    """Return anomalib's WinCLIP with the weights of a file, and the paper's templates."""
    open_clip = pytest.importorskip("open_clip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that anomalib imports
        from anomalib.models.image.winclip import prompting, torch_model
    state = torch.load(weights, weights_only=True)
    embed_dim, width = state["text_projection"].shape[1], state["visual.conv1.weight"].shape[0]
    network = open_clip.CLIP(
        embed_dim,
        {"image_size": SIDE, "layers": 3, "width": width, "patch_size": 8},
        {"context_length": 77, "vocab_size": 49_408, "width": 64, "heads": 1, "layers": 2},
    )
    network.load_state_dict(state)
    patches_first(network.visual)
    found = (network.eval(), None, None)
    monkeypatch.setattr(
        torch_model.open_clip, "create_model_and_transforms", lambda *_, **__: found
    )
    monkeypatch.setattr(prompting, "TEMPLATES", list(winclip.TEMPLATES))
    return torch_model.WinClipModel(class_name=noun).eval()


def scaled(images):
    """Return images as anomalib's pre-processor does: float32, by CLIP's mean and deviation."""
    mean = torch.tensor(CLIP_MEAN)[:, None, None]
    std = torch.tensor(CLIP_STD)[:, None, None]
    return (images.float() / 255 - mean) / std


@needs_anomalib
@pytest.mark.parametrize("shots", [0, 1, K])
def test_maps_and_scores_equal_anomalibs(monkeypatch, weights, images, shots):
    method = made(weights)
    theirs = anomalib_model(monkeypatch, weights, "Brain")
    tests, references = images[:4], images[4 : 4 + shots]
    bank = None
    if shots:
        bank = method.bank(method.features(references))
        theirs.setup(reference_images=scaled(references))
    expected = theirs(scaled(tests))
    values = method.score(method.features(tests), bank)
    maps = method.form.text_map(values["logits"], SIDE)
    close(values["text_scores"], expected.pred_score, **EXACT)
    close(maps, expected.anomaly_map, **EXACT)
    assert expected.pred_score.std() > 1e-3  # the comparison is of numbers that differ
    assert expected.anomaly_map.std(dim=(1, 2)).min() > 1e-3


@needs_anomalib
def test_embeddings_equal_anomalibs(monkeypatch, weights, images):
    method = made(weights)
    theirs = anomalib_model(monkeypatch, weights, "Brain")
    image, windows, patches = theirs.encode_image(scaled(images))
    tokens = method.features(images).split(method.parts, dim=1)
    close(tokens[0][..., : patches.shape[-1]], patches, rtol=1e-4, atol=1e-4)
    close(tokens[3][:, 0, : image.shape[-1]], image, rtol=1e-4, atol=1e-4)
    for ours, other in zip(tokens[1:3], windows, strict=True):
        close(ours[..., : other.shape[-1]], other, rtol=1e-4, atol=1e-4)
    text = torch.nn.functional.normalize(theirs.text_embeddings, dim=1).T
    close(method.text, text, rtol=1e-4, atol=1e-5)


@needs_anomalib
def test_sentences_differ_from_anomalibs_in_two_templates():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from anomalib.models.image.winclip import prompting
    assert list(NORMAL_STATES) == prompting.NORMAL_STATES
    assert list(winclip.ABNORMAL_STATES) == prompting.ANOMALOUS_STATES
    missing = set(winclip.TEMPLATES) - set(prompting.TEMPLATES)
    assert missing == {"a cropped photo of a {}.", "a jpeg corrupted photo of a {}."}
    assert set(prompting.TEMPLATES) < set(winclip.TEMPLATES)


@needs_anomalib
def test_demo_images_side_by_side(monkeypatch, tmp_path, demo_root):
    """The same test set through our loops and anomalib's model: scores, maps and AUROCs."""
    weights = write_weights(tmp_path, SMALL)
    brain = object_info("Brain")
    method = made(weights)
    theirs = anomalib_model(monkeypatch, weights, brain.noun)
    support = method.support(listed_shots(demo_root, "Brain", K), brain, torch.Generator())
    tests = evaluation_set(demo_root / "data", brain, SIDE)
    loader = FeatureLoader(tests, method, device=CPU, batch_size=4)
    shots = FeatureLoader(support, method, device=CPU, batch_size=4)
    bank = build_memory(method, shots, support.normal)
    predictions = predict(method, loader, bank)
    evaluation = evaluate(predictions)

    references = torch.stack([support[i].image for i in support.normal])
    assert len(references) == K
    theirs.setup(reference_images=scaled(255 * references))
    pixels = torch.stack([tests[i].image for i in range(len(tests))])
    expected = theirs(scaled(pixels))
    scores = expected.pred_score
    close(predictions.text_scores, scores, **EXACT)
    close(method.form.text_map(predictions.logits, SIDE), expected.anomaly_map, **EXACT)
    spread = (scores - scores.min()) / (scores.max() - scores.min())
    close(evaluation.scores, spread, rtol=0, atol=1e-2)
    masks = predictions.block_masks(slice(None))
    assert evaluation.pixel_auroc == pytest.approx(auroc(expected.anomaly_map, masks), abs=1e-3)
    assert evaluation.image_auroc == pytest.approx(auroc(scores, tests.labels > 0), abs=1e-9)
    assert evaluation.memory_scores is None  # both branches come as one


def auroc(scores, positive):
    """Return the share of pairs that are in order, ties half."""
    scores, positive = scores.flatten().double(), positive.flatten()
    _, ranks, counts = scores.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    middle = (ends - (counts - 1) / 2)[ranks]
    n = int(positive.sum())
    return float((middle[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


# ---------------------------------------------------------------- plain formulas


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def slow_embedding(visual, tokens):
    """Return the projected class token of hidden tokens [T, D] before block 1: [E]."""
    return visual.ln_post(visual.transformer(tokens[None])[0, 0]) @ visual.proj


def corners(scale):
    return [(y, x) for y in range(GRID + 1 - scale) for x in range(GRID + 1 - scale)]


def inside(corner, scale):
    """Return the numbers of the patches of a window."""
    y, x = corner
    return [(y + i) * GRID + x + j for i in range(scale) for j in range(scale)]


def slow_windows(visual, image):
    """Return the embedding of each window of an image, by scale and corner."""
    hidden = visual.embed(scaled(image[None]))[0]
    return {
        (scale, corner): slow_embedding(
            visual, hidden[[0, *(1 + patch for patch in inside(corner, scale))]]
        )
        for scale in (2, 3)
        for corner in corners(scale)
    }


def slow_patches(visual, image):
    hidden = visual.embed(scaled(image[None]))
    return visual.ln_post(visual.transformer(hidden))[0, 1:]


def slow_spread(scores, scale, patch):
    """Return the harmonic mean of the scores of the windows that hold a patch."""
    held = [score for corner, score in scores.items() if patch in inside(corner, scale)]
    return len(held) / sum(1 / score for score in held)


def slow_probability(token, text):
    logits = torch.tensor([cosine(token, text[:, column]) / 0.07 for column in (0, 1)])
    return float(logits.softmax(0)[1])


def test_zero_shot_is_the_harmonic_mean_over_windows_and_scales(weights, images):
    method = made(weights)
    visual = method.visual
    image = images[0]
    values = method.score(method.features(image[None]), None)
    whole = slow_embedding(visual, visual.embed(scaled(image[None]))[0])
    score = slow_probability(whole, method.text)
    assert values["text_scores"].item() == pytest.approx(score, abs=1e-5)
    windows = slow_windows(visual, image)
    for patch in (0, 1, 8, 21, 35):
        scales = [score]
        for scale in (2, 3):
            of_scale = {
                corner: slow_probability(token, method.text)
                for (size, corner), token in windows.items()
                if size == scale
            }
            scales.append(slow_spread(of_scale, scale, patch))
        expected = 3 / sum(1 / value for value in scales)
        assert values["logits"][0, 0, patch].item() == pytest.approx(expected, abs=1e-5)


def test_few_shot_averages_both_branches(weights, images):
    method = made(weights)
    visual = method.visual
    image, references = images[0], images[4:]
    features = method.features(image[None])
    values = method.score(features, method.bank(method.features(references)))
    alone = method.score(features, None)
    windows = slow_windows(visual, image)
    banks = [slow_windows(visual, reference) for reference in references]
    patch_bank = torch.cat([slow_patches(visual, reference) for reference in references])
    nearest = {
        (scale, corner): min(
            (1 - cosine(token, row)) / 2
            for bank in banks
            for (size, _), row in bank.items()
            if size == scale
        )
        for (scale, corner), token in windows.items()
    }
    memory = []
    for patch, token in enumerate(slow_patches(visual, image)):
        scales = [min((1 - cosine(token, row)) / 2 for row in patch_bank)]
        for scale in (2, 3):
            of_scale = {corner: d for (size, corner), d in nearest.items() if size == scale}
            scales.append(slow_spread(of_scale, scale, patch))
        memory.append(sum(scales) / 3)
    expected = (alone["logits"][0, 0] + torch.tensor(memory)) / 2
    close(values["logits"][0, 0], expected, rtol=0, atol=1e-5)
    score = (alone["text_scores"].item() + max(memory)) / 2
    assert values["text_scores"].item() == pytest.approx(score, abs=1e-5)


def test_text_is_the_mean_of_sentences_as_they_are(weights):
    method = made(weights, "Chest")
    network = create_model(None, weights, image_size=SIDE)
    groups = winclip.window_sentences("Chest X-ray film")
    assert [len(group) for group in groups] == [7 * 22, 4 * 22]
    assert groups[0][0] == "a cropped photo of the Chest X-ray film."
    assert "a photo of a damaged Chest X-ray film for visual inspection." in groups[1]
    for column, group in enumerate(groups):
        mean = torch.stack([network.encode_sentences([one])[0] for one in group]).mean(dim=0)
        close(method.text[:, column], mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_a_bank_scores_its_own_images_zero(weights, images):
    method = made(weights)
    features = method.features(images[4:])
    values = method.score(features, method.bank(features))
    alone = method.score(features, None)
    # windows that equal a row exactly: their inverse is summed, and must not become negative
    close(values["logits"], alone["logits"] / 2, rtol=0, atol=1e-5)
    close(values["text_scores"], alone["text_scores"] / 2, rtol=0, atol=1e-5)


def test_rows_of_the_bank_are_as_many_of_each_image(weights, images):
    method = made(weights)
    bank = method.bank(method.features(images[:3]))
    assert [tuple(rows.shape) for rows in bank] == [(3 * GRID**2, method.width)] * 3
    assert (method.bank_levels, method.embed_dim) == (3, method.width)
    assert method.bank_rows(images[0]) == GRID**2
    one = method.bank(method.features(images[1:2]))
    for rows, own in zip(bank, one, strict=True):
        close(rows[GRID**2 : 2 * GRID**2], own, rtol=0, atol=1e-5)
        close(rows.norm(dim=1), torch.ones(len(rows)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize(
    ("obj", "maps", "expected"),
    [
        ("Brain", False, {"logits", "text_scores"}),
        ("Chest", False, {"text_scores"}),
        ("Chest", True, {"logits", "text_scores"}),
    ],
)
def test_only_what_the_evaluation_reads_is_given(weights, images, few, obj, maps, expected):
    method = made(weights, obj)
    features = method.features(images)
    bank = method.bank(features[4:]) if few else None
    assert set(method.score(features[:4], bank, maps=maps)) == expected
    assert not method.map_scores(few=few)


def test_shots_are_taken_as_they_are(weights, demo_root):
    method = made(weights)
    shots = listed_shots(demo_root, "Brain", K)
    support = method.support(shots, object_info("Brain"), torch.Generator())
    assert support.versions == 1
    assert len(support.normal) == K


@pytest.mark.parametrize("few", [False, True])
def test_an_image_scores_the_same_alone_and_in_a_batch(weights, images, few):
    method = made(weights)
    features = method.features(images)
    assert features.shape == (4 + K, *method.feature_shape)
    assert features.dtype == torch.float32
    bank = method.bank(features[4:]) if few else None
    together = method.score(features, bank)
    for i in range(4):
        alone = method.score(method.features(images[i : i + 1]), bank)
        for name, values in alone.items():
            close(values[0], together[name][i], rtol=0, atol=1e-5)


# ---------------------------------------------------------------- files


def settings(**changes):
    """Return what `load` reads of a detector's settings."""
    values = {
        "model_name": None,
        "img_size": SIDE,
        "recipe": replace(RECIPES["released"], scaling="clip", activation="quickgelu"),
        "masks": True,
    }
    return SimpleNamespace(**(values | changes))


def test_a_loaded_method_scores_as_the_one_that_was_saved(weights, images, tmp_path):
    method = made(weights, activation="quickgelu")
    tensors = {name: values.clone() for name, values in method.tensors().items()}
    loaded = winclip.load(settings(), tensors, Source(tmp_path, weights, CPU, "fp32"))
    features = method.features(images)
    expected = method.score(features, method.bank(features[4:]))
    again = loaded.features(images)
    got = loaded.score(again, loaded.bank(again[4:]))
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        assert torch.equal(values, got[name])


@pytest.mark.parametrize("tensors", [{}, {"text": torch.zeros(63, 2)}])
def test_text_features_that_do_not_fit_are_refused(weights, tmp_path, tensors):
    source = Source(tmp_path / "a.detector", weights, CPU, "fp32")
    with pytest.raises(UserError, match=r"a\.detector.*text features"):
        winclip.load(settings(), tensors, source)


def test_an_image_smaller_than_a_window_is_refused(weights):
    with pytest.raises(UserError, match=r"--img_size 16 .* at least 24"):
        made(weights, side=16)
