"""The run of predict.py: read ahead, score, write, record; failures are listed, not fatal."""

import errno
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from errors import UserError
from mvfa.calibration import Calibration, display, probability
from mvfa.console import note, progress
from mvfa.detector import Detector, PatchValues
from mvfa.detector_result import Result
from mvfa.distributed import World
from mvfa.side_by_side import SideBySide
from prediction.discovery import IMAGE, Source
from prediction.options import PredictOptions
from prediction.outputs import write_outputs
from prediction.reading import Loaded, Reading, load
from prediction.records import SOURCE, Log, Record, fingerprint

BATCH = 16  # images read and written together
SAID = 10  # failures that are said one by one
THREADS = 2  # that read and write beside the network
TOO_LONG = "{} has a name that is too long for those of its overlay and map; give it a shorter one"
HERE = World()

T = TypeVar("T")


def ahead(pool: ThreadPoolExecutor, work: Iterable[Callable[[], T]], depth: int) -> Iterator[T]:
    """Yield the results of calls in order, while up to `depth` later ones are under way."""
    waiting: deque[Future[T]] = deque()
    calls = iter(work)
    for call in islice(calls, depth):
        waiting.append(pool.submit(call))
    while waiting:
        done = waiting.popleft()
        for call in islice(calls, 1):
            waiting.append(pool.submit(call))
        yield done.result()


def read(source: Source, reading: Reading) -> tuple[Source, Loaded | str]:
    """Read a source; return why instead if it cannot be read."""
    try:
        before = fingerprint(source.evidence)
        return source, replace(load(source, reading), fingerprint=before)
    except UserError as error:
        return source, str(error)
    except MemoryError:
        return source, f"{source.name} does not fit in memory; choose --slices, or leave it out"
    except Exception as error:  # noqa: BLE001  # a bug with one file must not cost the others
        traceback.print_exc()
        return source, f"unexpected {type(error).__name__}: {error}".split("\n")[0]


def result_row(result: Result, calibration: Calibration) -> dict[str, Any]:
    """Return the columns of scores.csv of one scored image."""
    below, normals = result.rank
    span = score_span(result, calibration)
    return {
        "score": result.score,
        "p_value": result.p_value,
        "normals_below": below,
        "normals": normals,
        "label": "abnormal" if result.flagged else "normal",
        "threshold": result.threshold,
        "display": float(display(result.score, result.threshold, *span)),
        "boxes": [list(box) for box in result.boxes],
    }


def score_span(result: Result, calibration: Calibration) -> tuple[float, float]:
    """Return the range that scores are displayed in: the maps', else that of known scores."""
    if result.masks:
        return result.span
    scores = [*calibration.normal_scores, *calibration.abnormal_scores]
    return float(min(scores)), float(max(scores))


def volume_row(rows: Sequence[dict[str, Any]], calibration: Calibration) -> dict[str, Any]:
    """Return the row of a volume: that of its highest slice.

    Its p-value compares a maximum over slices, so it exists only where the calibration's scores
    are maxima over a case's slices too.
    """
    best = max(rows, key=lambda row: row["score"])
    whole = {**best, "slice": "", "boxes": []}
    if calibration.by != "case":
        whole |= {"p_value": "", "normals_below": "", "normals": ""}
    return whole


class Run:
    """Scores sources with a detector and records what came out."""

    def __init__(self, detector: Detector, options: PredictOptions, log: Path) -> None:
        assert detector.calibration is not None
        self.detector = detector
        self.calibration = detector.calibration
        self.options = options
        settings = detector.settings
        self.reading = Reading.of(options, settings.intensity, settings.prepare)
        self.log_path = log
        self.failures = 0
        self.probability = probability(self.calibration, options.prevalence)

    def __call__(self, sources: Sequence[Source]) -> None:
        """Score sources and append their records to the log."""
        log = Log(self.log_path)
        try:
            with (
                ThreadPoolExecutor(THREADS) as pool,
                SideBySide(self.detector) as patch_values,
                progress(len(sources), "predict", "file", HERE) as bar,
            ):
                writing: list[Future[Record]] = []
                for batch in self.batches(pool, sources):
                    scored = self.score(batch, patch_values)
                    log.add([future.result() for future in writing])
                    bar.update(len(writing))
                    writing = [pool.submit(self.write, *one) for one in scored]
                log.add([future.result() for future in writing])
                bar.update(len(writing))
        finally:
            log.close()

    def batches(
        self, pool: ThreadPoolExecutor, sources: Iterable[Source]
    ) -> Iterator[list[tuple[Source, Loaded | str]]]:
        """Yield sources that were read: images by batches, volumes, which are large, one by one."""
        size = self.options.batch_size or BATCH
        for images, group in groupby(sources, key=lambda source: source.kind == IMAGE):
            calls = (partial(read, source, self.reading) for source in group)
            loaded = ahead(pool, calls, 2 * size if images else 1)
            while batch := list(islice(loaded, size if images else 1)):
                yield batch

    def score(
        self, batch: Sequence[tuple[Source, Loaded | str]], patch_values: PatchValues
    ) -> list[tuple[Source, Loaded | str, list[Result]]]:
        """Score the images of several sources together; return the results of each."""
        images = [
            image for _, loaded in batch if isinstance(loaded, Loaded) for image in loaded.images
        ]
        results = iter(self.detector.results(images, patch_values))
        return [
            (
                source,
                loaded,
                [] if isinstance(loaded, str) else list(islice(results, len(loaded.images))),
            )
            for source, loaded in batch
        ]

    def write(self, source: Source, loaded: Loaded | str, results: list[Result]) -> Record:
        """Write the files of a source; return its record."""
        if isinstance(loaded, str):
            return self.failed(source, loaded)
        try:
            return self.written(source, loaded, results)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return self.failed(source, TOO_LONG.format(source.name))
            # a full disk, say: the rest would fail as well
            raise UserError(
                f"the files of {source.name} cannot be written ({error.strerror or error}); what "
                "was finished before is kept"
            ) from error
        except Exception as error:  # noqa: BLE001  # a bug with one file must not cost the others
            traceback.print_exc()
            return self.failed(source, f"unexpected {type(error).__name__}: {error}".split("\n")[0])

    def failed(self, source: Source, reason: str) -> Record:
        """Say why a source has no score, as long as these are few; return its record."""
        self.failures += 1
        if self.failures <= SAID:
            note(reason, HERE)
        if self.failures == SAID + 1:
            note("more files cannot be scored: see the column error of scores.csv", HERE)
        return {"name": source.name, "error": reason}

    def written(self, source: Source, loaded: Loaded, results: list[Result]) -> Record:
        """Write the files of a scored source; return its record."""
        rows = [self.row(result) for result in results]
        if loaded.numbers is not None:
            for row, number in zip(rows, loaded.numbers, strict=True):
                row["slice"] = number
            rows.append(volume_row(rows, self.calibration))
        remarks = write_outputs(source, loaded, results, self.options, self.detector)
        return {
            "name": source.name,
            "rows": rows,
            **({} if loaded.fingerprint is None else {SOURCE: loaded.fingerprint}),
            "wide": loaded.wide,
            "notes": [*loaded.notes, *remarks],
        }

    def row(self, result: Result) -> dict[str, Any]:
        """Return the columns of one scored image."""
        row = result_row(result, self.calibration)
        if self.probability is not None:
            row["probability"] = float(self.probability(result.score))
        return row


def describe_reading(reading: Reading, wide: int, total: int) -> None:
    """Say how files of more than 8 bit were read."""
    if wide:
        how = reading.intensity.words(dicom=True) if reading.window is None else "by --window"
        note(f"{wide} of {total} files have more than 8 bit: scaled {how}", HERE)
