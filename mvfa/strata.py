"""AUROC within strata (cases, slice numbers): what a score adds to knowing the stratum.

Neither torch nor scikit-learn is loaded by importing this module. Letters: n images.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Within:
    """The mean AUROC within strata.

    Args:
        auroc: the mean over strata with both labels, each counting the same; None without any.
        used: the number of these strata.
        left_out: the number of strata with one label, in which nothing can be ordered.
        images: the number of images in the strata used.

    """

    auroc: float | None
    used: int
    left_out: int
    images: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for metrics.json."""
        return asdict(self)


def within(
    scores: npt.ArrayLike, labels: npt.ArrayLike, strata: Sequence[str | int | None]
) -> Within:
    """Return the AUROC within each stratum, averaged over strata.

    scores [n], labels [n] bool. An image whose stratum is None is not counted. A score that knows
    nothing but the stratum has 0.5.
    """
    from sklearn.metrics import roc_auc_score  # slow to import, and needed once a test

    values = np.asarray(scores)
    truth = np.asarray(labels, np.bool_)
    members: dict[str | int, list[int]] = {}
    for i, stratum in enumerate(strata):
        if stratum is not None:
            members.setdefault(stratum, []).append(i)
    groups = [rows for rows in members.values() if truth[rows].any() and not truth[rows].all()]
    areas = [float(roc_auc_score(truth[rows], values[rows])) for rows in groups]
    return Within(
        auroc=fmean(areas) if areas else None,
        used=len(groups),
        left_out=len(members) - len(groups),
        images=sum(map(len, groups)),
    )


def case_numbers(cases: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Return a number from 0 for the case of each image [n]; None is a case of its own."""
    numbers: dict[object, int] = {}
    keys = [("image", i) if case is None else case for i, case in enumerate(cases)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
