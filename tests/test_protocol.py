"""The protocol that a run prints for a paper, held against the settings of real runs."""

import pytest

from mvfa.protocol import protocol_text, training_of
from mvfa.run_page import run_page
from report.settings import protocols
from report.study import DONE, FAILED, Cell
from tests.methods import KEYS
from tests.script_runs import Runs

OPTIONS = {
    "script": "test_few",
    "obj": "Brain",
    "shot": 4,
    "iterate": 1,
    "abnormal_shot": None,
    "seed": 7,
    "img_size": 240,
    "precision": "fp16",
    "features_list": [6, 12, 18, 24],
    "score_levels": [],
    "recipe_name": "released",
    "recipe": {"keep": 0.8, "select": "valid"},
    "bootstrap": 1000,
}
TRAINING = {
    "select": "test",
    "epoch": 50,
    "batch_size": 1,
    "learning_rate": 0.001,
    "seed": 7,
    "train_objects": None,
}


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def said(options=None, **metrics) -> str:
    return protocol_text({"options": OPTIONS | (options or {}), "training": TRAINING} | metrics)


def test_a_test_writes_its_protocol_and_its_page_shows_it(runs):
    runs("train_few", "Brain", "--select", "last", "--epoch", 2)
    runs("test_few", "Brain", "--bootstrap", 30)
    metrics = runs.metrics("test_few")
    text = metrics["protocol"]
    assert text == protocol_text(metrics)
    for part in (
        "trained on 2 normal images and as many abnormal ones of its valid/",
        "draw 0 of the shot lists), with the masks of the abnormal ones",
        "Of 2 epochs (batches of 1, learning rate 0.001, seed 111) the checkpoint is the last one.",
        f"CLIP (tiny.pt, SHA-256 {metrics['weights']['sha256'][:12]})",
        "adapters after blocks 1, 2, 3, 4; images are resized to 32 x 32 pixels",
        f"4 other images, image AUROC is {100 * metrics['calibrated']['image_auroc']:.2f} %",
        "grey values above half of the range count as lesion (mask rule half)",
        "5 normal and 5 abnormal images, whose cases are not known",
        "from 30 bootstrap resamples of images, as if these were independent",
    ):
        assert part in text
    assert text in run_page(runs.out("test_few")).replace("&#39;", "'")


def test_zero_shot_names_the_objects_it_learned_from(runs):
    runs("train_zero", "Brain", "--epoch", 1, "--train_objects", "Liver", "Chest")
    runs("test_zero", "Brain", "--bootstrap", 0)
    text = runs.metrics("test_zero")["protocol"]
    assert "trained on labelled test images of Liver and Chest, with their masks" in text
    assert "and on none of Brain" in text
    assert "the test set itself, an oracle" in text
    assert "memory bank" not in text
    assert "bootstrap" not in text


def test_the_checkpoint_says_how_it_was_trained(runs):
    """Not the flags of the test: they may differ."""
    runs("train_few", "Chest", "--select", "valid", "--epoch", 1)
    runs("test_few", "Chest", "--bootstrap", 0)
    found = runs.metrics("test_few")
    assert found["options"]["recipe"]["select"] == "test"
    assert found["training"]["select"] == "valid"
    assert "valid/ that were not trained on" in found["protocol"]
    assert "masks" not in found["protocol"]
    assert training_of(runs.checkpoints / "Chest-2shot.pth", KEYS) == found["training"]


def test_what_is_not_recorded_is_called_so():
    assert "How the checkpoint was chosen is not recorded" in said(training={})
    assert protocol_text({}) == ""
    assert "test split" not in said()


def test_cases_draws_and_changes():
    counts = {"normal": 3, "abnormal": 2, "cases": 2}
    assert "images of 2 cases; 95 % intervals" in said(test_images=counts)
    assert "resamples of images and of cases" in said(test_images=counts)
    assert "drawn by seed 7" in said({"iterate": -1})
    assert "except for keep 0.9." in said({"recipe": {"keep": 0.9}})
    assert "except" not in said({"recipe": {"keep": 0.8, "batch_size": 8}})
    assert "scored are blocks 12." in said({"score_levels": [12]})
    normal_only = said({"abnormal_shot": 0, "shot": 1})
    assert "normal shots only: 1 normal image of its valid/" in normal_only
    assert "Liver, Retina_RESC" in normal_only or "Liver and Retina_RESC" in normal_only
    disjoint = {"image_auroc": 0.75, "images": 12, "left_out": 3, "cases": 2}
    part = (
        "Without the 3 images of the 2 cases that gave a shot, the image AUROC of the other 12 is"
    )
    assert f"{part} 75.00 %." in said(disjoint_cases=disjoint)
    assert "Without" not in said(disjoint_cases=disjoint | {"image_auroc": None})
    wide = said(masks=True, mask_rule="any", empty_masks=3)
    assert "all grey values above 0 count as lesion (mask rule any) (3 masks have none)" in wide


def test_a_report_shows_the_protocol_of_one_run_of_each_kind():
    def cell(script: str, row: str, **metrics) -> Cell:
        training = {"options": {"script": f"train_{script}"}}
        return Cell("table1", row, "Brain", 7, 0, DONE, metrics=metrics, training=training)

    few = {"options": OPTIONS, "training": TRAINING}
    zero = {"options": OPTIONS | {"script": "test_zero"}, "training": TRAINING}
    cells = [cell("few", "a"), cell("few", "b", **few), cell("zero", "c", **zero)]
    cells += [cell("few", "d", **few), Cell("table1", "e", "Brain", 7, 0, FAILED, metrics=few)]
    labels, texts = zip(*protocols(cells), strict=True)
    assert labels == ("b, Brain, seed 7, draw 0", "c, Brain, seed 7, draw 0")
    assert texts == (protocol_text(few), protocol_text(zero))
