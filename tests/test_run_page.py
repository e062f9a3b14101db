"""The page of one run: what a test writes with --page, and how a browser shows it."""

import re

import pytest

from errors import UserError
from mvfa.run_page import measure_items, run_page, run_title, settings_of
from tests.browser import browser, needs_browser, resize, wait
from tests.script_runs import Runs


@pytest.fixture(scope="module")
def runs(tiny_path, demo_root, tmp_path_factory) -> Runs:
    """Run a training, and a test with pictures and a page."""
    runs = Runs(tiny_path, demo_root, tmp_path_factory.mktemp("run"))
    runs("train_few", "Brain")
    runs("test_few", "Brain", "--bootstrap", 30, "--pictures", 4, "--page", "yes")
    return runs


@pytest.fixture(scope="module")
def text(runs) -> str:
    return (runs.out("test_few") / "index.html").read_text()


def test_the_page_has_the_results_of_its_run(runs, text):
    metrics = runs.metrics("test_few")
    assert f"Image AUROC {100 * metrics['image_auroc']:.2f} %" in text
    assert f"pixel AUROC {100 * metrics['pixel_auroc']:.2f} %" in text
    assert "mask rule half" in text
    assert "Brain, 2-shot, draw 0, seed 111" in text
    assert f"{metrics['details']['pixel']['memory']['aupro']:.4f}" in text
    assert metrics["weights"]["sha256"] in text
    assert text.count('<figure class="picture"') == 4
    assert str(runs.folder) not in text  # paths of the machine are left out


def test_a_run_is_written_again_to_the_same_bytes(runs, text):
    assert run_page(runs.out("test_few")) == text


def test_a_test_without_the_flag_has_no_page(runs, tmp_path, capsys):
    more = ("--bootstrap", 0, "--out", tmp_path)
    runs("test_few", "Brain", *more, "--page", "yes")
    assert f" {tmp_path / 'index.html'}" in capsys.readouterr().err
    assert "This run has drawn none" in (tmp_path / "index.html").read_text()
    runs("test_few", "Brain", *more)
    assert not (tmp_path / "index.html").exists()


def test_a_zero_shot_test_has_a_page(runs):
    runs("train_zero", "Chest", "--epoch", 1, "--train_objects", "Brain")
    runs("test_zero", "Chest", "--bootstrap", 0, "--page", "yes")
    text = (runs.out("test_zero") / "index.html").read_text()
    assert "Chest, zero-shot, seed 111" in text
    assert "pixel AUROC" not in text


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no metrics\.json; give the --out folder of a test"):
        run_page(tmp_path)


def test_titles_name_the_shots():
    options = {"obj": "Brain", "shot": 4, "iterate": 2, "seed": 7}
    assert run_title(options) == "Brain, 4-shot, draw 2, seed 7"
    normal = options | {"abnormal_shot": 0}
    assert run_title(normal) == "Brain, 4 normal shots, draw 2, seed 7"
    assert run_title({"obj": "Liver", "shot": 0, "seed": 7}) == "Liver, zero-shot, seed 7"


def test_nested_metrics_are_listed_and_curves_are_not():
    values = {
        "auroc": 0.5,
        "interval": {"auroc": [0.25, 1.0]},
        "within_case": {"auroc": None, "used": 3},
        "roc": [[0, 0], [1, 1]],
    }
    assert measure_items(values) == [
        ("AUROC", "0.5000"),
        ("95 % interval by image, AUROC", "0.2500\N{EN DASH}1.0000"),
        ("within cases, AUROC", "\N{EN DASH}"),
        ("within cases, used", "3"),
    ]


def test_settings_keep_the_names_of_files_only():
    metrics = {"details": {}, "seconds": 3, "options": {"out": "/home/me/out", "seed": 7}}
    assert settings_of(metrics) == [
        ("Run", [("seconds", "3")]),
        ("Options", [("out", "out"), ("seed", "7")]),
    ]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        driver.get((runs.out("test_few") / "index.html").as_uri())
        yield driver


@needs_browser
def test_a_browser_draws_its_curves_and_pictures_without_a_complaint(page):
    wait(page, "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))")
    assert len(page.find_elements("css selector", ".plot")) == 4
    wait(page, "document.querySelector('.shown .share').textContent !== ''")
    assert re.match(r"marked: [\d.]+ %", page.find_element("css selector", ".share").text)
    assert not page.find_element("id", "gallery-choice").is_displayed()  # there is one run
    assert page.get_log("browser") == []


@needs_browser
@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_the_window(page, width):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    resize(page, width)
    wait(page, f"innerWidth === {width}")
    wait(page, "document.documentElement.scrollWidth <= innerWidth")
    outside = (
        "return [...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll, .plot')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert page.execute_script(outside) == []
