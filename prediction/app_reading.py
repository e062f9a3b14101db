"""How files are read, as the page's fields say it."""

from collections.abc import Callable
from math import isfinite
from typing import NamedTuple, TypeVar

from errors import UserError
from mvfa.detector import Detector
from prediction.options import span
from prediction.reading import Reading

DETECTORS_OWN = "the detector's"  # preparation
AUTOMATIC = "by the file"  # axis

T = TypeVar("T")


class Entered(NamedTuple):
    """What was chosen and typed: values of predict.py's flags, "" or None where nothing was."""

    prepare: str = DETECTORS_OWN
    axis: str = AUTOMATIC
    window: str | None = ""
    volume: str | None = ""
    slices: str | None = ""


def reading_of(entered: Entered, detector: Detector) -> Reading:
    """Return how files are read for a detector. Raises UserError for values that cannot be."""
    own = entered.prepare == DETECTORS_OWN
    return Reading(
        intensity=detector.settings.intensity,
        window=converted(entered.window, window, "--window", "CENTRE WIDTH, such as 40 400"),
        prepare=detector.settings.prepare if own else entered.prepare,
        liver_mask=None,
        axis=None if entered.axis == AUTOMATIC else entered.axis,
        index=converted(entered.volume, index, "--volume", "a whole number from 0"),
        slices=converted(entered.slices, span, "--slices", "FIRST:LAST from 0, such as 40:60"),
    )


def converted(text: str | None, convert: Callable[[str], T], flag: str, allowed: str) -> T | None:
    """Return what text says; None for no text. Raises UserError."""
    text = (text or "").strip()
    if not text:
        return None
    try:
        return convert(text)
    except ValueError as error:
        raise UserError(f"{flag} {text}: allowed is {allowed}") from error


def index(text: str) -> int:
    """Convert the number of a volume. Raises ValueError."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def window(text: str) -> tuple[float, float]:
    """Convert centre and width of a window to its low and high end. Raises ValueError."""
    centre, width = map(float, text.replace(",", " ").split())
    if not (isfinite(centre) and isfinite(width) and width > 0):
        raise ValueError(text)
    from dataset.dicom import window_range

    return window_range(centre, width)
