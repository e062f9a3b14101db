"""The work behind the page: detectors that are loaded when they are asked for, and open pages.

What belongs to one page (its files, the scored case) is kept here under the page's name. It is
removed some minutes after the page was closed, or when the program ends.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock, Timer
from typing import TypeVar

from errors import UserError
from mvfa.accelerator import choose_device
from mvfa.detector import Detector
from mvfa.detector_result import Result
from prediction.app_case import Case, make_case, read_source, score_slices
from prediction.app_options import AppOptions
from prediction.app_upload import Limits, Uploads, check_size
from prediction.discovery import Source
from prediction.reading import Reading

KEPT_AFTER_CLOSING = 600.0  # seconds, since a connection may be lost and come back

T = TypeVar("T")
Report = Callable[[str, int, int], None]  # what is done, and how many of how many


class Page:
    """What belongs to one open page."""

    def __init__(self, limits: Limits) -> None:
        self.uploads = Uploads(limits)
        self.case: Case | None = None
        self.asked: object = None  # for what, with which detector and settings
        self.scored: object = None  # what the case is of
        self.problem = ""  # why the last thing that was asked for failed
        self.turn = 0  # counts what was asked for, so that work nobody waits for stops
        self.closing: Timer | None = None

    def begin(self) -> int:
        """Stop what is being scored for the page; return the number of a new turn."""
        self.turn += 1
        return self.turn


class Pages:
    """The open pages, by name."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pages: dict[str, Page] = {}
        self._lock = Lock()

    def __getitem__(self, name: str) -> Page:
        """Return a page, new ones empty; it is in use again if it was about to be removed."""
        with self._lock:
            page = self._pages.setdefault(name, Page(self._limits))
            if page.closing is not None:
                page.closing.cancel()
                page.closing = None
            return page

    def close(self, name: str) -> None:
        """Remove a page some time from now, unless it is used again."""
        with self._lock:
            page = self._pages.get(name)
            if page is not None and page.closing is None:
                page.turn += 1
                page.closing = Timer(KEPT_AFTER_CLOSING, partial(self.remove, name))
                page.closing.daemon = True
                page.closing.start()

    def remove(self, name: str) -> None:
        """Remove a page and its files."""
        with self._lock:
            page = self._pages.pop(name, None)
        if page is not None:
            page.begin()
            page.uploads.forget()

    def remove_all(self) -> None:
        """Remove every page."""
        for name in list(self._pages):
            self.remove(name)


class Workshop:
    """Loads detectors and scores with them, in one thread.

    The network runs in a thread of its own, since settings of the processor, which belong to
    threads, decide the last bit of a score (mvfa/memory.py). One detector is loaded at a time.
    """

    def __init__(self, options: AppOptions) -> None:
        self.options = options
        self.pages = Pages(Limits.of(options.max_mb))
        self._thread = ThreadPoolExecutor(1, "network")
        self._loaded: tuple[Path, Detector] | None = None

    def run(self, work: Callable[[], T]) -> T:
        """Run work in the network's thread."""
        return self._thread.submit(work).result()

    def detector(self, path: Path) -> Detector:
        """Return a detector, loaded. Raises UserError."""
        return self.run(partial(self._load, path))

    def _load(self, path: Path) -> Detector:
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None  # its memory is free before the next one is loaded
            detector = Detector.load(
                path,
                clip_path=self.options.clip_path,
                device=choose_device(self.options.device),
                precision=self.options.precision,
            )
            self._loaded = (path, detector)
        return self._loaded[1]

    def score(
        self,
        page: Page,
        source: Source,
        path: Path,
        reading: Callable[[Detector], Reading],
        report: Report,
    ) -> Case | None:
        """Score a source with a detector; None if the page asked for something else meanwhile.

        The case becomes the page's. Raises UserError.
        """
        turn = page.begin()
        try:
            case = self._score(page, turn, source, path, reading, report)
        except Exception as error:
            if page.turn == turn:
                page.case = None  # what was scored before, with other settings, is not shown
                raise
            if isinstance(error, UserError):
                return None  # its files are gone, since others took their place
            raise
        if page.turn != turn:
            return None
        page.case = case
        return case

    def _score(
        self,
        page: Page,
        turn: int,
        source: Source,
        path: Path,
        reading: Callable[[Detector], Reading],
        report: Report,
    ) -> Case | None:
        report("loading the detector", 0, 1)
        detector = self.detector(path)
        how = reading(detector)
        report("reading", 0, 1)
        check_size(source, page.uploads.limits)
        loaded = read_source(source, how)
        results: list[Result] = []
        parts = score_slices(detector, loaded.images)
        while len(results) < len(loaded.images):
            report("scoring", len(results), len(loaded.images))
            results += self.run(partial(next, parts))
            if page.turn != turn:
                return None
        return make_case(source, loaded, results, detector, path.stem, how)

    def close(self) -> None:
        """Remove the files of every page, and let the thread end."""
        self.pages.remove_all()
        self._thread.shutdown(wait=False, cancel_futures=True)


def chosen(sources: Sequence[Source], name: str | None) -> Source:
    """Return the source of a name, else the first."""
    return next((source for source in sources if source.name == name), sources[0])
