"""Scores that see no lesion: what slice numbers, patients, file sizes and mean greys reach alone.

A model that is not better than these may have learned nothing else. No network is involved, and
names are enough for those of kind "names". Torch is not loaded by importing this module.

Letters: n images of a split.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dataset.cases import Place, named_places
from dataset.catalog import ObjectInfo
from mvfa.strata import within

if TYPE_CHECKING:
    from dataset.folder import Record

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NAMES = "names"
FILE = "file"
PIXELS = "pixels"
NONE = "none"
VALID = "valid"
ORACLE = "oracle"
FITS = {  # how a score was made
    NONE: "as it is",
    VALID: "fitted on valid/",
    ORACLE: "from the test labels (an oracle)",
}

HONEST = (NONE, VALID)  # use no label of the test

SLICE = "slice number"
MIDDLE = "nearness to the middle slice"
CASE_MIDDLE = "nearness to the middle of its case"
SLICE_SHARE = "abnormal share of its slice number"
CASE_SHARE = "abnormal share of its case"
FILE_SIZE = "file size"
MEAN = "mean grey"
BLACK = "share of black pixels"
KINDS = {  # where the knowledge is from
    SLICE: NAMES,
    MIDDLE: NAMES,
    CASE_MIDDLE: NAMES,
    SLICE_SHARE: NAMES,
    CASE_SHARE: NAMES,
    FILE_SIZE: FILE,
    MEAN: PIXELS,
    BLACK: PIXELS,
}
KNOWS = {  # in words
    SLICE: "the slice number",
    MIDDLE: "the slice's depth",
    CASE_MIDDLE: "the slice's depth within its case",
    SLICE_SHARE: "how often its slice number is abnormal",
    CASE_SHARE: "the patient",
    FILE_SIZE: "the size of the file",
    MEAN: "the mean grey",
    BLACK: "the share of black pixels",
}


@dataclass(frozen=True)
class Images:
    """A split's images as shortcuts see them.

    Args:
        labels: [n], True for abnormal.
        places: the case and slice number of each image, n of them.
        measures: values [n] of FILE_SIZE in bytes, MEAN in [0, 255] and BLACK in [0, 1], as far as
            they were read.

    """

    labels: Bools
    places: Sequence[Place]
    measures: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def cases(self) -> list[str | None]:
        """The case of each image; None where it is unknown."""
        return [place.case for place in self.places]

    @property
    def slices(self) -> Floats:
        """The slice number of each image [n]; NaN where it is unknown."""
        numbers = [place.slice for place in self.places]
        return np.array([np.nan if number is None else number for number in numbers], np.float64)


@dataclass(frozen=True)
class Shortcut:
    """What a score that sees no lesion reaches on a test split.

    Args:
        name: what the score knows, a key of KINDS.
        kind: where it is from: "names", "file" or "pixels".
        fit: how it was made, a key of FITS.
        auroc: image AUROC, a fraction.
        by_image: its 95 % interval over images; None without resamples.
        by_case: the same over cases; None where the cases are not known.
        within_slice: mean AUROC within slice numbers; None where none has both labels.
        within_case: the same within cases.
        images: the images that the score is known of.
        cases: their cases; None where they are not known.

    """

    name: str
    kind: str
    fit: str
    auroc: float
    by_image: Sequence[float] | None
    by_case: Sequence[float] | None
    within_slice: float | None
    within_case: float | None
    images: int
    cases: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


# -------------------------------------------------------------------- images


def named_images(names: Sequence[str], labels: npt.ArrayLike, info: ObjectInfo) -> Images:
    """Return images of which only the file names are known; labels [n], 1 for abnormal."""
    return Images(np.asarray(labels, np.bool_), named_places(names, info))


def read_images(records: "Sequence[Record]", places: Sequence[Place]) -> Images:
    """Return the images of a split with sizes and greys, read in a thread for each core.

    Raises UserError for an image that cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = np.array(list(pool.map(measure_image, records)), np.float64)  # [n, 3]
    labels = np.array([record.label == 1 for record in records])
    return Images(labels, places, dict(zip((FILE_SIZE, MEAN, BLACK), rows.T, strict=True)))


def measure_image(record: "Record") -> tuple[int, float, float]:
    """Return an image's bytes, mean grey and share of pixels of grey 0, at its own size."""
    from dataset.pixels import read_rgb

    grey = np.asarray(read_rgb(record.image, record.object.intensity).convert("L"))
    return record.image.stat().st_size, float(grey.mean()), float((grey == 0).mean())


# -------------------------------------------------------------------- values


def case_ends(images: Images) -> dict[str, tuple[float, float]]:
    """Return the first and last slice number of each case."""
    numbers: dict[str, list[int]] = {}
    for place in images.places:
        if place.case is not None and place.slice is not None:
            numbers.setdefault(place.case, []).append(place.slice)
    return {case: (min(own), max(own)) for case, own in numbers.items()}


def middle_of_case(images: Images, ends: Mapping[str, tuple[float, float]]) -> Floats:
    """Return -|k - (first + last) / 2| / (last - first) for slice k of a case [n], else NaN.

    0 where a case has one slice.
    """
    values = np.full(len(images.labels), np.nan)
    for i, place in enumerate(images.places):
        if place.case is not None and place.slice is not None:
            first, last = ends[place.case]
            values[i] = -abs(place.slice - (first + last) / 2) / max(last - first, 1)
    return values


def values_of(images: Images, test: Images) -> dict[str, Floats]:
    """Return the values [n] that scores are made of, by name; NaN where one is unknown.

    Middles are those of the slices of `test`, a case that it does not have its own.
    """
    slices = images.slices
    found: dict[str, Floats] = {SLICE: slices}
    of_test = test.slices[~np.isnan(test.slices)]
    if len(of_test):
        found[MIDDLE] = -np.abs(slices - (of_test.min() + of_test.max()) / 2)
        found[CASE_MIDDLE] = middle_of_case(images, case_ends(images) | case_ends(test))
    return found | dict(images.measures)


def fitted(name: str, valid: Floats, labels: Bools, test: Floats) -> Floats | None:
    """Return log odds [n] by logistic regression on `valid`, NaN where a value is unknown.

    valid [m] with labels [m], test [n]. Values are standardised; scikit-learn's default penalty. Of
    slice numbers the square is used as well, so that a middle can be learned. None without known
    values of both labels.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = ~np.isnan(valid)
    if len(set(labels[known])) < 2:
        return None
    middle = valid[known].mean()
    powers = (1, 2) if name == SLICE else (1,)

    def columns(values: Floats) -> Floats:  # [k] -> [k, d]
        return np.stack([(values - middle) ** power for power in powers], axis=1)

    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(columns(valid[known]), labels[known])
    scores = np.full(len(test), np.nan)
    asked = ~np.isnan(test)
    if asked.any():
        # each value once: rounding must not tell equal ones apart
        values, places = np.unique(test[asked], return_inverse=True)
        scores[asked] = model.decision_function(columns(values))[places]
    return scores


def shares(keys: Sequence[Any], labels: Bools) -> dict[Any, float]:
    """Return the share of abnormal images of each key that is not None."""
    groups: dict[Any, list[bool]] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        if key is not None:
            groups.setdefault(key, []).append(label)
    return {key: sum(own) / len(own) for key, own in groups.items()}


def share_of(keys: Sequence[Any], known: Mapping[Any, float], other: float = np.nan) -> Floats:
    """Return the share of each key [n], `other` for keys that are not known, NaN for None."""
    values = [np.nan if key is None else known.get(key, other) for key in keys]
    return np.array(values, np.float64)


def scores_of(test: Images, valid: Images | None) -> Iterator[tuple[str, str, Floats]]:
    """Yield the name, the fit and the scores [n] of every shortcut; NaN where it is unknown."""
    values = values_of(test, test)
    taught = values_of(valid, test) if valid is not None else {}
    for name, of_test in values.items():
        yield name, NONE, of_test
        if valid is not None and name in taught:
            scores = fitted(name, taught[name], valid.labels, of_test)
            if scores is not None:
                yield name, VALID, scores
    numbers = [place.slice for place in test.places]
    yield SLICE_SHARE, ORACLE, share_of(numbers, shares(numbers, test.labels))
    yield CASE_SHARE, ORACLE, share_of(test.cases, shares(test.cases, test.labels))
    if valid is not None and any(case is not None for case in valid.cases):
        known = shares(valid.cases, valid.labels)
        yield CASE_SHARE, VALID, share_of(test.cases, known, float(valid.labels.mean()))


# -------------------------------------------------------------------- results


def shortcuts(
    test: Images, valid: Images | None, *, resamples: int = 0, seed: int = 0
) -> list[Shortcut]:
    """Return what each shortcut reaches on a test split, in the order of KINDS and FITS.

    Those whose score is not known of a normal and of an abnormal image are left out. Intervals are
    bootstrapped with `resamples`; a score that `valid` has taught stays as it is.
    """
    found = [
        evaluated(name, fit, scores, test, resamples, seed)
        for name, fit, scores in scores_of(test, valid)
        if len(set(test.labels[~np.isnan(scores)])) == 2
    ]
    order = [(name, fit) for name in KINDS for fit in FITS]
    return sorted(found, key=lambda shortcut: order.index((shortcut.name, shortcut.fit)))


def evaluated(
    name: str, fit: str, scores: Floats, test: Images, resamples: int, seed: int
) -> Shortcut:
    """Return what a score [n] reaches on the images that it is known of."""
    import torch
    from sklearn.metrics import roc_auc_score

    from mvfa.intervals import bootstrap_cases, bootstrap_images

    known = ~np.isnan(scores)
    rows = known.nonzero()[0].tolist()
    labels = test.labels[known]
    own = scores[known]
    cases = [test.places[i].case for i in rows]
    slices = [test.places[i].slice for i in rows]
    count = len({case for case in cases if case is not None})
    tensors = (torch.from_numpy(own), torch.from_numpy(labels))
    by_image = bootstrap_images(*tensors, resamples, seed)["auroc"] if resamples else None
    by_case = None
    if resamples and count:
        by_case = (bootstrap_cases(*tensors, cases, resamples, seed) or {}).get("auroc")
    return Shortcut(
        name=name,
        kind=KINDS[name],
        fit=fit,
        auroc=float(roc_auc_score(labels, own)),
        by_image=by_image,
        by_case=by_case,
        within_slice=within(own, labels, slices).auroc,
        within_case=within(own, labels, cases).auroc,
        images=len(rows),
        cases=count or None,
    )
