"""The worst errors of a run: which they are, what is said of them, and which have a picture."""

import csv

import numpy as np
import pytest

from errors import UserError
from mvfa.error_cases import KINDS, error_cases, wrong_images
from mvfa.run_files import ScoredImages, read_scores
from tests.invented import write_pictures

THRESHOLD = 0.5


def scored(labels, scores) -> ScoredImages:
    count = len(labels)
    files = tuple(f"{i}.png" for i in range(count))
    return ScoredImages(
        files, np.array(labels, bool), np.array(scores, float), (None,) * count, (None,) * count
    )


def test_errors_are_those_of_a_plain_loop():
    generator = np.random.default_rng(3)
    labels = generator.random(200) < 0.4
    scores = generator.integers(0, 20, 200) / 20  # with ties, and some at the threshold
    missed = [i for i in range(200) if labels[i] and scores[i] < THRESHOLD]
    flagged = [i for i in range(200) if not labels[i] and scores[i] >= THRESHOLD]
    wrong = wrong_images(scored(labels, scores), THRESHOLD)
    assert sorted(wrong["false negative"]) == missed
    assert sorted(wrong["false positive"]) == flagged
    for kind, sign in (("false negative", 1), ("false positive", -1)):
        order = [(sign * scores[i], i) for i in wrong[kind]]
        assert order == sorted(order)


def test_a_score_at_the_threshold_is_called_abnormal():
    wrong = wrong_images(scored([1, 0], [THRESHOLD, THRESHOLD]), THRESHOLD)
    assert wrong == {"false negative": [], "false positive": [1]}


@pytest.fixture
def run(tmp_path):
    """Return the folder and the metrics of a run with pictures of its first three images."""
    entries = write_pictures(tmp_path, masks=True)
    rows = [
        [entry["file"], entry["label"], 1 - entry["label"], "", "", "07", 12] for entry in entries
    ]
    rows += [[f"X_AD/test/good/img/{i}.png", 0, i / 100, "", "", "", ""] for i in range(60)]
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "score", "text_score", "memory_score", "case", "slice"])
        writer.writerows(rows)
    details = {"image": {"both": {"threshold": THRESHOLD}}, "pixel": None}
    return tmp_path, {"details": details, "pictures": entries}


def test_the_worst_of_each_kind_come_with_both_labels(run):
    folder, metrics = run
    errors = error_cases(folder, metrics, most=4)
    assert errors.counts == {"false negative": 2, "false positive": 1 + 10}
    assert errors.totals == {"false negative": 2, "false positive": 61}
    kinds = [case.kind for case in errors.cases]
    assert kinds == ["false negative"] * 2 + ["false positive"] * 4
    for case in errors.cases:
        assert (case.truth, case.called) == KINDS[case.kind]
    first, *_, last = errors.cases
    assert (first.truth, first.called, first.case, first.slice) == ("abnormal", "normal", "07", 12)
    assert (last.file, last.score, last.case) == ("X_AD/test/good/img/57.png", 0.57, None)


def test_pictures_are_shown_where_the_run_has_drawn_them(run):
    folder, metrics = run
    cases = error_cases(folder, metrics, most=2).cases
    drawn = [case.shown is not None for case in cases]
    assert drawn == [True, True, True, False]
    assert cases[0].shown["mask_uri"].startswith("data:image/")
    assert (cases[2].shown["mask_uri"], cases[2].shown["mask_note"]) == (None, "empty mask")


def test_without_scores_or_threshold_there_are_none(run, tmp_path):
    folder, metrics = run
    assert error_cases(tmp_path / "elsewhere", metrics) is None
    assert error_cases(folder, {"details": {"image": {"both": None}}}) is None
    assert error_cases(folder, {}) is None


def test_scores_are_read_by_branch_and_as_they_are(run):
    folder, _ = run
    assert read_scores(folder, "text") is None  # the column is empty
    assert read_scores(folder / "nowhere") is None
    assert read_scores(folder).cases[:4] == ("07", "07", "07", None)
    (folder / "scores.csv").write_text("file,label\na.png,1\n")
    with pytest.raises(UserError, match=r"scores\.csv cannot be read as a run's scores"):
        read_scores(folder)
