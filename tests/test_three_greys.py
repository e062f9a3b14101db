"""Masks of three greys, as the benchmark's script makes Brain's: what each mask rule counts."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.script_runs import Runs

GREYS = (58, 122, 255)  # of tumour labels 1, 2 and 4 in one slice


def three_greys(mask):
    """Return a mask [H, W] of 0 and 255 with three greys by column, in a loop."""
    grey = np.zeros_like(mask)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if mask[y, x]:
                grey[y, x] = GREYS[x // 7 % 3]
    return grey


def binary(grey, least):
    """Return 255 where a grey is at least `least`, else 0, in a loop."""
    marked = np.zeros_like(grey)
    for y in range(grey.shape[0]):
        for x in range(grey.shape[1]):
            marked[y, x] = 255 if grey[y, x] >= least else 0
    return marked


@pytest.fixture(scope="module")
def folders(demo_root, tmp_path_factory):
    """Return data folders with masks of three greys, and made binary at each rule's bound."""
    top = tmp_path_factory.mktemp("greys")
    kinds = {"greys": None, "any": 1, "half": 128}
    for kind, least in kinds.items():
        shutil.copytree(demo_root / "data/Brain_AD", top / kind / "Brain_AD")
        for path in (top / kind).rglob("anomaly_mask/*.png"):
            grey = three_greys(np.asarray(Image.open(path)))
            Image.fromarray(grey if least is None else binary(grey, least)).save(path)
    return {kind: top / kind for kind in kinds}


@pytest.mark.parametrize("rule", ["half", "any"])
def test_a_rule_gives_what_a_loop_gives(rule, folders, demo_root, tiny_path, tmp_path):
    """Of the same adapters: with half, training turns masks of greys before it decides."""
    by_rule, by_loop = (Runs(tiny_path, demo_root, tmp_path / name) for name in ("rule", "loop"))
    more = () if rule == "half" else ("--mask_rule", rule)  # half is the default
    by_rule("train_few", "Brain", "--epoch", 1, *more, data=folders["greys"])
    adapters = ("--ckpt", by_rule.checkpoints / "Brain-2shot.pth", "--bootstrap", 0)
    found = by_rule("test_few", "Brain", *adapters, *more, data=folders["greys"])
    wanted = by_loop("test_few", "Brain", *adapters, data=folders[rule])
    assert found.pixel_auroc == wanted.pixel_auroc
    metrics = by_rule.metrics("test_few")
    assert metrics["details"] == by_loop.metrics("test_few")["details"]
    assert metrics["mask_rule"] == rule


def test_any_trains_on_what_a_loop_gives(folders, demo_root, tiny_path, tmp_path):
    by_rule, by_loop = (Runs(tiny_path, demo_root, tmp_path / name) for name in ("rule", "loop"))
    more = ("--epoch", 1, "--mask_rule", "any")
    found = by_rule("train_few", "Brain", *more, data=folders["greys"])
    wanted = by_loop("train_few", "Brain", "--epoch", 1, data=folders["any"])
    assert torch.equal(found.scores, wanted.scores)
    assert found.pixel_auroc == wanted.pixel_auroc


def test_the_rules_do_not_count_the_same_truth(folders, demo_root, tiny_path, tmp_path):
    aurocs = set()
    for rule in ("half", "any"):
        runs = Runs(tiny_path, demo_root, tmp_path / rule)
        data = folders["greys"]
        more = ("--mask_rule", rule)
        aurocs.add(runs("train_few", "Brain", "--epoch", 1, *more, data=data).pixel_auroc)
    assert len(aurocs) == 2
