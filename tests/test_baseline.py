"""The baseline of the benchmarks computes the same numbers as this project."""

import json

import numpy as np
import pytest
import torch

import train_few
from benchmarks import baseline
from benchmarks.baseline_network import load
from CLIP.adapter import HEADS, MVFA
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.medical_few import Support, evaluation_set
from mvfa import checkpoint
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.evaluation import evaluate
from mvfa.features import FeatureLoader
from prompt import text_features
from tests.conftest import (
    TOLERANCE,
    listed_shots,
    released_form,
)
from tests.methods import load_mvfa, mvfa_method

CPU = torch.device("cpu")
SIDE = 40  # differs from the tiny network's position grid, so that the grid is resized
LEVELS = (1, 2, 3, 4)
SEED = 111
OBJECTS = ["Brain", "Chest"]  # with masks and without


def assert_near(got, expected) -> None:
    got = torch.as_tensor(got, dtype=torch.float32)
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(got, expected, **TOLERANCE[torch.float32])


class Both:
    """One object, one support set and the same adapters in the baseline and in the program."""

    def __init__(self, weights, root, obj: str) -> None:
        self.info = object_info(obj)
        self.support = Support(listed_shots(root, obj, 2), self.info, SIDE)
        self.tests = evaluation_set(root / "data", self.info, SIDE)
        self.model = load(weights, SIDE, LEVELS, "cpu", SEED)
        self.clip = create_model(None, weights, image_size=SIDE)
        self.text = text_features(self.clip, self.info.noun)
        self.method = mvfa_method(
            MVFA(self.clip.visual, self.clip.config.embed_dim, LEVELS, released_form()),
            {self.info.noun: self.text},
            noun=self.info.noun,
            masks=self.info.masks,
            side=SIDE,
        )
        theirs = {
            f"{head}_adapters": getattr(self.model, f"{head}_adapters").state_dict()
            for head in HEADS
        }
        checkpoint.apply(self.method, checkpoint.Checkpoint(theirs, {}, weights))

    def loader(self, source) -> FeatureLoader:
        return FeatureLoader(source, self.method, device=CPU, batch_size=3)

    def bank(self) -> list[torch.Tensor]:
        loader = self.loader(self.support)
        return build_memory(self.method, loader, self.support.normal)

    def results(self, few: bool):
        """Evaluate the test split with the baseline and with the program."""
        outputs = baseline.Outputs()
        images = self.support.images[self.support.normal]
        bank = baseline.build_bank(self.model, images, self.info.masks) if few else None
        for record in self.tests.records:
            baseline.score_image(self.model, record, self.text, bank, SIDE, outputs)
        loader = self.loader(self.tests)
        bank = self.bank() if few else None
        return baseline.evaluate(outputs), evaluate(predict(self.method, loader, bank))


@pytest.fixture(params=OBJECTS)
def both(request, tiny_path, demo_root) -> Both:
    return Both(tiny_path, demo_root, request.param)


def test_text_features(both):
    assert_near(baseline.text_features(both.model, both.info.noun), both.text)


@pytest.mark.parametrize("few", [True, False])
def test_scores_and_aurocs(both, few):
    theirs, ours = both.results(few)
    assert np.ptp(theirs.scores) > 0.1
    assert_near(theirs.scores, ours.scores)
    assert theirs.image_auroc == pytest.approx(ours.image_auroc, abs=1e-9)
    assert (theirs.pixel_auroc is None) == (ours.pixel_auroc is None) == (not both.info.masks)
    if ours.pixel_auroc is not None:
        # the baseline rounds two logits near 100 before it subtracts them, the program afterwards
        assert theirs.pixel_auroc == pytest.approx(ours.pixel_auroc, abs=1e-5)


def test_bank_holds_class_tokens(both):
    images = both.support.images[both.support.normal]
    bank = baseline.build_bank(both.model, images, both.info.masks)
    assert bank[0].shape == (22 * (1 + 25), 64)
    for level, expected in zip(bank, both.bank(), strict=True):
        assert_near(torch.nn.functional.normalize(level, dim=1), expected)


def test_losses_of_the_first_steps(both):
    training = baseline.Training(both.model, 1e-3)
    order = torch.randperm(len(both.support)).tolist()[:12]
    theirs = []
    ours = []
    for i in order:
        mask = both.support.masks[i] if both.info.masks else None
        theirs.append(
            training.step(both.support.images[i], both.support.labels[i], mask, both.text)
        )
    loader = both.loader(both.support)
    loader.batch_size = 1
    trainer = Trainer(both.method, 1e-3)
    train(trainer, loader, order, report=ours.append)
    assert len(set(ours)) == len(ours)
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)  # rounding grows from step to step
    backbone = both.model.network.visual.conv1.weight
    assert backbone.grad is not None  # computed, never used, never cleared
    assert backbone.grad.abs().max() > 0


def test_attention_maps_are_returned(both):
    pooled, _, _, maps = both.model(both.support.images[:1])
    assert [m.shape for m in maps] == [(1, 1, 26, 26)] * 4
    assert_near(maps[0].detach().sum(dim=-1), torch.ones(1, 1, 26))
    assert pooled.shape == (1, 64)


@pytest.mark.parametrize("obj", OBJECTS)
def test_whole_runs_agree(tiny_path, demo_root, tmp_path, capsys, obj):
    flags = ["--obj", obj, "--shot", 2, "--epoch", 2, "--img_size", SIDE, "--seed", 7]
    flags += ["--features_list", *LEVELS, "--learning_rate", 1e-5]  # rounding must not grow
    flags += ["--data_path", demo_root / "data", "--fewshot_path", demo_root / "fewshot_seed"]
    flags += ["--clip_path", tiny_path, "--save_path", tmp_path / "ckpt"]
    flags = [str(flag) for flag in flags]
    ours = train_few.main([*flags, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    theirs = baseline.main(flags)
    assert capsys.readouterr().out.count(f"{obj} AUC : ") == printed.count(f"{obj} AUC : ") == 2
    history = json.loads((tmp_path / "out" / "metrics.json").read_text())["evaluations"]
    for result, expected in zip(theirs, history, strict=True):
        assert result.image_auroc == pytest.approx(expected["image_auroc"], abs=1e-9)
        assert result.pixel_auroc == pytest.approx(expected["pixel_auroc"], abs=1e-4)
    best = max(theirs, key=baseline.Result.selection)
    np.testing.assert_allclose(best.scores, ours.scores, atol=1e-3)
    saved = load_mvfa(tmp_path / "ckpt" / f"{obj}.pth")
    assert len(saved.adapters["seg_adapters"]) == 2 * len(LEVELS)
