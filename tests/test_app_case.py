"""A scored image or scan: thresholds and slices change what is shown, and score nothing."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import UserError
from mvfa.calibration import Calibration
from mvfa.thresholds import threshold
from prediction import app_text
from prediction.app_case import Case, make_case, marked_picture, picture, refused_rules, shown_size
from prediction.app_reading import Entered, reading_of
from prediction.discovery import IMAGE, Source
from prediction.finish import OF_SLICES
from prediction.reading import Loaded
from tests.detectors import random_detector, random_images

NASTY = "<script>alert(1)</script>.png"


@pytest.fixture(scope="module")
def detector(tiny_path):
    return random_detector(tiny_path)


def images(count: int) -> list[Image.Image]:
    tensors = random_images(count, 32, seed=9)
    return [Image.fromarray(t.permute(1, 2, 0).numpy()).resize((80, 60)) for t in tensors]


def reading(detector, **more):
    return reading_of(Entered(**more), detector)


def case_of(detector, count: int, *, volume: bool = False) -> Case:
    pictures = images(count)
    numbers = list(range(3, 3 + 2 * count, 2)) if volume else None
    loaded = Loaded(pictures, numbers, notes=("a <note>",))
    source = Source(Path(), (NASTY,), IMAGE)
    results = detector.results(pictures)
    return make_case(source, loaded, results, detector, "Brain-4shot", reading(detector))


class Text(HTMLParser):
    """Collects text and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, _: list) -> None:
        self.tags.append(tag)


def test_a_threshold_changes_label_contour_and_boxes_but_no_score(detector, monkeypatch):
    case = case_of(detector, 1)
    score = case.shown.score
    assert score == detector(images(1)[0]).score
    monkeypatch.setattr(detector, "patch_values", None)
    low = case.with_rule(str(score - 0.1))
    high = case.with_rule(str(score + 0.1))
    assert (low.shown.score, high.shown.score) == (score, score)
    assert (low.shown.flagged, high.shown.flagged) == (True, False)
    assert low.shown.boxes
    assert not high.shown.boxes
    assert ">abnormal<" in app_text.verdict(low)
    assert ">normal<" in app_text.verdict(high)
    assert "Nothing is above the threshold" in app_text.caption(high)
    orange = np.all(np.asarray(marked_picture(low.shown)) == (255, 140, 0), axis=-1)
    assert orange.any()
    above = np.all(np.asarray(marked_picture(high.shown)) == (255, 140, 0), axis=-1)
    assert not above.any()


def test_boxes_are_of_the_image_and_drawn_on_the_picture(detector):
    case = case_of(detector, 1).with_rule("-100")
    (box,) = case.shown.boxes
    assert box == (0, 0, 80, 60)
    drawn = np.asarray(marked_picture(case.shown))
    assert drawn.shape == (384, 512, 3)
    assert (drawn[[0, -1]] == 255).all()
    assert (drawn[:, [0, -1]] == 255).all()
    assert "0:80, 0:60" in app_text.caption(case)


def test_a_volume_starts_at_its_highest_slice(detector):
    case = case_of(detector, 6, volume=True)
    scores = [detector(image).score for image in images(6)]
    assert case.scores == scores
    assert case.at == int(np.argmax(scores))
    assert case.numbers == (3, 5, 7, 9, 11, 13)
    assert case.volume()["score"] == max(scores)
    assert case.volume()["p_value"] == ""  # the calibration's scores are of images
    assert "none: the calibration" in app_text.verdict(case)
    other = case.with_slice(8)
    assert other.at in (2, 3)
    assert other.with_slice(100).at == 5
    assert f"slice {other.numbers[other.at]}:" in app_text.caption(other)
    assert app_text.bars(case).count("data-slice") == 6
    assert "scored by Brain-4shot; highest of 6 slices: slice" in app_text.verdict(case)
    assert "; one slice: slice 3" in app_text.verdict(case_of(detector, 1, volume=True))
    assert OF_SLICES in app_text.remarks(case)
    assert OF_SLICES not in app_text.remarks(case_of(detector, 1))
    assert app_text.bars(case_of(detector, 1)) == ""


def test_a_volume_has_a_p_value_where_scores_are_of_cases(detector):
    case = case_of(detector, 3, volume=True)
    by_case = replace(case, calibration=replace(case.calibration, by="case"))
    best = detector(images(3)[case.best])
    assert by_case.volume()["p_value"] == best.p_value
    assert f"{best.p_value:.3g}" in app_text.verdict(by_case)
    assert OF_SLICES not in app_text.remarks(by_case)


def test_slices_with_several_scores_have_bars_of_their_height(detector):
    case = case_of(detector, 3, volume=True).with_rule("-100")
    heights = [float(part.split("%")[0]) for part in app_text.bars(case).split("height:")[1:]]
    assert np.argsort(heights).tolist() == np.argsort(case.scores).tolist()
    assert app_text.bars(case).count('class="high') == 3
    assert app_text.bars(case.with_rule("100")).count('class="high') == 0


def test_names_and_notes_are_text(detector):
    case = case_of(detector, 2, volume=True)
    for part in (app_text.verdict, app_text.caption, app_text.bars, app_text.remarks):
        assert "script" not in Text(part(case)).tags
        assert "note" not in Text(part(case)).tags
    assert NASTY in "".join(Text(app_text.verdict(case)).words)
    assert "a <note>" in Text(app_text.remarks(case)).words
    assert Text(app_text.problem(NASTY)).words == [NASTY]


def calibration(normal: int, abnormal: int) -> Calibration:
    scores = np.linspace(0, 1, normal + abnormal, dtype=np.float32)
    return Calibration(
        source="normals",
        names_sha256="0" * 64,
        text=(0.0, 1.0),
        memory=None,
        normal_scores=scores[:normal],
        abnormal_scores=scores[normal:],
        by="image",
        selection_used_it=False,
    )


def test_refused_rules_are_shown_with_the_reason(detector):
    reasons = refused_rules(calibration(4, 0))
    assert set(reasons) == {"fpr=0.05", "fpr=0.1", "sens=0.95", "sens=0.9", "f1"}
    assert "4 normals allow no false positive rate below 1/5 = 0.2" in reasons["fpr=0.05"]
    assert refused_rules(calibration(40, 40)) == {}
    case = replace(case_of(detector, 1), calibration=calibration(4, 0))
    case = case.with_rule("max")
    assert "1/5 = 0.2" in app_text.rule_words(case)
    assert threshold("max", *2 * [case.calibration.normal_scores]).sentences[0] in (
        app_text.rule_words(case)
    )


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((80, 60), (512, 384)),
        ((600, 300), (600, 300)),
        ((4000, 10), (1024, 3)),
        ((1, 1), (512, 512)),
    ],
)
def test_small_images_are_enlarged_and_large_ones_reduced(size, shown):
    assert shown_size(size) == shown


def test_pictures_are_drawn_at_their_shown_size(detector):
    case = case_of(detector, 1)
    assert picture(case.shown).size == marked_picture(case.shown).size == (512, 384)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        *(
            ("window", text)
            for text in ("40", "40 0", "40 -1", "a b", "40 400 2", "nan 3", "1 inf")
        ),
        *(("volume", text) for text in ("1.5", "-1", "x")),
        *(("slices", text) for text in ("5", "9:2", "-1:2")),
    ],
)
def test_what_cannot_be_is_one_line(detector, flag, text):
    with pytest.raises(UserError, match=f"^--{flag} {text}: allowed is"):
        reading(detector, **{flag: text})


def test_reading_takes_what_was_entered(detector):
    made = reading(
        detector, volume="2", window="40, 400", slices=" 3:7 ", prepare="Brain", axis="coronal"
    )
    assert (made.index, made.slices, made.prepare, made.axis) == (2, (3, 7), "Brain", "coronal")
    low, high = made.window
    assert (low + high) / 2 == pytest.approx(40, abs=1)
    assert high - low == pytest.approx(400, abs=1)
    plain = reading(detector)
    assert (plain.index, plain.slices, plain.window, plain.axis) == (None, None, None, None)
    assert plain.prepare == "none"
