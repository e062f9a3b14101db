"""A test without the images of the shots' cases: which remain, and that nothing else changes."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from dataset.cases import read_case
from mvfa.disjoint import subset
from mvfa.predictions import Predictions, ScoreForm
from synthetic.images import write_demo
from tests.script_runs import Runs


@pytest.fixture(scope="module")
def runs(tiny_path, tmp_path_factory):
    """Return runs on demo images whose names show cases."""
    root = tmp_path_factory.mktemp("cases")
    write_demo(root, valid=4, test=12, shots=(2,), size=48, depth="random")
    own = Runs(tiny_path, root, tmp_path_factory.mktemp("runs"))
    for obj in ("Brain", "Chest"):
        own("train_few", obj, "--epoch", 1)
    return own


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_images_of_the_shots_cases_are_left_out(runs, obj, capsys):
    plain = runs("test_few", obj, "--bootstrap", 0)
    assert runs.metrics("test_few")["disjoint_cases"] is None
    capsys.readouterr()
    again = runs("test_few", obj, "--bootstrap", 0, "--disjoint_cases", "yes")
    assert torch.equal(plain.scores, again.scores)  # the test itself is the same
    metrics = runs.metrics("test_few")
    found = metrics["disjoint_cases"]
    names = [name for shots in metrics["shots"].values() for name in shots]
    cases = {read_case(name) for name in names}
    rows = runs.scores("test_few")
    kept = [row for row in rows if row["case"] not in cases]
    assert found["cases"] == len(cases)
    assert (found["images"], found["left_out"]) == (len(kept), len(rows) - len(kept))
    assert found["left_out"] > 0
    labels = [int(row["label"]) for row in kept]
    assert (found["normal"], found["abnormal"]) == (labels.count(0), labels.count(1))
    assert 0 <= found["image_auroc"] <= 1
    assert (found["pixel_auroc"] is None) == (obj == "Chest")
    line = f"{obj} disjoint cases: AUC {found['image_auroc']:.4f}"
    assert any(text.startswith(line) for text in capsys.readouterr().out.splitlines())


def test_the_rest_is_scored_as_a_set_of_its_own():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10) % 2
    text, memory = torch.rand(2, 10, generator=generator)
    whole = Predictions(
        ScoreForm("mean", "sum"), 8, labels, list(range(10)), text_scores=text, memory_scores=memory
    )
    rows = [0, 3, 4, 7, 9]
    part = subset(whole, rows)
    assert torch.equal(part.labels, labels[rows])
    assert torch.equal(part.text_scores, text[rows])
    assert torch.equal(whole.text_scores, text)

    def scaled(values):
        return (values - values.min()) / (values.max() - values.min())

    from mvfa.evaluation import evaluate

    expected = scaled(text[rows].numpy()) + scaled(memory[rows].numpy())
    found = evaluate(part).image_auroc
    assert found == pytest.approx(roc_auc_score(np.array(labels)[rows], expected))


def test_names_without_cases_are_said(tiny_path, demo_root, tmp_path, capsys):
    plain = Runs(tiny_path, demo_root, tmp_path)
    plain("train_few", "Chest", "--epoch", 1)
    plain("test_few", "Chest", "--bootstrap", 0, "--disjoint_cases", "yes")
    found = plain.metrics("test_few")["disjoint_cases"]
    assert (found["image_auroc"], found["left_out"], found["cases"]) == (None, 0, 0)
    assert "the names of the shots show no case" in capsys.readouterr().err
