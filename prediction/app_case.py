"""One scored image or scan on the page: what follows from a threshold and a slice, without a score.

Letters: S side of a map, H and W of an image, in pixels; t a threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from PIL import Image, ImageDraw

from errors import UserError
from mvfa.calibration import Calibration, default_rule, threshold
from mvfa.detector import Detector
from mvfa.detector_result import Result
from mvfa.thresholds import Threshold
from prediction.discovery import Source
from prediction.outputs import REMARK
from prediction.reading import Loaded, Reading, load
from prediction.run import result_row, volume_row

RULES = ("fpr=0.05", "fpr=0.1", "fpr=0.2", "sens=0.95", "sens=0.9", "f1", "max")
SHOWN_SIDE = (512, 1024)  # the longer side of what is drawn, least and most pixels
BOX_COLOUR = (255, 255, 255)
BOX_WIDTH = 2  # pixels, outside the box
AT_ONCE = 8  # slices between two reports of progress
MARGIN = 0.05  # of the range of scores, beyond either end of the slider
STEPS = 1000  # of the slider


@dataclass(frozen=True, eq=False)
class Case:
    """An image or a scan, its results, and what is shown of it.

    Args:
        name: of its file.
        detector: name of what scored it.
        results: one for an image, one for each scored slice of a volume.
        numbers: the slices' numbers, from 0; None for an image.
        notes: what is to be said about it.
        calibration: of the detector.
        rule: the threshold.
        at: which result is shown.

    """

    name: str
    detector: str
    results: tuple[Result, ...]
    numbers: tuple[int, ...] | None
    notes: tuple[str, ...]
    calibration: Calibration
    rule: Threshold
    at: int = 0

    @property
    def shown(self) -> Result:
        """The result that is shown."""
        return self.results[self.at]

    @property
    def best(self) -> int:
        """Which result has the highest score; the first of equals."""
        return max(range(len(self.results)), key=lambda k: self.results[k].score)

    @cached_property
    def scores(self) -> list[float]:
        """The score of each result."""
        return [result.score for result in self.results]

    def row(self) -> dict[str, Any]:
        """Return the columns of scores.csv of the result that is shown."""
        return result_row(self.shown, self.calibration)

    def volume(self) -> dict[str, Any]:
        """Return the columns of scores.csv of the whole volume: those of its highest slice."""
        return volume_row([result_row(self.results[self.best], self.calibration)], self.calibration)

    def with_rule(self, rule: str) -> "Case":
        """Return the case with another threshold; nothing is scored. Raises UserError."""
        chosen = threshold(rule, self.calibration)
        results = tuple(replace(result, threshold=chosen.value) for result in self.results)
        return replace(self, rule=chosen, results=results)

    def with_slice(self, number: int) -> "Case":
        """Return the case with another slice: the scored one that is nearest to a number."""
        assert self.numbers is not None
        numbers = self.numbers
        return replace(self, at=min(range(len(numbers)), key=lambda k: abs(numbers[k] - number)))

    def range(self) -> tuple[float, float]:
        """Return a range that holds every score that is known, and some more at either end."""
        known = [*self.calibration.normal_scores, *self.calibration.abnormal_scores, *self.scores]
        low = float(min(known))
        high = float(max(known))
        margin = MARGIN * (high - low) or 0.5
        return low - margin, high + margin


def refused_rules(calibration: Calibration) -> dict[str, str]:
    """Return why some of RULES cannot be used with a calibration."""
    reasons = {}
    for rule in RULES:
        try:
            threshold(rule, calibration)
        except UserError as error:
            reasons[rule] = str(error)
    return reasons


# -------------------------------------------------------------------- scoring


def read_source(source: Source, reading: Reading) -> Loaded:
    """Read a source. Raises UserError, also where it does not fit in memory."""
    try:
        return load(source, reading)
    except MemoryError as error:
        raise UserError(
            f"{source.name} does not fit in memory; choose fewer slices or a smaller image"
        ) from error


def score_slices(detector: Detector, images: Sequence[Image.Image]) -> Iterator[list[Result]]:
    """Yield the results of some images at a time."""
    for first in range(0, len(images), AT_ONCE):
        yield detector.results(images[first : first + AT_ONCE])


def make_case(
    source: Source,
    loaded: Loaded,
    results: Sequence[Result],
    detector: Detector,
    name: str,
    reading: Reading,
) -> Case:
    """Return the case of a scored source, at its highest slice and with the default threshold.

    `name` is the detector's.
    """
    calibration = detector.calibration
    assert calibration is not None
    notes = list(loaded.notes)
    if loaded.wide and (loaded.volume is None or reading.prepare == "none"):
        how = reading.intensity.words(dicom=True) if reading.window is None else "by the window"
        notes.insert(0, f"more than 8 bit: scaled {how}")
    case = Case(
        source.name,
        name,
        tuple(results),
        None if loaded.numbers is None else tuple(loaded.numbers),
        tuple(notes),
        calibration,
        threshold(default_rule(calibration)[0], calibration),
    )
    return replace(case, at=case.best).with_rule(case.rule.rule)


# -------------------------------------------------------------------- pictures


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (W, H) that an image is drawn at: small ones larger, large ones smaller."""
    longer = max(size)
    least, most = SHOWN_SIDE
    scale = min(max(longer, least), most) / longer
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def picture(result: Result) -> Image.Image:
    """Return the scored image as it is shown."""
    return result.image.resize(shown_size(result.image.size), Image.Resampling.BICUBIC)


def marked_picture(result: Result) -> Image.Image:
    """Return the image with its map over it, and the contour and boxes of what is above t.

    A file that it is downloaded to says in its comment that it is for research only.
    """
    image = picture(result)
    enlarged = replace(result, image=image)
    marked = enlarged.overlay()
    draw = ImageDraw.Draw(marked)
    for box in enlarged.boxes:
        left = max(box.left - BOX_WIDTH, 0)
        top = max(box.top - BOX_WIDTH, 0)
        right = min(box.right + BOX_WIDTH, marked.width) - 1
        bottom = min(box.bottom + BOX_WIDTH, marked.height) - 1
        draw.rectangle((left, top, right, bottom), outline=BOX_COLOUR, width=BOX_WIDTH)
    marked.info["Comment"] = REMARK
    return marked
