"""Reading the files of a run: metrics.json with its curves, and scores.csv.

This module needs no torch. Letters: n images.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import UserError
from mvfa.run_schema import CURVES, METRICS, POINTS_FILE
from mvfa.schema import Schema, mapping, problem

SCORES = "scores.csv"
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON; remove it and run again") from error
    if found := problem(content, schema):
        raise UserError(f"{path} is not a run's {path.name} ({found}); remove it and run again")
    return dict(content)


def load_metrics(folder: Path) -> dict[str, Any] | None:
    """Read metrics.json of a run, and add the curves of curves.json beside it to its details.

    None if there is no metrics.json. UserError if a file is incomplete or of another kind.
    """
    metrics = load_json(folder / "metrics.json", METRICS)
    curves = load_json(folder / "curves.json", POINTS_FILE)
    if metrics is None or not curves or not metrics.get("details"):
        return metrics
    for granularity, branches in metrics["details"].items():
        for branch, measures in (branches or {}).items():
            points = (curves.get(granularity) or {}).get(branch)
            if measures and points:
                measures.update({name: points[name] for name in CURVES if name in points})
    return metrics


def read_scores(folder: Path, branch: str = "both") -> ScoredImages | None:
    """Read scores.csv of a run; `branch` is "text", "memory" or "both".

    None if the file does not exist or has no scores of the branch. UserError if it holds something
    else.
    """
    import pandas as pd  # slow to import

    path = folder / SCORES
    column = SCORE_COLUMNS[branch]
    try:
        # as text first: a case "01" is not the number 1
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        if (rows[column] == "").any():
            return None
        cases = rows.get("case", [""] * len(rows))
        slices = rows.get("slice", [""] * len(rows))
        return ScoredImages(
            files=tuple(rows["file"]),
            labels=rows["label"].to_numpy(np.int64) > 0,
            scores=rows[column].to_numpy(np.float64),
            cases=tuple(case or None for case in cases),
            slices=tuple(int(number) if number else None for number in slices),
        )
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a run's scores; run the test again") from error
