"""The report: figures against numbers computed here, the page in a headless browser."""

import csv
import json
import re
from html.parser import HTMLParser
from statistics import fmean, stdev

import pytest

from errors import UserError
from report.page import DEMO_NOTE, write_report
from report.study import DONE, MISSING, OBJECTS, Cell, Study, TableSpec, load_cell, load_published
from report.tables import long_table, published
from tests.browser import browser, needs_browser, resize, wait
from tests.invented import LACK, NASTY, invented, paper

FILES = (
    "index.html",
    "tables.md",
    "csv/table1.csv",
    "csv/metrics.csv",
    "csv/selections.csv",
    "csv/runs.csv",
)
WIDTHS = (1400, 390)


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
    found = [r for r in rows(folder, table) if wanted.items() <= r.items()]
    assert len(found) == 1
    return found[0]


def test_mean_deviation_and_difference(folder):
    found = row(folder, "table1", object="Brain", metric="image AUROC")
    assert float(found["ours"]) == pytest.approx(fmean([92, 94]), abs=1e-4)
    assert float(found["sd"]) == pytest.approx(stdev([92, 94]), abs=1e-4)
    assert float(found["paper"]) == 92.44
    assert float(found["implementation"]) == 92.31
    assert float(found["difference"]) == pytest.approx(93 - 92.44, abs=1e-4)
    assert (found["runs"], found["low"]) == ("2", "")


def test_one_run_shows_its_interval_and_no_deviation(folder):
    found = row(folder, "table1", object="Chest")
    assert [float(found[key]) for key in ("ours", "low", "high")] == pytest.approx(
        [81.23, 79.23, 82.23]
    )
    assert (found["sd"], found["runs"]) == ("", "1")


def test_what_is_not_done_says_why(folder):
    liver = row(folder, "table1", object="Liver", metric="pixel AUROC")
    assert (liver["ours"], liver["difference"], liver["runs"]) == ("", "", "0")
    assert liver["note"] == f"missing: {LACK}"
    assert (
        row(folder, "table1", object="Brain", metric="pixel AUROC")["note"]
        == f"failed: {NASTY} (1 of 3 runs)"
    )
    assert row(folder, "table1", object="Histopathology")["note"] == "not in this study"


def test_an_incomplete_average_is_none(folder):
    found = row(folder, "table1", object="average", metric="image AUROC")
    assert (found["ours"], found["note"]) == ("", "incomplete: 2 of 6 objects")
    assert float(found["paper"]) == pytest.approx(88.97, abs=0.005)  # the paper's own average


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
    figures, masked = load_published(), ("Brain", "Liver", "Retina_RESC")
    table5 = paper("r", "Table 5", "4", "MVFA, all levels").paper
    assert published(figures, table5, OBJECTS, "image_auroc") == 88.97
    assert published(figures, table5, masked, "pixel_auroc") == 98.67
    assert published(figures, table5, ["Brain"], "image_auroc") is None
    assert published(figures, table5, OBJECTS[:5], "image_auroc") is None
    table1 = paper("r", "Table 1", "4").paper
    assert published(figures, table1, masked, "pixel_auroc") == pytest.approx(98.67, abs=0.005)


def test_optimism_gap(folder):
    found = row(
        folder, "selections", table="Table 1: few-shot", object="Brain", metric="image AUROC"
    )
    expected = {"test": 93.0, "valid": 91.75, "last": 91.0, "gap_valid": 1.25, "gap_last": 2.0}
    assert {key: float(found[key]) for key in expected} == pytest.approx(expected)


def test_metrics_of_every_branch(folder):
    found = row(
        folder, "metrics", table="Table 1: few-shot", object="Brain", level="pixel", branch="memory"
    )
    assert float(found["aupro"]) == pytest.approx(100 * fmean([0.97, 0.96]) - 11)
    assert found["best_f1"] == ""
    assert {r["branch"] for r in rows(folder, "metrics") if r["object"] == "Skin"} == {
        "text",
        "both",
    }


def test_markdown(folder):
    text = (folder / "tables.md").read_text()
    assert "93.00 / 96.50 (± 1.41 / 0.71, n = 2) [1]" in text
    assert "81.23 ([79.23, 82.23])" in text
    assert "missing [2]" in text
    assert f"[2] missing: {LACK}" in text
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
        self.loaded, self.ids, self.scopes = [], [], []

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
    assert set(page.scopes) == {"col", "row"}
    assert {address[1:] for address in page.loaded if address.startswith("#")} <= set(page.ids)


def test_errors_are_shown_and_not_run(folder):
    text = (folder / "index.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_demo_studies_say_so(tmp_path):
    folder = write_report(invented(tmp_path / "runs", demo=True), tmp_path / "report").parent
    assert DEMO_NOTE in (folder / "index.html").read_text()
    assert DEMO_NOTE in (folder / "tables.md").read_text()
    assert {found["difference"] for found in rows(folder, "table1")} == {""}
    assert row(folder, "table1", object="Chest")["paper"] == "81.9500"


def test_an_empty_study_has_a_page(tmp_path):
    spec = TableSpec("t", "T", "", ("r",))
    text = write_report(Study("Nothing", demo=False, specs=(spec,), cells=()), tmp_path).read_text()
    assert "No test of this study has written pictures." in text


def test_a_missing_picture_is_named(tmp_path):
    study = invented(tmp_path / "runs")
    (tmp_path / "runs/brain/pictures/0001-map.png").unlink()
    with pytest.raises(UserError, match=r"0001-map\.png cannot be read"):
        write_report(study, tmp_path / "report")


def test_cells_from_folders(tmp_path):
    place = {"table": "t", "row": "r", "obj": "Brain", "seed": 1, "draw": 0, "test": tmp_path}
    assert load_cell(**place).state == MISSING
    (tmp_path / "metrics.json").write_text(json.dumps({"image_auroc": 0.5}))
    assert load_cell(**place).percent("image_auroc") == 50
    (tmp_path / "metrics.json").write_text('{"image_auroc": 0.')
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_cell(**place)


def test_places_and_rows_must_exist():
    spec = TableSpec("t", "T", "", ("r",))
    with pytest.raises(ValueError, match="no table has a place"):
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
    move = "const s = document.getElementById('threshold'); s.value = arguments[0]; s.dispatchEvent(new Event('input'));"
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
    read = "return [...document.querySelectorAll('#long-table1 tbody tr')].map(r => r.cells[3].dataset.value)"
    for direction in ("ascending", "descending"):
        page.execute_script("arguments[0].querySelector('button').click()", heading)
        values = [float(value) for value in page.execute_script(read)]
        assert values == sorted(values, reverse=direction == "descending")
        assert heading.get_attribute("aria-sort") == direction
    ours = page.find_element("xpath", "//table[@id='long-table1']//th/button[text()='This study']")
    page.execute_script("arguments[0].click()", ours)
    values = page.execute_script(read.replace("cells[3]", "cells[5]"))
    there = [float(value) for value in values if value]
    assert there == sorted(there)
    assert not any(values[len(there) :])  # places without a figure come last


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
    drawn = "[...document.querySelectorAll('.plot:not([hidden])')].every(p => p.querySelector('.main-svg'))"
    wait(page, drawn)
    title = "return document.querySelector('#curve-image-roc .legendtext').textContent"
    before = page.execute_script(title)
    choose = "const c = document.getElementById('curve-choice'); c.selectedIndex = 1; c.dispatchEvent(new Event('change'));"
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
def test_browser_has_no_complaint_and_no_request(page):
    assert page.get_log("browser") == []
    fetched = page.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
