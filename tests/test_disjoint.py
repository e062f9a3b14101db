"""A test without the images of the shots' cases: which remain, and that nothing else changes."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from dataset.cases import read_case
from errors import UserError
from mvfa.disjoint import subset
from mvfa.evaluation import evaluate
from mvfa.options import parse
from mvfa.predictions import Predictions
from mvfa.score_form import ScoreForm
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

    expected = scaled(text[rows].numpy()) + scaled(memory[rows].numpy())
    found = evaluate(part).image_auroc
    assert found == pytest.approx(roc_auc_score(labels[rows].numpy(), expected))


def test_names_without_cases_are_said(tiny_path, demo_root, tmp_path, capsys):
    plain = Runs(tiny_path, demo_root, tmp_path)
    plain("train_few", "Chest", "--epoch", 1)
    plain("test_few", "Chest", "--bootstrap", 0, "--disjoint_cases", "yes")
    found = plain.metrics("test_few")["disjoint_cases"]
    assert (found["image_auroc"], found["left_out"], found["cases"]) == (None, 0, 0)
    assert "the names of the shots show no case" in capsys.readouterr().err


def rename(data: Path, lists: Path, split: str, state: str, names: list[str]) -> None:
    """Rename the images of a split and state of Brain, their masks, and the shots."""
    text = lists.read_text()
    for folder in (data / f"Brain_AD/{split}/{state}").iterdir():
        for old, new in zip(sorted(folder.iterdir()), names, strict=True):
            if split == "valid" and folder.name == "img":
                lines = text.splitlines()
                tag = "n" if state == "good" else "a"
                text = "\n".join(
                    line.replace(old.name, f"{new}.png") if line[0] == tag else line
                    for line in lines
                )
            old.rename(folder / f"{new}.png")
    lists.write_text(text + "\n")


@pytest.fixture
def own(tiny_path, tmp_path):
    """Return runs on images of Brain of which only numbers are known, and a trained model."""
    write_demo(tmp_path, valid=2, test=3, shots=(2,), size=48)
    found = Runs(tiny_path, tmp_path, tmp_path / "runs")
    found("train_few", "Brain", "--epoch", 1)
    return found


def disjoint(own: Runs) -> dict:
    own("test_few", "Brain", "--bootstrap", 0, "--disjoint_cases", "yes")
    return own.metrics("test_few")["disjoint_cases"]


def test_cases_that_only_shots_and_test_images_together_show(own):
    """Test images of a case each look like numbered images, until a shot is of the same case."""
    own.demo_root.joinpath("data/Brain_AD/object.toml").write_text("cases = '(?P<case>q.)'\n")
    assert disjoint(own)["cases"] == 0  # nothing matches
    own.demo_root.joinpath("data/Brain_AD/object.toml").unlink()
    lists = own.demo_root / "fewshot_seed/Brain/2-shot.txt"
    rename(own.demo_root / "data", lists, "valid", "good", ["p1_1", "p2_1"])
    rename(own.demo_root / "data", lists, "valid", "Ungood", ["p3_1", "p4_1"])
    rename(own.demo_root / "data", lists, "test", "good", ["p1_2", "p5_1", "p6_1"])
    rename(own.demo_root / "data", lists, "test", "Ungood", ["p7_1", "p3_2", "p8_1"])
    own("train_few", "Brain", "--epoch", 1)
    found = disjoint(own)
    assert (found["cases"], found["images"], found["left_out"]) == (4, 4, 2)
    assert found["image_auroc"] is not None


def test_what_cannot_be_scored_is_said_and_the_test_goes_on(own, capsys):
    top = own.demo_root / "data/Brain_AD"
    rows = [f"test/good/img/00{n}.png,ann" for n in range(3)]
    rows += [f"valid/good/img/00{n}.png,{'ann' if n else 'bob'}" for n in range(2)]
    (top / "cases.csv").write_text("\n".join(["file,case", *rows]) + "\n")
    found = disjoint(own)
    assert (found["normal"], found["abnormal"], found["image_auroc"]) == (0, 3, None)
    said = capsys.readouterr().err
    assert "3 abnormal and 0 normal images remain, and an AUROC needs both" in said
    # images of both labels remain, but the only marks are those of a shot's case
    rows = ["valid/good/img/000.png,ann", "test/Ungood/img/000.png,ann"]
    (top / "cases.csv").write_text("\n".join(["file,case", *rows]) + "\n")
    for name in ("001", "002"):
        Image.new("L", (48, 48)).save(top / f"test/Ungood/anomaly_mask/{name}.png")
    found = disjoint(own)
    assert (found["images"], found["image_auroc"], found["pixel_auroc"]) == (5, None, None)
    assert "--disjoint_cases: AUROC needs both labels: got 0 abnormal" in capsys.readouterr().err


def test_zero_shot_tests_have_no_shots():
    assert not parse("test_zero", ["--obj", "Liver", "--disjoint_cases", "no"]).disjoint_cases
    with pytest.raises(UserError, match="yes: zero-shot tests have no shots of Liver, whose cases"):
        parse("test_zero", ["--obj", "Liver", "--disjoint_cases", "yes"])
    few = ["--obj", "Liver", "--abnormal_shot", "0", "--disjoint_cases", "yes"]
    assert parse("test_few", few).disjoint_cases
