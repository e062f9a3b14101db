"""MadCLIP: the reference figures of its released code, mutations they must catch, properties."""

import json
import os
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP.model import CLIP
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.folder import Record, image_folder, make_records
from dataset.items import ImageSource
from dataset.medical_few import evaluation_set
from dataset.shots import Shots
from errors import UserError
from loss import dice_loss, focal_loss
from mvfa.engine import Trainer, predict, train
from mvfa.evaluation import Evaluation, Maps, evaluate
from mvfa.features import FeatureLoader, prepare
from mvfa.methods import madclip
from mvfa.methods.base import Source
from mvfa.methods.madclip import ADAPTERS, FIXED, MadCLIP, create, load
from mvfa.methods.madclip_adapters import LevelAdapter, det_loss, seg_loss
from mvfa.methods.madclip_shots import MadclipVersions
from mvfa.methods.madclip_text import PROMPTS, LearnedText, names
from mvfa.predictions import Predictions
from mvfa.recipe import LEVELS, Recipe
from mvfa.scoring import text_map
from synthetic.network import NAME
from synthetic.standin import draw
from tests.parity import CPU, REFERENCE, SIDE, difference

EXPECTED = json.loads((REFERENCE / "madclip" / "expected_madclip.json").read_text())
ARRAYS = dict(np.load(REFERENCE / "madclip" / "expected_madclip.npz"))
CLOSE = 1e-4
# float32 rounding errors grow during training
TRAINING = 1e-3
NORMS = 1e-3
CONTEXT_NORMS = 5e-3
EQUAL = (1e-12, 1e-5)  # of image and pixel AUROC
# behind a training of Brain the maps span 2e-3 only and an abnormal image is 2e-6 above a normal
# one, less than the trained scores are rounded: one pair of 36, and few pixels, may change order
NEARLY = (1 / 36 + 1e-9, 1e-3)
SEED = 111  # of the released code's augmentation
BATCH = 16
RATE = 1e-3
DEMO_SIDE = 120


def given_state() -> dict[str, dict[str, Tensor]]:
    """Return the adapters and contexts that the figures were measured with."""
    state: dict[str, dict[str, Tensor]] = {}
    shapes = {1: (1024, 1024), 2: (768, 1024), 3: (768, 1024)}
    for key in ADAPTERS:
        label = key.split("_")[0]
        state[key] = {
            f"{level}.fc{i}.0.weight": draw(
                f"madclip.{label}.{level}.fc{i}.0.weight", shape, shape[1] ** -0.5
            )
            for level in range(4)
            for i, shape in shapes.items()
        }
    for name in names():
        key = f"prompt_maker_{name.split('_')[0]}"
        context = draw(f"madclip.ctx.{name}", (7, 8, 768), 0.02)
        state.setdefault(key, {})[f"prompt_learner.ctx.{name}"] = context
    return state


class Bench:
    """The reference setting of one object; what takes long is computed once."""

    def __init__(self, folder: Path, obj: str) -> None:
        self.name = obj
        self.info = object_info(obj)
        clip = create_model(None, folder / "standin.pt", image_size=SIDE)
        self.method = MadCLIP(
            clip, levels=LEVELS, side=SIDE, masks=self.info.masks, noun=self.info.noun
        )
        self.method.restore(self.method.check(given_state(), Path("given.pth")))
        self.expected = EXPECTED[obj]

        self.tests = self.loader(evaluation_set(REFERENCE / "data", self.info, SIDE))
        shots = Shots(self.records("good", "n"), self.records("Ungood", "a"))
        generator = torch.Generator().manual_seed(SEED)
        self.support = self.loader(self.method.support(shots, self.info, generator))

    def records(self, state: str, letter: str) -> list[Record]:
        folder = image_folder(REFERENCE / "data", self.name, "valid", state)
        return make_records(self.info, folder, [f"{letter}0.png", f"{letter}1.png"])

    def loader(self, source: ImageSource) -> FeatureLoader:
        return FeatureLoader(source, self.method, device=CPU, batch_size=BATCH, cache_gb=1)

    @cached_property
    def test_image(self) -> Tensor:
        """Return the features of the first test image."""
        with torch.no_grad():
            return next(self.tests.batches()).features[:1]

    @cached_property
    def rows(self) -> Tensor:
        """Return the encoded sentences [42, E] of the given contexts."""
        prompts = self.method.prompts
        with torch.no_grad(), prompts.clip.text_tower_ready():
            return prompts.encode(prompts.embed())

    @cached_property
    def text(self) -> Tensor:
        """Return the text features of the given contexts, and let the method have them."""
        with torch.no_grad():
            self.method.text = self.method.prompts.columns(self.rows)
        return self.method.text

    def predictions(self) -> Predictions:
        return predict(self.method, self.tests, None)


@pytest.fixture(scope="module", params=["Brain", "Chest"])
def bench(request, standin) -> Bench:
    return Bench(standin, request.param)


@pytest.fixture(scope="module")
def brain(standin) -> Bench:
    return Bench(standin, "Brain")


# -------------------------------------------------------------------- reference figures


def similarities(bench: Bench, method: MadCLIP | None = None) -> dict[str, Tensor]:
    """Return the similarities of the first test image by head, [L, N, 2]."""
    with torch.no_grad():
        found = (method or bench.method).similarities(bench.test_image, bench.text, ("det", "seg"))
    return {head: values[0] for head, values in found.items()}


def furthest(bench: Bench, found: dict[str, Tensor]) -> float:
    """Return the largest difference of similarities from the reference."""
    return max(
        difference(values[level], ARRAYS[f"{bench.name}_{head}{level}"])
        for head, values in found.items()
        for level in range(4)
    )


def check_scores(
    bench: Bench, expected: dict, close: float, aurocs: tuple[float, float] = EQUAL
) -> None:
    """Compare maps, scores and AUROCs of the method as it is; `aurocs`: tolerances of these."""
    image, pixel = aurocs
    predictions = bench.predictions()
    found: Evaluation = evaluate(predictions)
    assert predictions.labels.tolist() == expected["labels"]
    assert found.image_auroc == pytest.approx(expected["image_auroc"], abs=image)
    if not bench.info.masks:
        assert difference(predictions.text_scores, expected["det_scores"]) < close
        return
    maps = Maps(predictions)
    assert difference(maps.text_range, [expected["map_min"], expected["map_maximum"]]) < close
    raw = maps._text(slice(None))
    assert difference(raw.amax(dim=(1, 2)), expected["map_max"]) < close
    assert found.pixel_auroc == pytest.approx(expected["pixel_auroc"], abs=pixel)


def test_text_features(bench):
    assert difference(bench.text, ARRAYS[f"text_{bench.name}"]) < CLOSE


def test_similarities(bench):
    assert furthest(bench, similarities(bench)) < CLOSE


def test_losses_without_training(bench):
    assert bench.text is not None
    for batch, expected in zip(
        bench.support.batches(), bench.expected["loss_at_rate_0"], strict=True
    ):
        labels = bench.support.source.labels[batch.members]
        masks = bench.support.masks(batch.members.tolist()) if bench.info.masks else None
        nouns = [bench.info.noun] * len(labels)
        with torch.no_grad():
            found = bench.method.similarities(batch.features, bench.text, ("det", "seg"))
            total = bench.method.loss(batch.features, labels, masks, nouns)
        parts = [det_loss(found["det"], labels).mean()]
        if masks is not None:
            parts.append(seg_loss(found["seg"], masks).mean())
        assert difference(parts, expected[: len(parts)]) < CLOSE
        assert difference(total.mean(), sum(expected)) < CLOSE


def test_scores(bench):
    assert bench.text is not None
    check_scores(bench, bench.expected["test"], CLOSE)
    if bench.info.masks:
        last = Maps(bench.predictions())._text(slice(11, 12))[0]
        assert difference(last, ARRAYS["Brain_map_last"]) < CLOSE


@pytest.fixture
def given_again(bench):
    """Give the bench its adapters and contexts back after a test that trains them."""
    yield
    bench.method.restore(given_state())
    bench.method.text = bench.text


@pytest.mark.usefixtures("given_again")
def test_training(bench):
    if bench.info.masks and not os.environ.get("WHOLE"):
        pytest.skip("the training with masks takes two minutes: make parity")
    method = bench.method
    losses: list[float] = []
    trainer = Trainer(method, RATE)
    train(trainer, bench.support, range(len(bench.support)), report=losses.append)
    expected = [sum(parts) for parts in bench.expected["train_losses_at_1e-3"]]
    assert difference(losses, expected) < TRAINING
    check_norms(method, bench.expected["norms_after"])
    method.prepare_scores()
    assert difference(method.text, ARRAYS[f"text_after_{bench.name}"]) < TRAINING
    aurocs = NEARLY if bench.info.masks else EQUAL
    check_scores(bench, bench.expected["test_after"], TRAINING, aurocs)


def check_norms(method: MadCLIP, expected: dict[str, float]) -> None:
    """Compare the norms of all adapter matrices and contexts."""
    state = method.state()
    for name, norm in expected.items():
        if "fc" in name:
            label, key = name.split(".", 1)
            weight = state[f"{label}_det_adapters"][key]
            assert weight.norm().item() == pytest.approx(norm, rel=NORMS)
        else:
            group = state[f"prompt_maker_{name.split('_')[0]}"]
            context = group[f"prompt_learner.ctx.{name}"]
            assert context.norm().item() == pytest.approx(norm, rel=CONTEXT_NORMS)


# -------------------------------------------------------------------- mutations


class Causal(LearnedText):
    """Contexts behind a causal mask."""

    def encode(self, x: Tensor) -> Tensor:
        x = self.clip.transformer(x, causal=True)
        ends = x[torch.arange(len(x)), self.ends]
        return self.clip.ln_final(ends) @ self.clip.text_projection


class Cut(LearnedText):
    """Sentences without the padding behind their end."""

    def embed(self) -> Tensor:
        return super().embed()[:, : int(self.ends.max()) + 1]


class EndOnly(LearnedText):
    """Contexts of one place only."""

    def columns(self, rows: Tensor) -> Tensor:
        return super().columns(rows.unflatten(0, (2, 3, 7))[:, 0].flatten(0, 1))


@pytest.mark.parametrize("mutation", [Causal, Cut])
@torch.no_grad()
def test_another_attention_is_caught(brain, mutation):
    mutant = mutation(brain.method.clip, brain.info.noun)
    mutant.contexts = brain.method.prompts.contexts
    assert difference(mutant(), ARRAYS["text_Brain"]) > CLOSE


def test_contexts_of_one_place_are_caught(brain):
    mutant = EndOnly(brain.method.clip, brain.info.noun)
    assert difference(mutant.columns(brain.rows), ARRAYS["text_Brain"]) > CLOSE


def test_the_factor_100_is_caught(brain, monkeypatch):
    plain = MadCLIP.similarities

    def scaled(self, *arguments) -> dict[str, Tensor]:
        return {head: 100 * values for head, values in plain(self, *arguments).items()}

    assert brain.text is not None
    check_scores(brain, brain.expected["test"], CLOSE)
    monkeypatch.setattr(MadCLIP, "similarities", scaled)
    assert furthest(brain, similarities(brain)) > CLOSE
    with pytest.raises(AssertionError):
        check_scores(brain, brain.expected["test"], CLOSE)


def test_batch_norm_is_caught(brain, monkeypatch):
    def batch_norm(self, x: Tensor) -> Tensor:  # noqa: ARG001
        channels = x.transpose(1, 2)  # [B, D, N]
        return F.batch_norm(channels, None, None, training=True).transpose(1, 2)

    monkeypatch.setattr(LevelAdapter, "norm", batch_norm)
    assert furthest(brain, similarities(brain)) > CLOSE


def test_similarities_without_contrast_are_caught(brain, monkeypatch):
    monkeypatch.setattr(brain.method, "contrast", False)
    assert furthest(brain, similarities(brain)) > CLOSE


# -------------------------------------------------------------------- properties


@pytest.fixture(scope="module")
def demo_clip(demo_weights) -> CLIP:
    return create_model(NAME, demo_weights, image_size=DEMO_SIDE)


def make(clip: CLIP, *, masks: bool = True, seed: int = 0, **settings) -> MadCLIP:
    """Return MadCLIP on a network, with adapters that a seed draws."""
    generator = torch.Generator().manual_seed(seed)
    settings = {"levels": LEVELS, "side": DEMO_SIDE, "noun": "Brain"} | settings
    return MadCLIP(clip, masks=masks, generator=generator, **settings)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (4, 3, DEMO_SIDE, DEMO_SIDE), generator=generator).to(torch.uint8)


LABELS = torch.tensor([1.0, 0.0, 1.0, 0.0])
NOUNS = ["Brain"] * 4


@pytest.fixture
def lesions() -> Tensor:
    masks = torch.zeros(4, DEMO_SIDE, DEMO_SIDE, dtype=torch.bool)
    masks[0, 20:50, 30:60] = True
    masks[2, 70:, 70:] = True
    return masks


def adapt(method: MadCLIP, features: Tensor, masks: Tensor | None, steps: int = 2) -> None:
    """Step all groups, as a training does."""
    optimizers = [torch.optim.Adam(own, lr=1e-2) for own in method.groups().values()]
    for _ in range(steps):
        method.zero_grad()
        method.loss(features, LABELS, masks, NOUNS).mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def test_features_are_the_tokens_of_clip(demo_clip, images):
    method = make(demo_clip)
    features = method.features(images)
    assert features.shape == (4, *method.feature_shape)
    assert features.dtype == torch.float32
    x = demo_clip.visual.embed(images / 255)
    for number, block in enumerate(demo_clip.visual.transformer.resblocks, start=1):
        x = block(x)
        if number in LEVELS:
            assert torch.equal(features[:, LEVELS.index(number)], x)


def test_features_are_scaled_as_the_recipe_says(demo_clip, images):
    plain = make(demo_clip).features(images)
    scaled = make(demo_clip, scaling="clip").features(images)
    pixels = prepare(images, torch.device("cpu"), "clip")
    assert not torch.allclose(plain, scaled)
    assert torch.equal(scaled, make(demo_clip).features(pixels))


def test_a_batch_is_its_images(demo_clip, images, lesions):
    method = make(demo_clip)
    features = method.features(images)
    singles = torch.cat([method.features(image[None]) for image in images])
    torch.testing.assert_close(features, singles, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        whole = method.loss(features, LABELS, lesions, NOUNS)
        parts = [
            method.loss(features[i, None], LABELS[i, None], lesions[i, None], NOUNS[:1])
            for i in range(4)
        ]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-5, atol=1e-6)
    for masks in (True, False):
        method.masks = masks
        scores = method.score(features, None, maps=True)
        for name, values in scores.items():
            own = torch.cat([method.score(row[None], None, maps=True)[name] for row in features])
            torch.testing.assert_close(values, own, rtol=1e-5, atol=1e-6)


def plain_similarities(method: MadCLIP, features: Tensor, text: Tensor, head: str) -> Tensor:
    """Return [B, L, N, 2] token by token with the class token, as the paper's formulas say."""
    layer = {"det": "fc2", "seg": "fc3"}[head]
    t_n, t_a = text.T
    levels = []
    for level in range(features.shape[1]):
        pair = []
        for key in ADAPTERS:
            weights = method.state()[key]
            x = features[:, level] @ weights[f"{level}.fc1.0.weight"].T
            x = torch.where(x > 0, x, 0.01 * x)
            mean = x.mean(dim=-1, keepdim=True)
            h = (x - mean) / (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            y = h @ weights[f"{level}.{layer}.0.weight"].T
            y = torch.where(y > 0, y, 0.01 * y)
            pair.append((y / y.norm(dim=-1, keepdim=True))[:, 1:])
        levels.append(torch.stack([pair[0] @ (t_n - t_a), pair[1] @ (t_a - t_n)], dim=-1))
    return torch.stack(levels, dim=1)


def test_similarities_loss_and_scores_are_those_of_the_formulas(demo_clip, images, lesions):
    method = make(demo_clip)
    features = method.features(images)
    with torch.no_grad():
        text = method.text_features()
    det, seg = (plain_similarities(method, features, text, head) for head in ("det", "seg"))
    expected = torch.zeros(4)
    maps = []
    for level in range(len(LEVELS)):
        for i, label in enumerate(LABELS):
            normal, abnormal = det[i, level].T
            s = 1 if label else -1
            expected[i] -= (-s * normal).sigmoid().log().mean()
            expected[i] -= (s * abnormal).sigmoid().log().mean()
        grid = seg[:, level].transpose(1, 2).unflatten(-1, (12, 12))  # [B, 2, P, P]
        up = F.interpolate(grid, size=DEMO_SIDE, mode="bilinear", align_corners=True)
        maps.append(up.softmax(dim=1)[:, 1])
        expected += focal_loss(maps[-1], lesions) + dice_loss(maps[-1], lesions)
    with torch.no_grad():
        found = method.loss(features, LABELS, lesions, NOUNS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    logits = method.score(features, None)
    assert logits.keys() == {"logits"}
    torch.testing.assert_close(
        text_map(logits["logits"], DEMO_SIDE), sum(maps), rtol=1e-4, atol=1e-5
    )
    method.masks = False
    scores = method.score(features, None)
    assert scores.keys() == {"text_scores"}
    pooled = det.softmax(dim=-1)[..., 1].mean(dim=2).sum(dim=1)
    torch.testing.assert_close(scores["text_scores"], pooled, rtol=1e-4, atol=1e-5)


def test_without_contrast_each_class_has_its_own_direction(demo_clip, images):
    method = make(demo_clip, contrast=False)
    features = method.features(images)
    with torch.no_grad():
        text = method.text_features()
        found = method.similarities(features, text, ("det",))["det"]
        own = make(demo_clip).similarities(features, text * torch.tensor([1.0, 0.0]), ("det",))
        other = make(demo_clip).similarities(features, text * torch.tensor([0.0, 1.0]), ("det",))
    torch.testing.assert_close(found[..., 0], own["det"][..., 0])
    torch.testing.assert_close(found[..., 1], other["det"][..., 1])
    assert method.settings() == {"contrast": False}


def test_state_and_restore(demo_clip, images, lesions):
    method = make(demo_clip)
    features = method.features(images)
    adapt(method, features, lesions)
    state = method.state()
    scores = method.score(features, None)["logits"]
    other = make(demo_clip, seed=1)
    assert not torch.equal(other.score(features, None)["logits"], scores)
    other.restore(other.check(state, Path("own.pth")))
    assert torch.equal(other.score(features, None)["logits"], scores)
    adapt(method, features, lesions)
    assert torch.equal(
        other.state()[ADAPTERS[0]]["0.fc1.0.weight"], state[ADAPTERS[0]]["0.fc1.0.weight"]
    )
    assert not torch.equal(method.score(features, None)["logits"], scores)
    method.restore(state)
    assert torch.equal(method.score(features, None)["logits"], scores)


def test_objects_without_masks_leave_fc3_as_it_was(demo_clip, images, lesions):
    method = make(demo_clip, masks=False)
    before = method.state()
    adapt(method, method.features(images), None)
    assert moved(before, method.state()) == {"fc1", "fc2", "prompt_learner"}
    adapt(method, method.features(images), lesions)
    assert moved(before, method.state()) == {"fc1", "fc2", "fc3", "prompt_learner"}


def moved(before: dict, after: dict) -> set[str]:
    """Return the layers of which every tensor differs; AssertionError if only some do."""
    found: dict[str, set[bool]] = {}
    for key, group in before.items():
        for name, values in group.items():
            layer = name.split(".")[1 if name[0].isdigit() else 0]
            found.setdefault(layer, set()).add(not torch.equal(values, after[key][name]))
    assert all(len(answers) == 1 for answers in found.values())
    return {layer for layer, (answer,) in found.items() if answer}


def test_only_adapters_and_contexts_get_gradients(demo_clip, images, lesions):
    method = make(demo_clip)
    method.loss(method.features(images), LABELS, lesions, NOUNS).mean().backward()
    trained = [p for group in method.groups().values() for p in group]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert len(trained) == 2 * 4 * 3 + 6
    assert len({id(p) for p in trained}) == len(trained)
    for parameter in demo_clip.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None


def test_text_is_computed_once_for_scores_and_anew_for_training(demo_clip, images, lesions):
    method = make(demo_clip)
    features = method.features(images)
    calls = []
    method.prompts.register_forward_hook(lambda *_: calls.append(1))
    method.prepare_scores()
    method.score(features, None)
    method.score(features, None)
    method.prepare_scores()
    assert len(calls) == 1
    adapt(method, features, lesions, steps=2)
    assert len(calls) == 3
    method.score(features, None)
    method.score(features, None)
    assert len(calls) == 4
    method.restore(method.state())
    method.score(features, None)
    assert len(calls) == 5


def test_initial_values(demo_clip):
    state = make(demo_clip, seed=3).state()
    generator = torch.Generator().manual_seed(3)
    width = demo_clip.visual.width
    embed = demo_clip.config.embed_dim
    for key in ADAPTERS:
        for level in range(len(LEVELS)):
            for layer, outputs in (("fc1", width), ("fc2", embed), ("fc3", embed)):
                weight = torch.empty(outputs, width)
                torch.nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
                assert torch.equal(state[key][f"{level}.{layer}.0.weight"], weight)
    for key in PROMPTS:
        for values in state[key].values():
            assert values.shape == (7, 8, demo_clip.config.text.width)
            assert values.std().item() == pytest.approx(0.02, rel=0.1)
            expected = torch.empty_like(values).normal_(std=0.02, generator=generator)
            assert torch.equal(values, expected)


# -------------------------------------------------------------------- files


def test_a_checkpoint_may_repeat_the_text_tower(demo_clip, tmp_path):
    method = make(demo_clip)
    state = method.state()
    weights = {
        f"text_encoder.{name}": values.float()
        for name, values in demo_clip.state_dict().items()
        if not name.startswith(("visual.", "token_embedding", "logit_scale"))
    }
    for key in PROMPTS:
        state[key] |= weights
    found = method.check(state, tmp_path / "x.pth")
    assert found.keys() == {*ADAPTERS, *PROMPTS}
    assert set(found[PROMPTS[0]]) == {
        f"prompt_learner.ctx.normal_{place}" for place in ("end", "front", "middle")
    }
    name = "text_encoder.transformer.resblocks.0.mlp.c_fc.bias"
    state[PROMPTS[1]][name] = state[PROMPTS[1]][name] + 0.01
    with pytest.raises(UserError, match=f"prompt_maker_abnormal of .*x.pth .*{name} differs"):
        method.check(state, tmp_path / "x.pth")
    state[PROMPTS[1]][name] = weights[name].half()
    method.check(state, tmp_path / "x.pth")
    state[PROMPTS[0]]["text_encoder.unknown"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"text_encoder\.unknown differs"):
        method.check(state, tmp_path / "x.pth")


def test_checkpoints_that_do_not_fit(demo_clip, tmp_path):
    method = make(demo_clip)
    path = tmp_path / "x.pth"
    for key in (*ADAPTERS, *PROMPTS):
        state = method.state()
        del state[key]
        with pytest.raises(UserError, match=f"has no {key}"):
            method.check(state, path)
        state = method.state()
        name = next(iter(state[key]))
        state[key][name] = state[key][name][:1]
        with pytest.raises(UserError, match=f"the {key} of .*{name} has shape"):
            method.check(state, path)
        del state[key][name]
        with pytest.raises(UserError, match=f"1 missing, {name} first"):
            method.check(state, path)


def test_fixed_text_features_take_the_place_of_contexts(demo_clip, images, tmp_path):
    method = make(demo_clip)
    features = method.features(images)
    text = F.normalize(torch.randn(demo_clip.config.embed_dim, 2), dim=0)
    state = {key: method.state()[key] for key in ADAPTERS} | {FIXED: {FIXED: text}}
    method.restore(method.check(state, tmp_path / "x.pth"))
    with torch.no_grad():
        logits = method.similarities(features, text, ("seg",))["seg"].diff(dim=-1)[..., 0]
    assert torch.equal(method.score(features, None)["logits"], logits)
    assert torch.equal(method.text_features(), text)  # with gradients on, too
    assert torch.equal(method.state()[FIXED][FIXED], text)
    assert set(method.groups()) == {"adapters"}
    adapt(method, features, None)
    assert torch.equal(method.text_features(), text)
    state[FIXED][FIXED] = text[1:]
    with pytest.raises(UserError, match="text_features_fix"):
        method.check(state, tmp_path / "x.pth")


def settings_of(method: MadCLIP) -> SimpleNamespace:
    """Return what a detector's description says of a method."""
    return SimpleNamespace(
        model_name=NAME,
        features_list=LEVELS,
        img_size=DEMO_SIDE,
        masks=method.masks,
        noun="Brain",
        recipe=Recipe(),
        method_settings=method.settings(),
    )


@pytest.mark.parametrize("contrast", [True, False])
def test_a_detector_gives_the_same_scores(demo_clip, demo_weights, images, contrast):
    method = make(demo_clip, contrast=contrast)
    features = method.features(images)
    adapt(method, features, None)
    tensors = method.tensors()
    source = Source(Path("x.detector"), demo_weights, CPU, "fp32")
    loaded = load(settings_of(method), tensors, source)
    found = loaded.score(loaded.features(images), None)
    assert torch.equal(found["logits"], method.score(features, None)["logits"])
    assert loaded.tensors().keys() == tensors.keys()
    with pytest.raises(UserError, match="its text features have another shape"):
        load(settings_of(method), tensors | {"text": torch.zeros(3, 2)}, source)
    del tensors["abnormal_det_adapters.1.fc2.0.weight"]
    with pytest.raises(UserError, match=r"abnormal_det_adapters of x\.detector"):
        load(settings_of(method), tensors, source)


def test_create(demo_weights):
    options = SimpleNamespace(
        model_name=NAME,
        clip_path=demo_weights,
        img_size=DEMO_SIDE,
        features_list=(6, 12),
        recipe=Recipe(scaling="clip", activation="quickgelu"),
        contrast=False,
    )
    env = SimpleNamespace(device=CPU, precision="fp32")
    target = object_info("Chest")
    method = create(options, env, target, torch.Generator().manual_seed(0))
    assert method.levels == (6, 12)
    assert method.prompts.noun == target.noun
    assert (method.masks, method.contrast, method.scaling) == (False, False, "clip")
    assert method.clip.activation == "quickgelu"
    assert method.weights == method.clip.weight_file
    again = create(options, env, target, torch.Generator().manual_seed(0)).state()
    for key, group in method.state().items():
        for name, values in group.items():
            assert torch.equal(values, again[key][name])
    with pytest.raises(UserError, match="--features_list 12 6"):
        make(method.clip, levels=(12, 6))


@pytest.mark.parametrize("masks", [True, False])
def test_image_scores_are_maxima_of_maps_where_there_are_masks(demo_clip, images, masks):
    method = make(demo_clip, masks=masks)
    values = method.score(method.features(images), None, maps=True)
    for few in (True, False):
        assert method.map_scores(few=few) == masks == ("text_scores" not in values)


def test_support_has_the_sixteen_versions(demo_clip, monkeypatch):
    given = []
    monkeypatch.setattr(madclip, "Support", lambda *arguments: given.extend(arguments))
    generator = torch.Generator()
    make(demo_clip).support("shots", object_info("Brain"), generator)
    shots, info, side, versions = given
    assert (shots, info.name, side) == ("shots", "Brain", DEMO_SIDE)
    assert isinstance(versions, MadclipVersions)
    assert versions.generator is generator


def test_reasons(demo_clip, images):
    method = make(demo_clip)
    features = method.features(images)
    assert method.reason(features * torch.nan).startswith("the features of images")
    with torch.no_grad():
        method.prompts.contexts["normal_front"][0, 0, 0] = torch.inf
    assert method.reason(features) == "the contexts are not finite; lower --learning_rate"
    with torch.no_grad():
        method.normal_det_adapters[0].fc1[0].weight[0, 0] = torch.nan
    assert method.reason(features) == "the adapters are not finite; lower --learning_rate"
