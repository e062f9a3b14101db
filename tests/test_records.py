"""Logs, tables and going on after a stop."""

import csv
import json

import pytest

from errors import UserError
from prediction.records import Log, begin, clear, finished, records, write_table

ROW = {
    "score": 0.25,
    "p_value": 0.5,
    "normals_below": 1,
    "normals": 3,
    "label": "normal",
    "threshold": 0.5,
    "display": 0.1,
    "boxes": [],
}
SETTINGS = {"detector_sha256": "abc", "threshold": None}


def scored(name: str, **more) -> dict:
    return {"name": name, "rows": [ROW | more], "notes": []}


def table(out) -> list[dict]:
    with write_table(out).open() as file:
        return list(csv.DictReader(file))


def log(out, *added, name="rows.jsonl") -> None:
    file = Log(out / name)
    file.add(added)
    file.close()


def test_the_table_has_a_row_for_each_image_and_failure(tmp_path):
    log(tmp_path, scored("a.png", boxes=[[1, 2, 3, 4]]), {"name": "b.png", "error": "not read"})
    rows = table(tmp_path)
    assert [row["file"] for row in rows] == ["a.png", "b.png"]
    assert json.loads(rows[0]["boxes"]) == [[1, 2, 3, 4]]
    assert float(rows[0]["score"]) == 0.25
    assert rows[1]["error"] == "not read"
    assert rows[1]["score"] == ""


def test_a_line_that_was_cut_is_scored_again(tmp_path):
    begin(tmp_path, SETTINGS)
    log(tmp_path, scored("a.png"), scored("b.png"))
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text()[:-5])
    assert finished(tmp_path) == {"a.png"}
    assert begin(tmp_path, SETTINGS)
    log(tmp_path, scored("b.png", score=0.75))
    assert [row["score"] for row in table(tmp_path)] == ["0.25", "0.75"]


def test_failures_are_tried_again(tmp_path):
    begin(tmp_path, SETTINGS)
    log(tmp_path, {"name": "a.png", "error": "not read"})
    assert begin(tmp_path, SETTINGS)
    assert finished(tmp_path) == set()
    log(tmp_path, scored("a.png"))
    assert [row["error"] for row in table(tmp_path)] == [""]


def test_other_settings_are_refused(tmp_path):
    assert not begin(tmp_path, SETTINGS)
    with pytest.raises(UserError, match="another threshold"):
        begin(tmp_path, SETTINGS | {"threshold": "max"})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        begin(tmp_path, SETTINGS)


def test_logs_of_jobs_are_merged_and_a_source_counts_once(tmp_path):
    log(tmp_path, scored("a.png"), name="rows-0-of-2.jsonl")
    log(tmp_path, scored("b.png"), scored("a.png"), name="rows-1-of-2.jsonl")
    assert [record["name"] for record in records(tmp_path)] == ["a.png", "b.png"]


def test_discoveries_are_a_column(tmp_path):
    log(tmp_path, scored("a.png"), scored("b.png"))
    with write_table(tmp_path, {"a.png": True, "b.png": False}).open() as file:
        assert [row["discovery"] for row in csv.DictReader(file)] == ["yes", "no"]


def test_only_own_files_are_removed(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/mine.tif").write_text("x")
    clear(tmp_path)  # not a folder of this program
    assert (tmp_path / "maps/mine.tif").exists()
    begin(tmp_path, SETTINGS)
    log(tmp_path, scored("a.png"))
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
