"""The report: results against numbers computed here, the page in a headless browser."""

import base64
import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from statistics import fmean, stdev

import numpy as np
import pytest
from PIL import Image

from dataset.catalog import PAPER_ORDER
from mvfa.embedding import embedded
from mvfa.panels import Picture, overlay
from mvfa.pictures import write_pictures
from report.gallery import heat_map_rows
from report.page import DEMO_NOTE, DISCLAIMER, write_report
from report.settings import study_settings
from report.study import DONE, FAILED, MISSING, Cell, Study, TableSpec, load_cell, load_published
from report.tables import PColumn, long_table, published
from synthetic.images import picture as demo_picture
from tests.browser import browser, needs_browser, resize, wait
from tests.invented import NASTY, REASON, done, invented, paper

FILES = (
    "index.html",
    "tables.md",
    "csv/table1.csv",
    "csv/metrics.csv",
    "csv/selections.csv",
    "csv/runs.csv",
    "csv/comparisons.csv",
    "csv/published.csv",
    "csv/cases.csv",
    "csv/shortcuts.csv",
    "csv/calibration.csv",
)
WIDTHS = (1400, 390)
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return invented(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    return write_report(study, tmp_path_factory.mktemp("report")).parent


def rows(folder, table: str) -> list[dict[str, str]]:
    with (folder / "csv" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def row(folder, table: str, /, **wanted: str) -> dict[str, str]:
    matches = [r for r in rows(folder, table) if wanted.items() <= r.items()]
    assert len(matches) == 1
    return matches[0]


def test_mean_deviation_and_difference(folder):
    record = row(folder, "table1", object="Brain", metric="image AUROC")
    assert float(record["ours"]) == pytest.approx(fmean([92, 94]), abs=1e-4)
    assert float(record["sd"]) == pytest.approx(stdev([92, 94]), abs=1e-4)
    assert [float(record[key]) for key in ("lowest", "highest")] == pytest.approx([92, 94])
    assert float(record["paper"]) == 92.44
    assert float(record["implementation"]) == 92.31
    assert float(record["difference"]) == pytest.approx(93 - 92.44, abs=1e-4)
    assert (record["runs"], record["low"]) == ("2", "")


def test_one_run_shows_its_interval_and_no_deviation(folder):
    record = row(folder, "table1", object="Chest")
    assert [float(record[key]) for key in ("ours", "low", "high")] == pytest.approx(
        [81.23, 79.23, 82.23]
    )
    assert (record["sd"], record["runs"]) == ("", "1")


def test_what_is_not_done_says_why(folder):
    liver = row(folder, "table1", object="Liver", metric="pixel AUROC")
    assert (liver["ours"], liver["difference"], liver["runs"]) == ("", "", "0")
    assert liver["note"] == f"missing: {REASON}"
    assert (
        row(folder, "table1", object="Brain", metric="pixel AUROC")["note"]
        == f"failed: {NASTY} (1 of 3 runs)"
    )
    assert row(folder, "table1", object="Histopathology")["note"] == "not in this study"


def test_an_incomplete_average_is_none(folder):
    record = row(folder, "table1", object="average", metric="image AUROC")
    assert (record["ours"], record["note"]) == ("", "incomplete: 2 of 6 objects")
    assert float(record["paper"]) == pytest.approx(88.97, abs=0.005)  # the paper's own average


def test_averages_are_of_runs_that_have_every_object():
    spec = TableSpec("t", "T", "", ("r",), ("Chest", "Brain"))
    values = {
        (1, "Chest"): 0.6,
        (1, "Brain"): 0.8,
        (2, "Chest"): 0.7,
        (2, "Brain"): 0.9,
        (3, "Chest"): 0.1,
    }
    cells = [
        Cell("t", "r", o, seed, 0, DONE, metrics={"image_auroc": v})
        for (seed, o), v in values.items()
    ]
    records = long_table(
        Study("S", demo=False, specs=(spec,), cells=tuple(cells)), spec, {}
    ).records
    average = next(r for r in records if (r["object"], r["metric"]) == ("average", "image AUROC"))
    assert (average["ours"], average["runs"]) == (pytest.approx(75), 2)
    assert average["sd"] == pytest.approx(stdev([70, 80]))


def test_published_averages():
    results = load_published()
    masked = ("Brain", "Liver", "Retina_RESC")
    table5 = paper("r", "Table 5", "4", "MVFA, all levels").paper
    assert published(results, table5, PAPER_ORDER, "image_auroc") == 88.97
    assert published(results, table5, masked, "pixel_auroc") == 98.67
    assert published(results, table5, ["Brain"], "image_auroc") is None
    assert published(results, table5, PAPER_ORDER[:5], "image_auroc") is None
    table1 = paper("r", "Table 1", "4").paper
    assert published(results, table1, masked, "pixel_auroc") == pytest.approx(98.67, abs=0.005)


def test_optimism_gap(folder):
    record = row(
        folder, "selections", table="Table 1: few-shot", object="Brain", metric="image AUROC"
    )
    expected = {"test": 93.0, "valid": 91.75, "last": 91.0, "gap_valid": 1.25, "gap_last": 2.0}
    assert {key: float(record[key]) for key in expected} == pytest.approx(expected)


def test_metrics_of_every_branch(folder):
    record = row(
        folder,
        "metrics",
        table="Table 1: few-shot",
        object="Brain",
        granularity="pixel",
        branch="memory",
    )
    assert float(record["aupro"]) == pytest.approx(100 * fmean([0.97, 0.96]) - 11)
    assert record["best_f1"] == ""
    assert {r["branch"] for r in rows(folder, "metrics") if r["object"] == "Skin"} == {
        "text",
        "both",
    }


def test_markdown(folder):
    text = re.sub(" +", " ", (folder / "tables.md").read_text())
    assert DISCLAIMER in text
    assert "13 done, 1 missing, 2 failed of 16 cells." in text
    spread = f"± 1.41 / 0.71, n = 2; 92.00{DASH}94.00 / 96.00{DASH}97.00"
    assert f"93.00 / 96.50 ({spread}) [1]" in text
    assert f"81.23 ([79.23{DASH}82.23])" in text
    assert "missing [2]" in text
    assert f"[2] missing: {REASON}" in text
    assert "| paper | 82.71 | 81.95 | 99.38 | 92.44 / 97.30 |" in text
    assert "<script" not in text
    assert "\\|" in text
    width = None  # every line of a table has as many places as its heading
    for line in text.splitlines():
        places = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert None in (width, places) or places == width
        width = places


def test_equal_studies_give_equal_bytes(folder, tmp_path):
    again = write_report(invented(tmp_path / "elsewhere"), tmp_path / "report").parent
    for name in FILES:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    assert str(tmp_path).encode() not in (again / "index.html").read_bytes()


class Outline(HTMLParser):
    """Addresses that a page would load, ids, and cells of tables without a scope."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = []
        self.ids = []
        self.scopes = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.loaded += [
            attributes[key]
            for key in ("src", "href", "srcset", "data", "action")
            if key in attributes
        ]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.scopes += [attributes.get("scope")] if tag == "th" else []


def test_page_loads_nothing(folder):
    page = Outline()
    page.feed((folder / "index.html").read_text())
    assert page.loaded
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.scopes) <= {"col", "row", "colgroup"}
    assert {address[1:] for address in page.loaded if address.startswith("#")} <= set(page.ids)


def test_errors_are_shown_and_not_run(folder):
    text = (folder / "index.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


class Downloads(HTMLParser):
    """The contents of a page's downloads, by file name."""

    def __init__(self) -> None:
        super().__init__()
        self.files = {}

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a" and "download" in attributes:
            content = base64.b64decode(attributes["href"].split(",")[1]).decode()
            earlier = self.files.setdefault(attributes["download"], content)
            assert earlier == content, "two files of one name"


def test_tables_can_be_had_as_csv_and_latex(folder, study):
    page = Downloads()
    page.feed((folder / "index.html").read_text())
    for spec in study.specs:
        csv_file = (folder / "csv" / f"{spec.name}.csv").read_text()
        assert page.files[f"{spec.name}.csv"] == csv_file
        assert rf"\caption{{{spec.title}." in page.files[f"{spec.name}.tex"]
        assert page.files[f"{spec.name}-long.tex"].count(r"\\") == len(csv_file.splitlines())
    assert "93.00 / 96.50 ($\\pm$ 1.41 / 0.71, n = 2)" in page.files["table1.tex"]


def test_the_best_shortcut_is_a_line_of_every_table(tmp_path):
    def shortcut(name: str, fit: str, auroc: float) -> dict:
        nothing = dict.fromkeys(("by_image", "by_case", "within_slice", "within_case", "cases"))
        return nothing | {"name": name, "kind": "names", "fit": fit, "auroc": auroc, "images": 9}

    found = [
        shortcut("nearness to the middle slice", "none", 0.81),
        shortcut("slice number", "valid", 0.7),
        shortcut("abnormal share of its slice number", "oracle", 0.98),
    ]
    study = replace(invented(tmp_path / "runs"), shortcuts={"Brain": found})
    folder = write_report(study, tmp_path / "report").parent
    (line,) = re.findall(r'<tr class="shortcut">.*', (folder / "index.html").read_text())[:1]
    assert line.count("<td") == len(PAPER_ORDER) + 1
    assert '81.00</span><span class="detail">knows only the slice&#39;s depth' in line
    assert "98.00" not in line  # made from the test labels
    assert "81.00 (knows only the slice's depth)" in (folder / "tables.md").read_text()
    assert [r["auroc"] for r in rows(folder, "shortcuts")] == ["81.0000", "70.0000", "98.0000"]


def with_details(tmp_path, **more) -> Study:
    """Return a study of one run with more of its metrics."""
    cell = done("t", "r", "Brain", 0.9, 0.95, folder=tmp_path / "run")
    cell.metrics["details"]["image"]["both"] |= more.pop("image", {})
    spec = TableSpec("t", "T", "", ("r",), ("Brain",))
    return Study("S", False, (spec,), (replace(cell, metrics=cell.metrics | more),))


def test_intervals_by_case_stand_beside_those_by_image_with_what_was_left_out(tmp_path):
    by_case = {"auroc": [0.75, 0.97], "average_precision": [0, 1], "cases": 10, "resamples": 990}
    within = {"auroc": 0.66, "used": 7, "left_out": 3, "images": 80}
    study = with_details(
        tmp_path,
        image={"interval_by_case": by_case, "within_case": within, "within_slice": None},
        disjoint_cases={"image_auroc": 0.85, "pixel_auroc": None, "images": 60},
    )
    folder = write_report(study, tmp_path / "report").parent
    text = (folder / "tables.md").read_text()
    assert f"90.00 / 95.00 ([88.00{DASH}91.00]; by case [75.00{DASH}97.00])" in text
    record = row(folder, "cases", branch="both")
    expected = {"auroc": 90, "low": 88, "high": 91, "case_low": 75, "case_high": 97, "cases": 10}
    expected |= {"within_case": 66, "within_case_used": 7, "within_case_left_out": 3}
    expected |= {"disjoint_image": 85, "disjoint_images": 60}
    assert {key: float(record[key]) for key in expected} == pytest.approx(expected)
    assert (record["within_slice"], record["disjoint_pixel"]) == ("", "")


def test_operating_points_and_calibration_are_tables(tmp_path):
    rates = [{"rate": 0.05, "images": 20, "share": 0.1, "low": 0.01, "high": 0.3}]
    errors = {"brier": 0.125, "calibration_error": 0.0625}
    reliability = {"normals": 40, "false_positive_rates": rates, "probability": errors}
    calibrated = {"image_auroc": 0.8, "pixel_auroc": 0.9, "pixel_dice": 0.5}
    study = with_details(
        tmp_path,
        image={
            "sensitivity_at_95_specificity": 0.5,
            "sensitivity_at_95_specificity_interval": [0.4, 0.6],
        },
        calibrated=calibrated | {"reliability": reliability},
    )
    folder = write_report(study, tmp_path / "report").parent
    record = row(folder, "metrics", granularity="image", branch="both")
    points = [record[f"sensitivity_{key}"] for key in ("at_95", "low", "high")]
    assert points == ["50.0000", "40.0000", "60.0000"]
    assert record["specificity_at_95"] == ""
    record = row(folder, "calibration")
    expected = {"image_auroc": 80, "pixel_dice": 50, "normals": 40, "share": 10, "high": 30}
    expected |= errors
    assert {key: float(record[key]) for key in expected} == pytest.approx(expected)


def test_small_p_values_are_not_shown_as_zero():
    column = PColumn("p", "p", 4)
    assert [column.text(p) for p in (0.5, 0.0001, 1e-12, 0, None)] == [
        "0.5000",
        "0.0001",
        "< 0.0001",
        "< 0.0001",
        "",
    ]


def test_demo_studies_say_so(tmp_path):
    folder = write_report(invented(tmp_path / "runs", demo=True), tmp_path / "report").parent
    assert DEMO_NOTE in (folder / "index.html").read_text()
    assert DEMO_NOTE in (folder / "tables.md").read_text()
    assert {record["difference"] for record in rows(folder, "table1")} == {""}
    assert row(folder, "table1", object="Chest")["paper"] == "81.9500"


def test_an_empty_study_has_a_page(tmp_path):
    spec = TableSpec("t", "T", "", ("r",))
    text = write_report(Study("Nothing", demo=False, specs=(spec,), cells=()), tmp_path).read_text()
    assert "No test of this study has written pictures." in text


def test_a_picture_that_cannot_be_shown_is_named_and_left_out(tmp_path, capsys):
    """The page is written with the others."""
    study = invented(tmp_path / "runs")
    pictures = tmp_path / "runs" / "brain" / "pictures"
    whole = write_report(study, tmp_path / "whole").read_text().count('<figure class="picture')
    (pictures / "0001-map.png").unlink()
    (pictures / "0002.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    text = write_report(study, tmp_path / "report").read_text()
    assert text.count('<figure class="picture') == whole - 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2].split(" cannot")[0] for line in said] == [
        str(pictures / name) for name in ("0001-map.png", "0002.png")
    ]


def test_cells_from_folders(tmp_path):
    place = {"table": "t", "row": "r", "obj": "Brain", "seed": 1, "draw": 0, "test": tmp_path}
    assert load_cell(**place).state == MISSING
    (tmp_path / "metrics.json").write_text(json.dumps({"image_auroc": 0.5}))
    assert load_cell(**place).percent("image_auroc") == 50
    (tmp_path / "metrics.json").write_text('{"image_auroc": 0.')
    cell = load_cell(**place)
    assert cell.state == FAILED
    assert "metrics.json cannot be read as JSON; remove it and run again" in cell.reason


def test_curves_are_read_from_their_own_file(tmp_path):
    """And still from metrics.json, as older runs have them."""
    cell = {"table": "t", "row": "r", "obj": "Brain", "seed": 1, "draw": 0, "test": tmp_path}
    old = {"auroc": 0.5, "roc": [[0, 0], [1, 1]]}
    details = {"image": {"text": {"auroc": 0.7}, "memory": None, "both": old}, "pixel": None}
    (tmp_path / "metrics.json").write_text(json.dumps({"image_auroc": 0.5, "details": details}))
    assert load_cell(**cell).measures("image", "both")["roc"] == [[0, 0], [1, 1]]
    assert "roc" not in load_cell(**cell).measures("image", "text")
    points = {"roc": [[0, 0], [0.2, 1], [1, 1]], "pr": [[0, 1], [1, 0.5]]}
    curves = {"image": {"text": points, "memory": None, "both": points}, "pixel": None}
    (tmp_path / "curves.json").write_text(json.dumps(curves))
    for branch, auroc in (("text", 0.7), ("both", 0.5)):
        assert load_cell(**cell).measures("image", branch) == {"auroc": auroc} | points
    assert load_cell(**cell).measures("image", "memory") == {}
    (tmp_path / "curves.json").write_text("[]")
    assert "curves.json is not a run's curves.json" in load_cell(**cell).reason


def trained(kind: str, row: str, rate: float, **recipe) -> Cell:
    """Make a done cell whose training has some settings."""
    options = {"script": f"train_{kind}", "learning_rate": rate, "epoch": 3, "recipe": recipe}
    metrics = {"versions": {"torch": "2"}, "weights": {"file": "a/clip.pt", "sha256": "0"}}
    training = {"options": options}
    return Cell("t", row, "Brain", 1, 0, DONE, metrics=metrics, training=training)


def test_settings_are_those_of_each_kind_of_training():
    cells = [
        trained("few", "4-shot", 1e-3, keep=0.8, bank_class_token=True),
        trained("few", "switched", 1e-3, keep=0.9, bank_class_token=True),
        trained("zero", "zero-shot", 3e-3, keep=0.8, bank_class_token=True),
        Cell("t", "r", "Brain", 1, 0, MISSING),
    ]
    settings = study_settings(cells)
    few = settings["Few-shot training"]
    assert few["learning_rate"] == "0.001"
    assert few["recipe.keep"] == "0.8 (1 of 2 runs: 4-shot); 0.9 (1 of 2 runs: switched)"
    assert few["recipe.bank_class_token"] == "yes"
    assert settings["Zero-shot training"]["learning_rate"] == "0.003"
    assert settings["Zero-shot training"]["recipe.keep"] == "0.8"
    assert settings["Versions"] == {"torch": "2"}
    assert settings["Weights"] == {"file": "clip.pt", "sha256": "0"}
    assert study_settings(cells[3:]) == {}


def test_settings_count_a_shared_training_once_and_many_rows_as_a_number(tmp_path):
    shared = replace(trained("few", "a", 1e-3), training_folder=tmp_path)
    others = [trained("few", row, 2e-3) for row in "bcde"]
    rates = study_settings([shared, shared, *others])["Few-shot training"]["learning_rate"]
    assert rates == "0.001 (1 of 5 runs: a); 0.002 (4 of 5 runs)"


def test_published_adapters_show_the_recipe_of_their_test():
    options = {"script": "test_few", "abnormal_shot": 0, "recipe": {"keep": 0.8}}
    cell = Cell("t", "r", "Brain", 1, 0, DONE, metrics={"options": options})
    assert study_settings([cell]) == {"Zero-shot training": {"recipe.keep": "0.8"}}


def test_only_failures_are_red_and_one_cell_is_no_plural(tmp_path):
    spec = TableSpec("t", "T", "", ("r",))
    cells = [Cell("t", "r", "Brain", 0, 0, MISSING)]
    text = write_report(Study("S", False, (spec,), tuple(cells)), tmp_path / "a").read_text()
    assert '<span class="badge">0 failed</span>' in text
    assert '<span class="badge missing">1 missing</span>' in text
    assert "of 1 cell;" in text
    assert "failed (1 cell)" in text
    cells += [Cell("t", "r", "Liver", 0, 0, FAILED)]
    text = write_report(Study("S", False, (spec,), tuple(cells)), tmp_path / "b").read_text()
    assert '<span class="badge failed">1 failed</span>' in text
    assert "of 2 cells;" in text


def test_the_page_is_no_medical_device(folder):
    assert "Research software, not a medical device" in DISCLAIMER
    assert DISCLAIMER in (folder / "index.html").read_text()


def pixels(uri: str) -> np.ndarray:
    """Decode the image of a data URI."""
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_heat_maps_are_over_images_with_organs_as_rows(tmp_path):
    rows = ("few", "zero")
    spec = TableSpec("figure5", "Heat maps", "", rows, ("Chest", "Brain", "Liver"), heat_maps=True)
    cells = [
        done("figure5", "few", "Brain", 0.9, 0.9, folder=tmp_path / "brain-few"),
        done("figure5", "zero", "Brain", 0.8, 0.9, folder=tmp_path / "brain-zero"),
        done("figure5", "few", "Chest", 0.7, None, folder=tmp_path / "chest"),
        Cell("figure5", "zero", "Chest", 111, 0, MISSING),
    ]
    study = Study("S", False, (spec,), tuple(cells))
    chest, brain = heat_map_rows(study, spec)
    assert [chest["object"], brain["object"]] == ["Chest", "Brain"]
    assert [line["label"] for line in brain["lines"]] == ["abnormal", "normal"]
    line = chest["lines"][0]
    few, missing = line["maps"]
    assert missing is None
    assert few["overlay_uri"].startswith("data:image/")
    assert (line["mask_uri"], line["mask_note"]) == (None, "no mask")
    abnormal, normal = brain["lines"]
    assert normal["mask_note"] == "empty mask"
    image, outlined = (pixels(abnormal[f"{name}_uri"]) for name in ("image", "mask"))
    shown = pixels(abnormal["maps"][0]["overlay_uri"])
    assert np.abs(image - image.mean()).max() < 10  # grey
    assert np.abs(outlined[8:16, 12:20] - image[8:16, 12:20]).max() > 100  # around the lesion
    assert np.abs(outlined[:4] - image[:4]).mean() < 15
    expected = overlay(image.astype(np.uint8), np.tile(np.linspace(0, 1, 24), (24, 1)))
    assert np.abs(shown - expected).mean() < 12
    page = write_report(study, tmp_path / "report").read_text()
    assert page.count('class="overlay"') == 6  # three runs, an abnormal and a normal image each
    assert page.index('id="maps-figure5"') < page.index('id="selection"')


def test_a_picture_is_small_and_a_page_of_24_below_6_mb(tmp_path):
    """Pictures of 240 px; the page has Plotly's script."""
    y, x = np.mgrid[:240, :240] / 240
    smooth = (0.5 + 0.5 * np.sin(9 * x) * np.cos(7 * y)).astype(np.float32)
    cells = []
    for number, obj in enumerate(PAPER_ORDER[:4]):
        pictures = []
        for index in range(6):
            image, _ = demo_picture(obj, "test", "Ungood", index, seed=1)
            pictures.append(
                Picture(
                    index=index,
                    file=f"{index}.png",
                    label=1,
                    score=0.5,
                    rank="worst",
                    image=np.asarray(Image.fromarray(image).resize((240, 240))),
                    mask=smooth > 0.8,
                    text_map=smooth,
                    memory_map=smooth**2,
                    final_map=(smooth + smooth**2) / 2,
                )
            )
        cell = done("figure5", "few", obj, 0.9, 0.9)
        entries = write_pictures(tmp_path / obj, pictures, 0.5)
        metrics = cell.metrics | {"pictures": entries}
        cells.append(replace(cell, seed=number, metrics=metrics, folder=tmp_path / obj))
        uris = [v for k, v in embedded(tmp_path / obj, entries[0]).items() if k.endswith("_uri")]
        assert len(uris) == 4
        assert sum(map(len, uris)) < 80_000
    spec = TableSpec("figure5", "Heat maps", "", ("few",), PAPER_ORDER[:4], heat_maps=True)
    page = write_report(Study("S", False, (spec,), tuple(cells)), tmp_path / "report")
    assert page.read_text().count('<figure class="picture"') == 24
    assert page.stat().st_size < 6_000_000


def test_cells_and_rows_must_exist():
    spec = TableSpec("t", "T", "", ("r",))
    with pytest.raises(ValueError, match="no table has a cell"):
        Study("S", demo=False, specs=(spec,), cells=(Cell("t", "r", "Skin", 0, 0, DONE),))
    with pytest.raises(ValueError, match="unknown rows"):
        TableSpec("t", "T", "", ("r",), published=(paper("other", "Table 1", "4"),))


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        driver.get((folder / "index.html").as_uri())
        yield driver


def canvas(driver) -> str:
    return driver.execute_script(
        "return document.querySelector('.shown:not([hidden]) canvas').toDataURL()"
    )


@needs_browser
def test_slider_redraws_the_pictures(page):
    wait(page, "document.querySelector('.shown:not([hidden]) .share').textContent !== ''")
    assert page.find_element("id", "threshold-value").text == "0.437"
    seen = {canvas(page)}
    move = (
        "const s = document.getElementById('threshold'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'));"
    )
    for value in ("0.900", "0.100"):
        page.execute_script(move, value)
        assert page.find_element("id", "threshold-value").text == value
        seen.add(canvas(page))
    assert len(seen) == 3
    # the map rises by columns from 0 to 255: of 24, those from 3 on reach 0.1
    assert (
        f"marked: {100 * 21 / 24:.1f} %"
        in page.find_element("css selector", ".shown:not([hidden]) .share").text
    )
    page.find_element("id", "threshold-reset").click()
    assert page.find_element("id", "threshold-value").text == "0.437"


@needs_browser
def test_headings_sort_by_number_and_reverse(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    heading = page.find_element("xpath", "//table[@id='long-table1']//th[button[text()='Paper']]")
    rows = "[...document.querySelectorAll('#long-table1 tbody tr')]"
    read = f"return {rows}.map(r => r.cells[3].dataset.value)"
    for direction in ("ascending", "descending"):
        page.execute_script("arguments[0].querySelector('button').click()", heading)
        values = [float(value) for value in page.execute_script(read)]
        assert values == sorted(values, reverse=direction == "descending")
        assert heading.get_attribute("aria-sort") == direction
    ours = page.find_element("xpath", "//table[@id='long-table1']//th/button[text()='This study']")
    page.execute_script("arguments[0].click()", ours)
    values = page.execute_script(read.replace("cells[3]", "cells[5]"))
    numbers = [float(value) for value in values if value]
    assert numbers == sorted(numbers)
    assert not any(values[len(numbers) :])  # cells without a result come last


@needs_browser
def test_filter_hides_rows(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    field = page.find_element("css selector", "#table1 .filter")
    field.send_keys("brain pixel")
    shown = page.execute_script(
        "return [...document.querySelectorAll('#long-table1 tbody tr:not([hidden])')].length"
    )
    assert shown == 1


@needs_browser
def test_curves_are_drawn_and_can_be_chosen(page):
    plots = "[...document.querySelectorAll('.plot:not([hidden])')]"
    drawn = f"{plots}.every(p => p.querySelector('.main-svg'))"
    wait(page, drawn)
    title = "return document.querySelector('#curve-image-roc .legendtext').textContent"
    before = page.execute_script(title)
    choose = (
        "const c = document.getElementById('curve-choice'); c.selectedIndex = 1;"
        "c.dispatchEvent(new Event('change'));"
    )
    page.execute_script(choose)
    wait(page, drawn)
    assert page.execute_script(title) != before


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_the_window(page, width):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    resize(page, width)
    wait(page, f"innerWidth === {width}")
    wait(page, "document.documentElement.scrollWidth <= innerWidth")
    outside = (
        "return [...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll, .plot')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert page.execute_script(outside) == []


@needs_browser
def test_compact_tables_fit_a_wide_window_and_hint_at_more_in_a_narrow_one(page):
    box = "document.getElementById('compact-table1').closest('.box')"
    hint = f"getComputedStyle({box}.querySelector('.more')).display"
    resize(page, 1400)
    wait(page, "innerWidth === 1400")
    wait(page, f"!{box}.classList.contains('overflows')")
    assert page.execute_script(f"return {hint}") == "none"
    resize(page, 390)
    wait(page, "innerWidth === 390")
    wait(page, f"{box}.classList.contains('overflows')")
    assert page.execute_script(f"return {hint}") == "block"
    # the row's name stays where it is while the rest scrolls, until nothing is hidden
    left = f"return {box}.querySelector('tbody th').getBoundingClientRect().left"
    before = page.execute_script(left)
    page.execute_script(f"{box}.querySelector('.scroll').scrollLeft = 9999")
    wait(page, f"{box}.classList.contains('at-end')")
    assert page.execute_script(left) == pytest.approx(before, abs=1)


BACKGROUND = "getComputedStyle(document.body).backgroundColor"
TEXT = (
    "getComputedStyle([...document.querySelectorAll('.plot')].find(p => p.querySelector('.xtick'))"
    ".querySelector('.xtick text')).fill"
)


def brightness(driver, colour: str) -> float:
    """Return the mean of red, green and blue of a colour that JavaScript computes."""
    numbers = re.findall(r"[\d.]+", driver.execute_script(f"return {colour}"))
    return fmean(map(float, numbers[:3]))


@needs_browser
def test_colours_follow_the_system_until_the_button_is_pressed(page):
    """Text of plots is redrawn in the page's ink."""

    def prefer(scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    wait(page, "document.querySelector('.plot .xtick text')")
    button = page.find_element("id", "theme")
    for scheme, other in (("light", "Dark colours"), ("dark", "Light colours")):
        prefer(scheme)
        wait(page, f"document.getElementById('theme').textContent === '{other}'")
        assert (brightness(page, BACKGROUND) > 128) == (scheme == "light")
        assert (brightness(page, TEXT) < 128) == (scheme == "light")
    button.click()
    wait(page, "document.documentElement.dataset.theme === 'light'")
    assert brightness(page, BACKGROUND) > 200
    assert brightness(page, TEXT) < 60
    button.click()
    assert brightness(page, BACKGROUND) < 60
    page.execute_script("delete document.documentElement.dataset.theme")
    prefer("light")
    wait(page, "document.getElementById('theme').textContent === 'Dark colours'")


@needs_browser
def test_paper_has_no_controls_and_cuts_no_table(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    resize(page, 1000)  # an A4 page in landscape
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        hidden = ["#theme", "nav", ".filter", "#threshold", ".downloads", ".more"]
        for selector in hidden:
            assert not page.find_element("css selector", selector).is_displayed(), selector
        boxes = "[...document.querySelectorAll('.scroll')]"
        for cut in ("e.scrollWidth > innerWidth", "getComputedStyle(e).overflow !== 'visible'"):
            labels = f"{boxes}.filter(e => {cut}).map(e => e.getAttribute('aria-label'))"
            assert page.execute_script(f"return {labels}") == [], cut
        heading = page.find_element("css selector", "#long-table1 thead th")
        assert heading.value_of_css_property("position") == "static"
        pdf = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
        assert base64.b64decode(pdf["data"]).startswith(b"%PDF")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    wait(page, "document.documentElement.dataset.theme === undefined")


@needs_browser
def test_the_first_column_of_a_wide_table_stays_in_sight(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    resize(page, 1400)
    wait(page, "innerWidth === 1400")
    cell = "document.querySelector('#long-published tbody th')"
    box = f"{cell}.closest('.scroll')"
    assert page.execute_script(f"return {box}.scrollWidth > {box}.clientWidth")
    before = page.execute_script(f"return {cell}.getBoundingClientRect().left")
    page.execute_script(f"{box}.scrollLeft = 9999")
    assert page.execute_script(f"return {box}.scrollLeft") > 0
    assert page.execute_script(f"return {cell}.getBoundingClientRect().left") == before


@needs_browser
def test_browser_has_no_complaint_and_no_request(page):
    assert page.get_log("browser") == []
    fetched = page.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
