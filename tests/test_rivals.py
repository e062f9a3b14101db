"""Published results of others: their verdicts, and tables of comparable ones only."""

import shutil
import subprocess

import pytest

from dataset.catalog import PAPER_ORDER
from report.compact import compact_table
from report.latex import escape, latex_table
from report.rivals import differences, load_rivals, mvfa_protocol, rival_table, side_by_side
from report.study import Study, load_published
from report.tables import long_table
from tests.invented import FEW, invented

RERUN = "MVFA, third-party rerun"


@pytest.fixture
def study(tmp_path):
    return invented(tmp_path)


def test_every_published_row_has_its_source_and_object():
    rivals = load_rivals()
    assert len(rivals) > 50
    assert {rival.obj for rival in rivals} <= {*PAPER_ORDER, "average"}
    assert all(rival.source and 0 < rival.value <= 100 for rival in rivals)


def test_the_third_party_rerun_is_a_comparable_row(study):
    records = rival_table(study, load_rivals()).records
    rerun = [r for r in records if r["method"] == RERUN and r["object"] == "Liver"]
    values = {r["metric"]: r["value"] for r in rerun}
    assert values["image AUROC"] == 86.94  # the paper has 81.18 with the same shots
    assert {r["comparable"] for r in rerun} == {"yes"}


def test_verdicts_name_what_differs():
    rivals = load_rivals()
    ours = mvfa_protocol(4)
    other_rule = next(r for r in rivals if r.protocol.mask_rule == "any")
    reasons = differences(other_rule.protocol, ours, "pixel_auroc")
    assert any("mask rule any, not half" in reason for reason in reasons)
    assert not any("mask rule" in r for r in differences(other_rule.protocol, ours, "image_auroc"))
    zero = next(r for r in rivals if r.protocol.setting != "few")
    assert any(r.startswith("setting ") for r in differences(zero.protocol, ours, "image_auroc"))
    assert differences(ours, ours, "pixel_auroc") == []


def test_only_comparable_results_stand_beside_ours(study):
    rivals = load_rivals()
    compacts = {
        spec.name: compact_table(study, spec, long_table(study, spec, load_published()))
        for spec in study.specs
    }
    tables = side_by_side(study, compacts, rivals)
    few = next(t for t in tables if t.spec.name == "table1")
    allowed = {r.method for r in rivals if not differences(r.protocol, mvfa_protocol(4), r.metric)}
    shown = {line.row for line in few.compact.lines if line.source == "rival"}
    assert RERUN in shown
    assert shown <= allowed
    assert FEW in {line.row for line in few.compact.lines}
    demo = Study("S", True, study.specs, study.cells)
    few = next(t for t in side_by_side(demo, compacts, rivals) if t.spec.name == "table1")
    assert few.reasons == ("demo images",)
    assert "ours" not in {line.source for line in few.compact.lines}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % & more_x", r"50 \% \& more\_x"),
        ("a\\b", r"a\textbackslash{}b"),
        ("[1] \N{EN DASH} 2", "{[}1{]} -- 2"),
    ],
)
def test_latex_prints_text_as_it_is(text, expected):
    assert escape(text) == expected


def test_latex_tables_compile(tmp_path, study):
    spec = study.specs[0]
    long = long_table(study, spec, load_published())
    body = compact_table(study, spec, long).latex("Table & 1_%") + long.latex("All $values$")
    body += latex_table(["a", "b"], [["1", "2"]], "c", "lr")
    for name in ("toprule", "midrule", "bottomrule"):
        assert body.count(f"\\{name}") == 3
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    document = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}"
    (tmp_path / "t.tex").write_text(f"{document}\\begin{{document}}{body}\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-800:]
