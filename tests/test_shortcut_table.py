"""reproduce.py shortcuts: a planted shortcut is found, results are cached, the table is written."""

import csv

import pytest

import reproduce
from mvfa.shortcuts import CASE_SHARE, FILE_SIZE, KNOWS, MIDDLE, NONE, ORACLE, SLICE, VALID
from report import shortcuts
from report.arguments import parse
from report.shortcuts import (
    all_shortcuts,
    best_line,
    object_shortcuts,
    shortcut_row,
    shortcut_table,
)
from report.study import Study
from synthetic.images import write_images
from synthetic.settings import PLANTED, RANDOM


@pytest.fixture(scope="module", autouse=True)
def fewer_resamples():
    """Bootstrap intervals of 50 resamples instead of 1,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortcuts, "DEFAULT_RESAMPLES", 50)
        yield


def write_brain(data, depth: str, objects=("Brain",)):
    """Write images of 16 + 16 valid and 24 + 24 test slices; return the data folder."""
    for obj in objects:
        for split, count in (("valid", 16), ("test", 24)):
            for state in ("good", "Ungood"):
                write_images(data, obj, split, state, count, seed=1, size=32, depth=depth)
    return data


@pytest.fixture(scope="module")
def reached(tmp_path_factory):
    """Return the shortcuts of each depth, by name and fit."""
    found = {}
    for depth in (PLANTED, RANDOM):
        folder = tmp_path_factory.mktemp(depth)
        results = object_shortcuts(write_brain(folder, depth), "Brain", folder / "cache.json")
        found[depth] = {(r["name"], r["fit"]): r for r in results}
    return found


def test_a_planted_shortcut_is_found(reached):
    planted = reached[PLANTED]
    assert planted[MIDDLE, NONE]["auroc"] > 0.9
    assert planted[SLICE, VALID]["auroc"] > 0.9  # a middle, learned from valid/
    assert planted[MIDDLE, NONE]["by_case"][0] > 0.7
    assert abs(planted[SLICE, NONE]["auroc"] - 0.5) < 0.2  # low or high alone tells little


def test_within_slice_numbers_a_planted_shortcut_is_worth_nothing(reached):
    for name, fit in ((MIDDLE, NONE), (SLICE, VALID)):
        assert reached[PLANTED][name, fit]["within_slice"] == 0.5
    assert reached[PLANTED][CASE_SHARE, ORACLE]["within_case"] == 0.5


def test_without_a_plant_names_tell_nothing(reached):
    for name, fit in ((SLICE, NONE), (SLICE, VALID), (MIDDLE, NONE), (MIDDLE, VALID)):
        assert abs(reached[RANDOM][name, fit]["auroc"] - 0.5) < 0.05
    # and sizes of files are worth the same, since only names differ
    assert reached[RANDOM][FILE_SIZE, NONE]["auroc"] == reached[PLANTED][FILE_SIZE, NONE]["auroc"]


def test_results_are_cached_until_images_or_cases_change(tmp_path, monkeypatch):
    data = write_brain(tmp_path / "data", PLANTED)
    cache = tmp_path / "root" / "Brain.json"
    first = object_shortcuts(data, "Brain", cache)
    reads = []
    original = shortcuts.computed
    monkeypatch.setattr(
        shortcuts, "computed", lambda *parts: (reads.append(1), original(*parts))[1]
    )
    assert object_shortcuts(data, "Brain", cache) == first
    assert not reads
    folder = data / "Brain_AD" / "test" / "good" / "img"
    image = next(folder.iterdir())
    image.write_bytes(image.read_bytes() + b"\0")  # another size, the same pixels
    object_shortcuts(data, "Brain", cache)
    assert len(reads) == 1
    (data / "Brain_AD" / "cases.csv").write_text(f"file,case,slice\n{image.name},other,1\n")
    assert object_shortcuts(data, "Brain", cache) != first
    assert len(reads) == 2


def test_an_object_that_cannot_be_read_costs_the_others_nothing(tmp_path, capsys):
    data = write_brain(tmp_path / "data", RANDOM, ("Brain", "Chest"))
    next((data / "Brain_AD/test/good/img").iterdir()).write_bytes(b"no image")
    found = all_shortcuts(data, ("Brain", "Chest", "Liver"), tmp_path)
    assert list(found) == ["Chest"]
    assert "shortcuts of Brain left out: " in capsys.readouterr().err


def result(name: str, fit: str, auroc: float) -> dict:
    other = dict.fromkeys(("by_case", "within_slice", "within_case", "cases"))
    plain = {"name": name, "kind": "names", "fit": fit, "auroc": auroc, "images": 9}
    return other | plain | {"by_image": [auroc - 0.1, auroc + 0.1]}


def test_the_best_honest_score_stands_beside_a_table():
    found = {
        "Brain": [
            result(SLICE, NONE, 0.6),
            result(MIDDLE, VALID, 0.8097),
            result(CASE_SHARE, ORACLE, 1.0),
        ],
        "Liver": [result(CASE_SHARE, ORACLE, 0.79)],
    }
    study = Study("", False, (), (), shortcuts=found)
    assert shortcut_row(study, ("Brain", "Liver", "Chest")) == {
        "Brain": (pytest.approx(80.97), MIDDLE)
    }
    line = "a score that knows only the slice's depth reaches 81.0"
    assert best_line(study, "Brain") == line
    assert best_line(study, "Liver") == best_line(study, "Chest") == ""
    records = shortcut_table(study).records
    assert [record["object"] for record in records] == ["Brain", "Brain", "Brain", "Liver"]
    assert (records[1]["low"], records[1]["high"]) == (pytest.approx(70.97), pytest.approx(90.97))
    assert all(record["name"] in KNOWS for record in records)


def test_reproduce_makes_the_table_without_weights_and_runs(tmp_path, capsys):
    data = write_brain(tmp_path / "data", PLANTED)
    folders = ["--root", str(tmp_path / "root"), "--data_path", str(data)]
    argv = ["shortcuts", "--objects", "Brain", "Liver", *folders]
    argv += ["--clip_path", str(tmp_path / "none.pt")]
    reproduce.main([*argv, "--plan"])
    printed = capsys.readouterr().out
    assert "shortcuts Brain           to compute" in printed
    assert "shortcuts Liver           no images of Liver" in printed
    assert not (tmp_path / "root").exists()
    study = reproduce.main(argv)
    assert study.cells == ()
    assert list(study.shortcuts) == ["Brain"]
    with (tmp_path / "root/report/csv/shortcuts.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["name"], row["fit"]): row for row in csv.DictReader(file)}
    assert float(rows[MIDDLE, NONE]["auroc"]) > 90
    assert rows[MIDDLE, NONE]["within_slice"] == "50.0000"
    assert (rows[MIDDLE, NONE]["images"], rows[MIDDLE, NONE]["cases"]) == ("48", "12")
    capsys.readouterr()
    reproduce.main([*argv, "--plan"])
    assert "shortcuts Brain           cached" in capsys.readouterr().out
    assert "shortcuts" in parse(["all"]).options.tables
