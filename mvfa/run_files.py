"""Reading the files of a run: metrics.json with its curves, and scores.csv.

They are read as data from a stranger: form and size are checked, and that nothing was changed since
the run has written them. This module needs no torch. Letters: n images.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from CLIP.hashing import sha256
from dataset.layout import refuse_special
from errors import UserError
from mvfa.run_schema import CURVE_NAMES, FORM, POINTS_FILE
from mvfa.schema import Schema, mapping, problem

METRICS = "metrics.json"
CURVES = "curves.json"
SCORES = "scores.csv"
PAGE = "index.html"
PICTURES = "pictures"  # folder
ERROR_LOG = "error.log"  # of a run that ended with a bug
LARGEST_JSON = 2**26  # bytes
LARGEST_SCORES = 2**28  # a million rows
FILES = (METRICS, CURVES, SCORES, PAGE, ERROR_LOG)  # of a run's folder, beside its pictures
SEALED = (SCORES, CURVES)  # files whose SHA-256 metrics.json states
NAMES: Mapping[str, Any] = {"encoding_errors": "surrogateescape"}  # file names may not be UTF-8
SCORE_COLUMNS: Mapping[str, str] = {  # of each branch
    "both": "score",
    "text": "text_score",
    "memory": "memory_score",
}


@dataclass(frozen=True)
class ScoredImages:
    """The scored images of a run, in the test set's order.

    Args:
        files: names below the data folder, n of them.
        labels: [n] bool, True for abnormal.
        scores: [n] float64 in [0, 1].
        cases: the case (patient) of each image, None where it is unknown.
        slices: its slice number, None where it is unknown.

    """

    files: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]
    cases: tuple[str | None, ...]
    slices: tuple[int | None, ...]


def load_json(path: Path, schema: Schema = mapping) -> dict[str, Any] | None:
    """Read a JSON object that follows a schema; None if the file does not exist.

    Raises UserError if it holds something else.
    """
    remedy = "remove it and run again"
    try:
        if not path.exists():
            return None
        refuse_special(path, LARGEST_JSON)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON; {remedy}") from error
    if found := problem(content, schema):
        raise UserError(f"{path} is not a run's {path.name} ({found}); {remedy}")
    return dict(content)


def sealed(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content of a run's metrics.json with what tells a later change.

    `files` holds the SHA-256 of the files beside it that are read again, and `sha256` that of
    everything else.
    """
    paths = {name: folder / name for name in SEALED}
    files = {name: sha256(path) for name, path in paths.items() if path.is_file()}
    whole = json.loads(json.dumps({**content, "files": files}))  # as it is read back
    return {**whole, "sha256": digest(whole)}


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, which does not depend on the order of names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_seal(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Raise UserError if the files of a run were changed since; older runs cannot tell."""
    content = dict(metrics)
    stated = content.pop("sha256", None)
    if stated is None and "files" not in content:
        return
    changed = METRICS if digest(content) != stated else ""
    for name, expected in (metrics.get("files") or {}).items():
        path = folder / name
        if name not in SEALED or not path.is_file() or sha256(path) != expected:
            changed = name
    if changed:
        raise UserError(f"{folder / changed} is not what the run has written; run it again")


def load_metrics(folder: Path) -> dict[str, Any] | None:
    """Read metrics.json of a run, and add the curves of curves.json beside it to its details.

    None if there is no metrics.json. UserError if a file is incomplete, was changed, or is of
    another kind.
    """
    metrics = load_json(folder / METRICS, FORM)
    if metrics is None:
        return None
    check_seal(folder, metrics)
    curves = load_json(folder / CURVES, POINTS_FILE) or {}
    for granularity, branches in (metrics.get("details") or {}).items():
        for branch, measures in (branches or {}).items():
            points = (curves.get(granularity) or {}).get(branch)
            if measures and points:
                measures.update({name: points[name] for name in CURVE_NAMES if name in points})
    return metrics


def read_scores(folder: Path, branch: str = "both") -> ScoredImages | None:
    """Read scores.csv of a run; `branch` is "text", "memory" or "both".

    None if the file does not exist or has no scores of the branch. UserError if it holds something
    else.
    """
    import pandas as pd  # slow to import

    path = folder / SCORES
    refuse_special(path, LARGEST_SCORES)
    column = SCORE_COLUMNS[branch]
    try:
        # as text first: a case "01" is not the number 1
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, **NAMES)
        if (rows[column] == "").any():
            return None
        cases = rows.get("case", [""] * len(rows))
        slices = rows.get("slice", [""] * len(rows))
        labels = rows["label"].to_numpy(np.int64)
        scores = rows[column].to_numpy(np.float64)
        scored = ScoredImages(
            files=tuple(rows["file"]),
            labels=labels > 0,
            scores=scores,
            cases=tuple(case or None for case in cases),
            slices=tuple(int(number) if number else None for number in slices),
        )
        known = np.isin(labels, (0, 1)).all() and np.isfinite(scores).all()
    except FileNotFoundError:
        return None
    except (OSError, LookupError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as a run's scores; run the test again") from error
    if not known:
        raise UserError(f"{path} has labels other than 0 and 1, or scores that are not finite")
    return scored
