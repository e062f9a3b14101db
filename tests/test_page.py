"""index.html of predict.py: the card of a volume, and a page that fits wide and narrow windows."""

import re

import pytest
from PIL import Image

from prediction.page import BASE, DISCLAIMER, slice_plot, summarise, write_page
from tests.browser import browser, needs_browser, resize

THRESHOLD = 0.5
SCORES = (0.25, 0.75, 0.5, 1.25)  # of slices 3 to 6; a score that equals the threshold is normal


def scored(score: float, **more) -> dict:
    label = "abnormal" if score > THRESHOLD else "normal"
    return {
        "score": score,
        "p_value": 0.25,
        "normals_below": 3,
        "normals": 3,
        "label": label,
        "threshold": THRESHOLD,
        **more,
    }


def volume(name: str = "head.nii.gz") -> dict:
    rows = [scored(score, slice=k) for k, score in enumerate(SCORES, 3)]
    whole = scored(max(SCORES), slice="", p_value="", normals_below="", normals="")
    return {"name": name, "rows": [*rows, whole], "notes": ["a note"]}


def image(name: str, score: float) -> dict:
    return {"name": name, "rows": [scored(score)]}


def page_of(folder, *records) -> str:
    for record in records:
        picture = folder / "overlays" / f"{record['name']}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), "teal").save(picture)
    facts = {"Detector": "Brain-4shot.detector", "Threshold": "0.5 is a number"}
    path = write_page(
        folder, summarise(records), title="Anomaly scores: Brain", facts=facts, remarks=["<one>"]
    )
    return path.read_text()


def test_slices_are_bars_by_label():
    plot = slice_plot(volume())
    assert (plot["count"], plot["flagged"], plot["highest"], plot["ends"]) == (4, 2, 6, (3, 6))
    bars = {
        int(start): (label, int(height))
        for label, path in plot["paths"].items()
        for start, height in re.findall(r"M(\d+) 100v-(\d+)h1V100", path)
    }
    height = {score: BASE + (100 - BASE) * (score - 0.25) for score in SCORES}
    assert bars == {
        0: ("normal", BASE),
        1: ("abnormal", round(height[0.75])),
        2: ("normal", round(height[0.5])),
        3: ("abnormal", 100),
    }
    assert float(plot["threshold"]) == pytest.approx(100 - height[THRESHOLD], abs=0.05)


def test_equal_scores_have_a_plot_and_an_image_has_none():
    same = {"name": "x", "rows": [scored(THRESHOLD, slice=0), scored(THRESHOLD, slice="")]}
    assert slice_plot(same)["paths"] == {"normal": f"M0 100v-{BASE}h1V100", "abnormal": ""}
    assert slice_plot(image("x.png", 1.0)) is None


def test_a_volume_says_which_slice_is_shown_and_why_it_has_no_p_value(tmp_path):
    text = " ".join(page_of(tmp_path, volume(), image("<i>.png", 0.75)).split())
    assert DISCLAIMER in text
    assert "shown: slice 6, the highest of 4; 2 above the threshold; no p-value, since" in text
    assert text.count("<svg") == 1
    assert "p 0.25" in text
    assert "&lt;i&gt;.png" in text
    assert "<i>.png" not in text


@needs_browser
def test_the_page_fits_the_window_and_the_disclaimer_stays(tmp_path):
    several = [image(f"{'long' * 30}{k}.png", k / 10) for k in range(12)]
    page_of(tmp_path, volume("a/" + "head" * 20 + ".nii.gz"), *several)
    place = "return document.querySelector('.warning').getBoundingClientRect().top"
    with browser(tmp_path / "profile") as driver:
        for width in (1400, 390):
            resize(driver, width)
            driver.get((tmp_path / "index.html").as_uri())
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            plot = driver.find_element("css selector", "svg.slices").rect
            assert plot["width"] > 100
            assert plot["height"] > 40
            driver.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
            assert driver.execute_script("return scrollY") > 0
            assert driver.execute_script(place) >= 0
