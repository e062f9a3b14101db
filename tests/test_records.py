"""Logs, tables and going on after a stop."""

import csv
import json

import pytest

from errors import UserError
from prediction.records import (
    SOURCE,
    Log,
    begin,
    clear,
    drop_changed,
    fingerprint,
    finished,
    records,
    write_table,
)
from prediction.run_folder import check_folder

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
SETTINGS = {"program": "predict.py", "detector_sha256": "abc", "threshold": None}


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
    assert set(finished(tmp_path)) == {"a.png"}
    assert begin(tmp_path, SETTINGS)
    log(tmp_path, scored("b.png", score=0.75))
    assert [row["score"] for row in table(tmp_path)] == ["0.25", "0.75"]


def test_a_line_that_was_changed_or_has_no_digest_is_scored_again(tmp_path):
    log(tmp_path, scored("a.png"), scored("b.png"), scored("c.png"))
    path = tmp_path / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("0.25", "0.75")
    lines[2] = json.dumps(scored("c.png")) + "\n"
    path.write_text("".join(lines))
    assert set(finished(tmp_path)) == {"a.png"}
    assert [row["file"] for row in table(tmp_path)] == ["a.png"]


def test_a_file_of_the_same_name_is_scored_again(tmp_path):
    files = {name: tmp_path / name for name in ("same", "changed", "unknown", "gone")}
    for path in files.values():
        path.write_text("x")
    seen = fingerprint([files["same"]])
    assert seen is not None
    log(tmp_path, *(scored(name) | {SOURCE: seen} for name in ("same", "changed", "gone")))
    log(tmp_path, scored("unknown"), scored("elsewhere"), name="rows-0-of-2.jsonl")
    files["changed"].write_text("y")
    files["gone"].unlink()
    assert drop_changed(tmp_path, [(name, [path]) for name, path in files.items()]) == 3
    assert set(finished(tmp_path)) == {"same", "elsewhere"}
    assert fingerprint([files["same"], files["changed"]]) != fingerprint([files["same"]])


def test_failures_are_tried_again(tmp_path):
    begin(tmp_path, SETTINGS)
    log(tmp_path, {"name": "a.png", "error": "not read"})
    assert begin(tmp_path, SETTINGS)
    assert finished(tmp_path) == {}
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
    log(tmp_path, scored("a.png"), scored("sub/v.nii"), scored("../mine"), scored("x" * 300))
    for name in ("maps/a.png.tif", "maps/sub/v.nii/map.nii.gz", "overlays/a.png.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    for name in ("seg.dcm", "mine.dcm"):
        (tmp_path / "dicom/a.png").mkdir(parents=True, exist_ok=True)
        (tmp_path / "dicom/a.png" / name).write_text("x")
    (tmp_path / "mine.tif").write_text("x")  # where ../mine would be in maps/
    clear(tmp_path)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"mine.txt", "mine.tif", "maps/mine.tif", "dicom/a.png/mine.dcm"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"maps", "dicom"}


@pytest.mark.parametrize("name", ["scores.csv", "index.html", "maps/a", "overlays/a", "run.json"])
def test_a_folder_with_files_of_others_is_refused(tmp_path, name):
    check_folder(tmp_path, [])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"holds {name.split('/')[0]}, but .*move these files"):
        check_folder(tmp_path, [])
    (tmp_path / "run.json").write_text(json.dumps(SETTINGS))
    check_folder(tmp_path, [tmp_path / "other"])


def test_a_folder_that_is_read_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder of -i; pass another"):
        check_folder(tmp_path / "x/..", [tmp_path])
