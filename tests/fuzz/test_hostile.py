"""Files made to do harm do nothing, and cost less than 5 seconds and 1 GB each."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from mvfa.run_page import run_page
from prediction.page import summarise, write_page
from prediction.records import line_of, parsed, records
from report.page import write_report
from report.study import Study, TableSpec, load_cell
from tests.fuzz import seeds
from tests.fuzz.hostile import hostile, pickles, writer
from tests.fuzz.run import Fuzz

TENSORS = ("CLIP weights", "checkpoint", "detector", "training state", "text-cache entry")
TARGETS = (*TENSORS, "archive", "upload", "image", "mask", "DICOM", "NIfTI")
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def mark(tmp_path_factory) -> Path:
    """Return the file that hostile files would write."""
    return tmp_path_factory.mktemp("mark") / "harm"


@pytest.fixture(scope="module")
def files(tmp_path_factory, mark):
    return hostile(tmp_path_factory.mktemp("hostile"), mark)


def test_these_files_do_harm_where_they_are_run(mark, tmp_path):
    """Else the tests below would show nothing."""
    (tmp_path / "x.pt").write_bytes(writer(mark))
    torch.jit.load(tmp_path / "x.pt")
    assert mark.read_bytes() == b"harm"
    mark.unlink()
    pickle.loads(pickles(mark)["a bare pickle"])
    assert mark.exists()
    mark.unlink()


@pytest.mark.parametrize(
    "target",
    TARGETS,
)
def test_they_do_nothing(files, mark, tmp_path, target):
    fuzz = Fuzz(target, tmp_path)
    outcomes = {
        kind: fuzz.judge(file, structured=True)
        for (name, kind), file in files.items()
        if name == target
    }
    assert len(outcomes) >= 4
    assert [
        (kind, verdict) for kind, verdict in outcomes.items() if verdict.outcome == "fault"
    ] == []
    assert not mark.exists()
    read = {kind for kind, verdict in outcomes.items() if verdict.outcome == "read"}
    assert read <= {"PNG, text bomb"}  # an image of one pixel, whose text nobody asks for


# ---------------------------------------------------------------------- names with markup


def marked(value):
    """Return JSON with markup at the end of every text."""
    if isinstance(value, dict):
        return {key: marked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [marked(inner) for inner in value]
    return value + MARKUP if isinstance(value, str) else value


def test_markup_in_the_files_of_a_run_stays_text(tmp_path):
    run = tmp_path / "run"
    seeds.write_run(run)
    metrics = json.loads((run / "metrics.json").read_text())
    places = ("image", "map", "mask", "panel")
    pictures = [
        marked(picture) | {name: picture[name] for name in places}
        for picture in metrics["pictures"]
    ]
    odd = marked(metrics) | {"pictures": pictures, MARKUP: MARKUP}
    (run / "metrics.json").write_text(json.dumps(odd))
    lines = (run / "scores.csv").read_text().splitlines()
    rows = [
        line.replace(".png", f".png{MARKUP}").replace("case", f"case{MARKUP}") for line in lines[1:]
    ]
    (run / "scores.csv").write_text("\n".join([lines[0], *rows]))
    spec = TableSpec("table1", "Table 1", "caption", ("row",), ("Brain",), heat_maps=True)
    cell = load_cell("table1", "row", "Brain", seed=1, draw=0, test=run, training=run)
    pages = [
        run_page(run),
        write_report(Study("study", False, (spec,), (cell,)), tmp_path / "report").read_text(),
        (tmp_path / "report" / "tables.md").read_text(),
    ]
    for page in pages[:2]:
        assert "&lt;script&gt;alert(1)" in page
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page


def test_markup_in_names_of_scored_files_stays_text(tmp_path):
    log = next(file for file in seeds.prediction_logs() if file.name == "rows.jsonl")
    rows = [parsed(line) for line in log.data.splitlines(keepends=True)]
    odd = [row | {"name": row["name"] + MARKUP, "notes": [MARKUP]} for row in rows]
    (tmp_path / log.name).write_bytes(b"".join(map(line_of, odd)))
    summary = summarise(records(tmp_path))
    facts = {"Detector": MARKUP}
    page = write_page(tmp_path, summary, title=MARKUP, facts=facts, remarks=[MARKUP]).read_text()
    assert page.count("&lt;script&gt;alert(1)") >= 6
    assert "<script>alert" not in page
    assert "<img src=x" not in page
