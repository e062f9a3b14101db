"""app.py: its flags, its server, and its page in a headless browser that reaches nothing else."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import nibabel
import numpy as np
import pytest
from PIL import Image

import app
from errors import UserError
from mvfa import Detector
from mvfa.calibration import rank_words
from mvfa.cli import command
from prediction import app_case, app_layout, app_page, app_reading, app_work
from prediction.app_options import AppOptions, check_address, find_detectors, parse, titles
from prediction.app_server import host_name, private_folder, running
from prediction.discovery import VOLUME, Source
from prediction.outputs import REMARK
from prediction.reading import load
from tests.browser import browser, needs_browser, resize, wait
from tests.detectors import random_detector, random_images
from tests.script_runs import ROOT
from tests.test_app_case import reading

WIDTHS = (1400, 390)
SLICES = 7
CHOOSE = """
const field = document.querySelector(arguments[0] + " input[type=range]");
const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
set.call(field, arguments[1]);
field.dispatchEvent(new Event("input", {bubbles: true}));
"""


@pytest.fixture(autouse=True, scope="module")
def gradio_folder(tmp_path_factory):
    """Import gradio while its folder is one of the tests: it keeps that of its import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        importlib.import_module("gradio")
        yield


@pytest.fixture(scope="module")
def made(tiny_path, tmp_path_factory) -> Path:
    """Write two detectors, images and a volume to a folder."""
    folder = tmp_path_factory.mktemp("made")
    for name, masks in (("Brain-4shot", True), ("Chest-4shot", False)):
        random_detector(tiny_path, masks=masks).save(folder / f"{name}.detector")
    for k, image in enumerate(random_images(2, 32, seed=11)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((80, 60)).save(folder / f"{k}.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:200])
    values = random_images(SLICES, 40, seed=12)[:, 0].numpy().transpose(2, 1, 0)
    nibabel.save(
        nibabel.Nifti1Image(values.copy(), np.diag([-1, -1, 2, 1])), folder / "head.nii.gz"
    )
    return folder


@pytest.fixture(scope="module")
def options(made, tiny_path) -> AppOptions:
    detectors = (made / "Brain-4shot.detector", made / "Chest-4shot.detector")
    return AppOptions(detectors, clip_path=tiny_path, device="cpu", max_mb=1)


# -------------------------------------------------------------------- flags


def test_detectors_are_found_where_scripts_put_them(made, tiny_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no detector in ckpt/few-shot, .*demo/ckpt/zero-shot"):
        parse([])
    for folder in ("demo/ckpt/few-shot", "ckpt/zero-shot", "ckpt/few-shot"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "x.detector").write_bytes((made / "Brain-4shot.detector").read_bytes())
    Path("ckpt/few-shot/bad.detector").write_bytes(b"no")
    found = parse(["--clip_path", str(tiny_path)])
    expected = ["ckpt/few-shot", "ckpt/zero-shot", "demo/ckpt/few-shot"]
    assert [str(path.parent) for path in found.detectors] == expected
    assert len(found.left_out) == 1
    assert "bad.detector is left out" in found.left_out[0]
    assert titles(found.detectors) == [f"x ({folder})" for folder in expected]
    assert (found.host, found.local, found.port, found.max_mb) == ("127.0.0.1", True, None, 200)


def test_only_found_detectors_without_weights_are_left_out(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ckpt/few-shot").mkdir(parents=True)
    path = Path("ckpt/few-shot/x.detector")
    path.write_bytes((made / "Brain-4shot.detector").read_bytes())
    absent = tmp_path / "absent.pt"
    with pytest.raises(UserError, match=r"x\.detector is left out: no weights at .*absent\.pt"):
        find_detectors(absent)
    with pytest.raises(UserError, match=r"^no weights at"):
        parse([str(path), "--clip_path", str(absent)])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nothing.detector"], "no detector nothing.detector"),
        (["--port", "70000"], "70000 is not at most 65535"),
        (["--max_mb", "0"], "0 is not at least 1"),
    ],
)
def test_mistakes_in_flags(flags, words):
    with pytest.raises(UserError, match=words):
        parse(flags)


def test_an_address_is_tried_before_anything_is_loaded():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        check_address("127.0.0.1", None)
        taken.listen()
        with pytest.raises(UserError, match=f"^127.0.0.1:{port} cannot be listened on, or is in"):
            parse(["--port", str(port)])
    check_address("127.0.0.1", port)
    for host in ("192.0.2.1", "no host", "a..b"):  # 192.0.2.0/24 belongs to no machine
        with pytest.raises(UserError, match=f"^{host} cannot be listened on"):
            check_address(host, None)


def test_app_names_the_file_that_installs_gradio(made, tiny_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"requirements-app\.txt"):
        app.main([str(made / "Brain-4shot.detector"), "--clip_path", str(tiny_path)])


def test_hosts_of_this_machine():
    detectors = (Path("x"),)
    assert not AppOptions(detectors, host="0.0.0.0").local
    assert AppOptions(detectors, host="::1").local
    assert [host_name(h) for h in (b"[::1]:80", b"localhost:7860", b"a.b")] == [
        "::1",
        "localhost",
        "a.b",
    ]


# -------------------------------------------------------------------- server


def interrupted() -> Path:
    """Return the folder of a program that was interrupted."""
    folder = Path()
    with suppress(KeyboardInterrupt), private_folder():
        folder = Path(tempfile.gettempdir())
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "scan.nii").write_bytes(b"x")
        raise KeyboardInterrupt
    return folder


def test_temporary_files_are_removed_whatever_happens():
    before = (tempfile.gettempdir(), os.environ.get("GRADIO_TEMP_DIR"))
    folder = interrupted()
    assert folder.name.startswith("mvfa-app-")
    assert not folder.exists()
    assert (tempfile.gettempdir(), os.environ.get("GRADIO_TEMP_DIR")) == before


def test_a_taken_port_is_one_line(options):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        elsewhere = AppOptions(options.detectors, port=port, clip_path=options.clip_path)
        with (
            pytest.raises(UserError, match=f"127.0.0.1:{port} .* choose another --port"),
            running(elsewhere),
        ):
            pass


def test_an_interrupt_ends_the_program_with_its_status(made, tiny_path):
    command = [sys.executable, "app.py", str(made / "Brain-4shot.detector")]
    with subprocess.Popen(
        [*command, "--clip_path", str(tiny_path), "--device", "cpu"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (output, errors) == ("", "\nstopped; uploaded files are removed\n")


def test_another_signal_has_its_own_status(options, monkeypatch, capsys):
    """Of a service manager, for example."""
    monkeypatch.setattr(app, "start", lambda _: options)
    monkeypatch.setattr(app, "running", lambda _: nullcontext("http://127.0.0.1:1"))
    monkeypatch.setattr(app, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        command(app.main)
    assert ended.value.code == 143
    assert capsys.readouterr().err == "\nstopped; uploaded files are removed\n"


class Connections:
    """The addresses that this process connects to while it listens; a hook cannot be removed."""

    def __init__(self) -> None:
        self.listening = True
        self.others: set[str] = set()
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple) -> None:
        if self.listening and event in ("socket.connect", "socket.getaddrinfo"):
            address = arguments[1] if event == "socket.connect" else arguments
            host = address[0] if isinstance(address, tuple) else address
            if host not in ("127.0.0.1", "localhost", "::1", None):
                self.others.add(str(host))


@pytest.fixture(scope="module")
def served(options):
    """Serve the page; yield its address and what the program connects to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_work, "KEPT_AFTER_CLOSING", 0.2)
        patch.setenv("GRADIO_HEARTBEAT_INTERVAL", "1")
        connections = Connections()
        with running(options) as address:
            folder = Path(tempfile.gettempdir())
            yield address, folder, connections
        connections.listening = False
    assert not folder.exists()


def test_a_name_that_leads_here_by_a_trick_is_refused(served):
    import httpx

    address, *_ = served
    assert address.startswith("http://127.0.0.1:")
    with httpx.Client(trust_env=False) as client:
        own = client.get(address)
        assert own.status_code == 200
        assert "default-src 'self'" in own.headers["content-security-policy"]
        assert client.get(address, headers={"Host": "evil.example"}).status_code == 403


def test_other_pages_and_too_much_at_once_are_refused_before_anything_is_stored(served):
    import httpx

    address, folder, _ = served
    before = set(folder.iterdir())
    with httpx.Client(trust_env=False, base_url=address) as client:

        def send(files, **headers):
            return client.post("gradio_api/upload", files=files, headers=headers).status_code

        one = [("files", ("a.png", b"x"))]
        for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example"):
            assert send(one, Origin=origin) == 403
        many = [("files", (f"{k}.png", bytes(900_000))) for k in range(20)]
        assert send(many) == 413
        assert set(folder.iterdir()) == before
        assert send(one, Origin=address.rstrip("/")) == 200
    (new,) = set(folder.iterdir()) - before
    assert [file.name for file in new.iterdir()] == ["a.png"]


# -------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def page(served, tmp_path_factory):
    """Open the page in a browser that resolves no name."""
    profile = tmp_path_factory.mktemp("profile")
    with browser(profile, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1") as driver:
        resize(driver, WIDTHS[0])
        driver.get(served[0])
        wait(driver, "document.querySelector('#files input[type=file]')")
        yield driver


def shown(driver, selector: str) -> bool:
    """Return whether an element is there and takes space."""
    rectangle = f"document.querySelector('{selector}')?.getClientRects().length"
    return bool(driver.execute_script(f"return {rectangle}"))


def text(driver, selector: str) -> str:
    return driver.find_element("css selector", selector).text


def source(driver, name: str) -> str:
    """Return the address of a picture; it names the picture's content."""
    return driver.find_element("css selector", f"#{name} img").get_attribute("src")


def facts(driver) -> dict[str, str]:
    """Return the label and the values of the verdict, once progress no longer covers it."""
    wait(driver, "!document.querySelector('#verdict .progress-text')")
    names = driver.find_elements("css selector", ".verdict dt")
    values = driver.find_elements("css selector", ".verdict dd")
    pairs = {n.text: v.text for n, v in zip(names, values, strict=True)}
    return {"label": text(driver, ".verdict .label"), **pairs}


def upload(driver, *paths: Path) -> None:
    """Drop files, in place of those that are there."""
    if shown(driver, "#files [aria-label=Clear]"):
        driver.find_element("css selector", "#files [aria-label=Clear]").click()
        wait(driver, "document.querySelector('#hint')?.getClientRects().length")
    field = driver.find_element("css selector", "#files input[type=file]")
    field.send_keys("\n".join(map(str, paths)))


def wait_for_name(driver, name: str) -> None:
    wait(
        driver,
        "document.querySelector('#verdict')?.getClientRects().length && "
        f"document.querySelector('.verdict .what')?.textContent.startsWith('{name}')",
    )
    wait(driver, "document.querySelector('#marked img')?.complete")


def choose(driver, field: str, title: str) -> None:
    """Choose from a list of choices."""
    driver.find_element("css selector", f"#{field} input").click()
    wait(driver, "document.querySelector('ul[role=listbox]')")
    driver.find_element("xpath", f"//ul[@role='listbox']//li[contains(., '{title}')]").click()


def loaded(made: Path, tiny_path: Path, name: str = "Brain-4shot") -> Detector:
    return Detector.load(made / f"{name}.detector", clip_path=tiny_path)


@needs_browser
def test_an_image_is_scored_as_python_scores_it(page, made, tiny_path):
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    expected = loaded(made, tiny_path)(made / "0.png")
    assert facts(page) == {
        "label": "abnormal" if expected.flagged else "normal",
        "score": f"{expected.score:.4f}",
        "threshold": f"{expected.threshold:.4f}",
        "p-value": f"{expected.p_value:.3g}",
        "rank": rank_words(*expected.rank),
    }
    before = source(page, "marked")
    with urlopen(before) as answer, Image.open(answer) as file:
        assert file.text == {"Comment": REMARK}
    upload(page, made / "1.png")
    wait_for_name(page, "1.png")
    assert facts(page)["score"] == f"{loaded(made, tiny_path)(made / '1.png').score:.4f}"
    wait(page, f"document.querySelector('#marked img').src !== '{before}'")
    assert not shown(page, "#slices")


@needs_browser
def test_the_threshold_changes_label_and_contour_at_once(page, made, tiny_path):
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    score = facts(page)["score"]
    bounds = [
        page.find_element("css selector", "#threshold input[type=range]").get_attribute(end)
        for end in ("min", "max")
    ]
    pictures = {source(page, "marked")}
    for value, label in zip(bounds, ("abnormal", "normal"), strict=True):
        started = time.perf_counter()
        page.execute_script(CHOOSE, "#threshold", value)
        wait(page, f"document.querySelector('.verdict .label').textContent === '{label}'")
        wait(page, f"!{sorted(pictures)}.includes(document.querySelector('#marked img').src)")
        assert time.perf_counter() - started < 5
        pictures.add(source(page, "marked"))
        assert facts(page)["score"] == score
        assert ("Nothing is above" in text(page, "#caption")) == (label == "normal")
    assert len(pictures) == 3
    page.find_element("xpath", "//*[@id='rule']//label[contains(., 'max')]").click()
    highest = loaded(made, tiny_path).set_threshold("max").value
    words = f"Threshold {highest:.6g} (max)"
    wait(page, f"document.querySelector('#about-rule').textContent.includes('{words}')")
    assert facts(page)["threshold"] == f"{highest:.4f}"
    field = page.find_element("css selector", "#threshold input[type=number]")
    assert float(field.get_attribute("value")) == pytest.approx(highest, abs=1e-5)


@needs_browser
def test_refused_rules_stand_there_with_their_reason(page, made):
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    choices = [e.text for e in page.find_elements("css selector", "#rule label")]
    assert choices == ["fpr=0.2", "max"]
    refused = text(page, "#about-rule")
    assert "fpr=0.05: 6 normals allow no false positive rate below 1/7" in refused
    assert "0 abnormals allow no sensitivity" in refused


@needs_browser
def test_another_detector_scores_the_same_files(page, made, tiny_path):
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    choose(page, "detector", "Chest")
    words = "document.querySelector('#caption').textContent.includes('no contour is drawn')"
    wait(page, words)
    expected = loaded(made, tiny_path, "Chest-4shot")(made / "0.png")
    assert facts(page)["score"] == f"{expected.score:.4f}"
    choose(page, "detector", "Brain")
    wait(page, f"!{words}")


@needs_browser
def test_a_choice_by_keyboard_is_scored_once(page, made, monkeypatch):
    from selenium.webdriver.common.keys import Keys

    scored = []

    def counted(workshop, shown_page, source, path, *more):
        scored.append(path.stem)
        return at_once(workshop, shown_page, source, path, *more)

    at_once = app_work.Workshop.score
    monkeypatch.setattr(app_work.Workshop, "score", counted)
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    field = page.find_element("css selector", "#detector input")
    for key, name in ((Keys.ARROW_DOWN, "Chest-4shot"), (Keys.ARROW_UP, "Brain-4shot")):
        field.click()
        wait(page, "document.querySelector('ul[role=listbox]')")
        for pressed in (key, Keys.ENTER, Keys.TAB):
            field.send_keys(pressed)
            time.sleep(0.3)  # the list draws itself anew after a key
        wait(page, f"document.querySelector('.verdict .what').textContent.includes('{name}')")
    time.sleep(1)
    assert scored == ["Brain-4shot", "Chest-4shot", "Brain-4shot"]


@needs_browser
def test_quick_changes_end_with_the_last_choice(page, made, tiny_path, monkeypatch):
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    scored = []

    def slowly(workshop, shown_page, source, path, *more):
        time.sleep(0.7)
        scored.append(path.stem)
        return at_once(workshop, shown_page, source, path, *more)

    at_once = app_work.Workshop.score
    monkeypatch.setattr(app_work.Workshop, "score", slowly)
    for title in ("Chest", "Brain"):
        choose(page, "detector", title)
    deadline = time.monotonic() + 10
    while scored[-1:] != ["Brain-4shot"] and time.monotonic() < deadline:
        time.sleep(0.1)
    wait(page, "!document.querySelector('#caption').textContent.includes('no contour is drawn')")
    expected = loaded(made, tiny_path, "Brain-4shot")(made / "0.png")
    assert facts(page)["score"] == f"{expected.score:.4f}"


@needs_browser
def test_a_volume_has_a_slider_and_the_score_of_each_slice(page, made, tiny_path):
    upload(page, made / "head.nii.gz")
    wait_for_name(page, "head.nii.gz")
    detector = loaded(made, tiny_path)
    images = load(Source(made, ("head.nii.gz",), VOLUME), reading(detector)).images
    scores = [detector(image).score for image in images]
    best = int(np.argmax(scores))
    assert facts(page)["score"] == f"{max(scores):.4f}"
    assert f"slice {best}:" in text(page, "#caption")
    bars = page.find_elements("css selector", "#bars [data-slice]")
    assert [bar.get_attribute("title") for bar in bars] == [
        f"slice {k}: {score:.4f}" for k, score in enumerate(scores)
    ]
    seen = {source(page, "image")}
    others = [k for k in range(SLICES) if k != best]
    page.execute_script(CHOOSE, "#slices", others[0])
    caption = "document.querySelector('#caption').textContent"
    wait(page, f"{caption}.includes('slice {others[0]}:')")
    assert f"score {scores[others[0]]:.4f}" in text(page, "#caption")
    wait(page, f"document.querySelector('#image img').src !== '{seen.pop()}'")
    assert facts(page)["score"] == f"{max(scores):.4f}"  # of the volume
    page.execute_script("arguments[0].click()", bars[others[1]])
    wait(page, f"{caption}.includes('slice {others[1]}:')")
    field = page.find_element("css selector", "#slices input[type=number]")
    assert int(field.get_attribute("value")) == others[1]


@needs_browser
def test_another_choice_stops_what_is_scored(page, made, monkeypatch):
    scored = []

    def slowly(detector, images):
        for part in at_once(detector, images):
            time.sleep(0.5)
            scored.append(detector.settings.masks)
            yield part

    at_once = app_case.score_slices
    monkeypatch.setattr(app_case, "AT_ONCE", 1)
    monkeypatch.setattr(app_work, "score_slices", slowly)
    upload(page, made / "head.nii.gz")
    deadline = time.monotonic() + 20
    while not scored and time.monotonic() < deadline:
        time.sleep(0.05)
    choose(page, "detector", "Chest")
    wait(page, "document.querySelector('.verdict .what')?.textContent.includes('Chest-4shot;')")
    assert 1 <= scored.count(True) < SLICES
    assert scored.count(False) == SLICES
    choose(page, "detector", "Brain")
    wait(page, "document.querySelector('.verdict .what')?.textContent.includes('Brain-4shot;')")


@needs_browser
def test_several_images_are_chosen_from(page, made):
    upload(page, made / "0.png", made / "1.png")
    wait_for_name(page, "0.png")
    choose(page, "found", "1.png")
    wait_for_name(page, "1.png")
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    assert not shown(page, "#found")


@needs_browser
@pytest.mark.parametrize("another", [False, True])
def test_a_result_that_comes_late_is_not_shown(page, made, monkeypatch, another):
    drawn = []

    def slowly(events, case):
        updates = at_once(events, case)
        drawn.append(case)
        time.sleep(1)
        return updates

    at_once = app_page.Events.new
    monkeypatch.setattr(app_page.Events, "new", slowly)
    upload(page, made / "0.png")
    deadline = time.monotonic() + 20
    while not drawn and time.monotonic() < deadline:
        time.sleep(0.02)
    page.find_element("css selector", "#files [aria-label=Clear]").click()
    if another:
        wait(page, "document.querySelector('#files input[type=file]')")
        upload(page, made / "1.png")
        wait_for_name(page, "1.png")
    time.sleep(2)
    assert shown(page, "#results") == another
    assert shown(page, "#hint") != another
    assert not another or text(page, ".verdict .what").startswith("1.png")


@needs_browser
def test_a_broken_file_is_one_line_and_the_page_goes_on(page, made):
    upload(page, made / "broken.png")
    wait(page, "document.querySelector('.problem')")
    line = text(page, ".problem")
    assert line.startswith("broken.png is not a readable image (")
    assert "Traceback" not in page.page_source
    assert not shown(page, "#results")
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    assert not shown(page, ".problem")


@needs_browser
def test_a_file_above_the_bound_is_refused(page, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(1_200_000))
    upload(page, large)
    words = "exceed the maximum allowed size of 1.0 Mb"
    wait(page, f"document.querySelector('.toast-body')?.textContent.includes('{words}')")


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["0.png", "head.nii.gz"])
def test_the_page_fits_the_window(page, made, width, name):
    upload(page, made / name)
    wait_for_name(page, name)
    resize(page, width)
    wait(page, f"innerWidth === {width}")
    wait(page, "document.documentElement.scrollWidth <= innerWidth")
    outside = (
        "return [...document.querySelectorAll('#main *')].filter(e => e.getClientRects().length &&"
        " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert page.execute_script(outside) == []
    for picture in ("image", "marked"):
        box = page.find_element("css selector", f"#{picture} img").rect
        assert box["width"] >= 280  # an image of 80 x 60 pixels, or of 40 x 40
    picture = page.find_element("css selector", "#marked img")
    page.execute_script("arguments[0].scrollIntoView({block: 'end'})", picture)
    disclaimer = page.find_element("css selector", "#disclaimer")
    assert "not a medical device" in disclaimer.text
    place = "return arguments[0].getBoundingClientRect().top"
    assert page.execute_script(place, disclaimer) >= 0  # it stays when the rest is scrolled
    page.execute_script("window.scrollTo(0, 0)")
    resize(page, WIDTHS[0])


@needs_browser
def test_pages_leave_nothing_and_ask_nothing_of_the_network(page, served, made):
    """Runs last: it closes the page."""
    address, folder, connections = served
    upload(page, made / "head.nii.gz")
    wait_for_name(page, "head.nii.gz")
    assert list(folder.rglob("head.nii.gz"))
    names = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert len(names) > 10
    assert [n for n in names if not n.startswith((address, "data:", "blob:"))] == []
    said = [entry["message"] for entry in page.get_log("browser")]
    assert not [line for line in said if "Security Policy" in line or "net::ERR" in line]
    upload(page, made / "0.png")
    wait_for_name(page, "0.png")
    assert not list(folder.rglob("head.nii.gz"))
    assert list(folder.rglob("0.png"))
    page.get("about:blank")
    until = time.monotonic() + 30
    while list(folder.rglob("0.png")) and time.monotonic() < until:
        time.sleep(0.2)
    assert not list(folder.rglob("0.png"))
    assert connections.others == set()


def test_where_no_file_is_left_a_result_drawn_late_is_hidden_again(options, tmp_path):
    """Requests are answered one by one, but what they draw may arrive after a later answer."""
    import gradio

    workshop = app_work.Workshop(options)
    with gradio.Blocks():
        fields = app_layout.Fields(options.detectors, options.max_mb)
    events = app_page.Events(fields, workshop)
    request = SimpleNamespace(session_hash="a")
    (tmp_path / "letter.txt").write_text("words")
    taken = events.take([str(tmp_path / "letter.txt")], request)
    values = dict(zip(fields.reading(), app_reading.Entered(), strict=True))
    values |= {fields.found: None, fields.detector: str(options.detectors[0])}
    scored = events.score(values, request)
    assert "nothing to show" in scored[fields.problem]
    for updates in (taken, scored):
        assert updates[fields.problem] == scored[fields.problem]
        assert updates[fields.hint]["visible"]
        assert not any(updates[column]["visible"] for column in fields.columns())
    workshop.close()


def test_scores_are_those_of_another_thread(options, made, tiny_path):
    """The network's thread has settings of its own."""
    workshop = app_work.Workshop(options)
    page = workshop.pages["a"]
    page.uploads.sources = [Source(made, ("0.png",), "image")]
    case = workshop.score(
        page, page.uploads.sources[0], options.detectors[0], reading, lambda *_: None
    )
    assert case is page.case
    assert case.shown.score == loaded(made, tiny_path)(made / "0.png").score
    workshop.close()


def test_where_scoring_again_fails_the_earlier_result_goes(options, made):
    workshop = app_work.Workshop(options)
    page = workshop.pages["a"]
    image = Source(made, ("0.png",), "image")
    arguments = (page, image, options.detectors[0])
    during = []

    def report(*_: object) -> None:
        during.append(page.case)

    first = workshop.score(*arguments, reading, report)
    assert first is not None
    del during[:]
    with pytest.raises(UserError, match="allowed is"):
        workshop.score(*arguments, lambda d: reading(d, slices="x"), report)
    assert during
    assert all(case is first for case in during)  # sliders work until there is another result
    assert page.case is None
    workshop.close()


def test_a_scan_of_too_many_values_is_not_read(options, made):
    workshop = app_work.Workshop(options)
    page = workshop.pages["a"]
    page.uploads.limits = replace(page.uploads.limits, values=1000)
    scan = Source(made, ("head.nii.gz",), VOLUME)
    with pytest.raises(UserError, match=f"has {SLICES * 1600} values; at most 1000"):
        workshop.score(page, scan, options.detectors[0], reading, lambda *_: None)
    workshop.close()


def test_work_that_nobody_waits_for_stops(options, made):
    workshop = app_work.Workshop(options)
    page = workshop.pages["a"]
    scan = Source(made, ("head.nii.gz",), VOLUME)
    reports = []

    def replaced(*report: object) -> None:
        reports.append(report)
        if report[0] == "scoring":
            page.begin()

    assert workshop.score(page, scan, options.detectors[0], reading, replaced) is None
    assert page.case is None
    assert [report[0] for report in reports].count("scoring") == 1
    workshop.close()


def test_a_page_that_comes_back_is_kept(options, monkeypatch):
    monkeypatch.setattr(app_work, "KEPT_AFTER_CLOSING", 0.1)
    pages = app_work.Workshop(options).pages
    first = pages["a"]
    pages.close("a")
    assert pages["a"] is first
    time.sleep(0.3)
    assert pages["a"] is first
    pages.close("a")
    time.sleep(0.3)
    assert pages["a"] is not first
