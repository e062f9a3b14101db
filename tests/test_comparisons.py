"""Paired tests between rows of a table: what is paired, what is refused, and what is bold."""

import csv

import numpy as np
import pytest

from errors import UserError
from mvfa.paired import delong, permute_cases
from mvfa.run_files import read_scores
from report.compact import compact_table
from report.comparisons import ROUNDS, SEED, best_cells, compare, comparisons_of
from report.study import DONE, Cell, Study, TableSpec
from report.tables import long_table

ROWS = ("first", "second", "third")
SPEC = TableSpec("t", "T", "", ROWS, ("Brain",))


def write_scores(folder, scores, labels, cases=None, files=None):
    """Write a scores.csv as a test does; return its folder."""
    folder.mkdir(parents=True)
    names = files or [f"Brain_AD/test/{i}.png" for i in range(len(scores))]
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "score", "text_score", "memory_score", "case", "slice"])
        for i, name in enumerate(names):
            case = cases[i] if cases else ""
            writer.writerow([name, int(labels[i]), scores[i], scores[i], "", case, ""])
    return folder


@pytest.fixture
def scored():
    """Return scores of three rows, the first far better, the others alike; labels and cases."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 1
    noise = generator.normal(size=(3, 60))
    effect = np.array([[4.0], [0.5], [0.5]])
    cases = [f"{i // 4:02d}" for i in range(60)]
    return noise + effect * labels, labels, cases


def study_of(folder, scores, labels, cases=None, seeds=(111,)):
    """Return a study of one table whose cells have these scores."""
    cells = []
    for seed in seeds:
        for row, own in zip(ROWS, scores, strict=False):
            place = write_scores(folder / f"{row}-{seed}", own, labels, cases)
            metrics = {"image_auroc": delong(own, own, labels).first}
            cells.append(Cell("t", row, "Brain", seed, 0, DONE, metrics=metrics, folder=place))
    return Study("S", False, (SPEC,), tuple(cells))


def test_the_numbers_are_those_of_the_tests(tmp_path, scored):
    scores, labels, cases = scored
    study = study_of(tmp_path, scores, labels, cases)
    records = sorted(comparisons_of(study, SPEC, read_scores), key=lambda r: r["other"])
    assert [(r["best"], r["other"]) for r in records] == [("first", "second"), ("first", "third")]
    paired = delong(scores[0], scores[1], labels)
    record = records[0]
    assert record["difference"] == pytest.approx(100 * paired.difference)
    assert (record["low"], record["high"]) == pytest.approx((100 * paired.low, 100 * paired.high))
    assert record["p_delong"] == pytest.approx(paired.p)
    expected = permute_cases(scores[0], scores[1], labels, cases, ROUNDS, SEED)
    assert record["p_permutation"] == expected
    assert (record["unit"], record["units"], record["images"]) == ("case", 15, 60)


def test_bold_needs_both_tests_against_every_other_row(tmp_path, scored):
    scores, labels, cases = scored
    study = study_of(tmp_path, scores, labels, cases)
    best = best_cells(comparisons_of(study, SPEC, read_scores))
    assert best == {("first", "Brain")}
    lines = compact_table(study, SPEC, long_table(study, SPEC, {}), best).lines
    assert [line.cells[0].bold for line in lines] == [True, False, False]
    assert "**" in lines[0].cells[0].plain()
    assert r"\textbf{" in lines[0].cells[0].latex()


def test_rows_that_are_alike_are_not_bold(tmp_path, scored):
    scores, labels, cases = scored
    close = np.stack([scores[1], scores[2], scores[1] * 0.99])
    study = study_of(tmp_path, close, labels, cases)
    assert best_cells(comparisons_of(study, SPEC, read_scores)) == set()


@pytest.mark.parametrize("flat_seed", [110, 112])
def test_one_undecided_run_takes_the_bold_away(tmp_path, scored, flat_seed):
    """Whether it is the first or the last of the runs."""
    scores, labels, cases = scored
    good = study_of(tmp_path / "a", scores, labels, cases, seeds=(111,))
    flat = np.stack([scores[1], scores[1], scores[2]])
    other = study_of(tmp_path / "b", flat, labels, cases, seeds=(flat_seed,))
    study = Study("S", False, (SPEC,), (*good.cells, *other.cells))
    assert best_cells(comparisons_of(study, SPEC, read_scores)) == set()


def test_a_run_in_which_the_best_is_worse_takes_the_bold_away(tmp_path, scored):
    """Even if the difference there is as clear: it has the other sign."""
    scores, labels, cases = scored
    two = np.stack([scores[0] - 2 * labels, 2 * labels - scores[0]])  # some images overlap
    good = study_of(tmp_path / "a", two, labels, cases, seeds=(111, 112))
    study = Study("S", False, (SPEC,), good.cells)
    assert best_cells(comparisons_of(study, SPEC, read_scores)) == {("first", "Brain")}
    turned = study_of(tmp_path / "b", two[::-1], labels, cases, seeds=(113,))
    study = Study("S", False, (SPEC,), (*good.cells, *turned.cells))
    records = comparisons_of(study, SPEC, read_scores)
    assert all(r["p_permutation"] < 0.05 for r in records)
    assert [r["decided"] for r in records] == [True, True, False]
    assert best_cells(records) == set()


def test_cases_that_move_together_count_once(tmp_path):
    """Four copies of each image make DeLong's p tiny and leave that by case as it was."""
    generator = np.random.default_rng(3)
    labels = np.arange(24) % 2 == 1
    pair = generator.normal(size=(2, 24)) + np.array([[1.4], [0.6]]) * labels
    once = compare(
        *(read_scores(write_scores(tmp_path / f"a{i}", pair[i], labels)) for i in (0, 1))
    )
    four = np.repeat(pair, 4, axis=1)
    cases = [str(i // 4) for i in range(96)]
    many = compare(
        *(
            read_scores(write_scores(tmp_path / f"b{i}", four[i], labels.repeat(4), cases))
            for i in (0, 1)
        )
    )
    assert many.p_delong < once.p_delong / 2
    assert many.p_permutation == pytest.approx(once.p_permutation, abs=0.05)
    assert (many.unit, many.units) == ("case", 24)


def test_other_images_or_labels_are_not_paired(tmp_path, scored):
    scores, labels, _ = scored
    first = read_scores(write_scores(tmp_path / "a", scores[0], labels))
    names = [f"Brain_AD/test/{i + 1}.png" for i in range(60)]
    second = read_scores(write_scores(tmp_path / "b", scores[0], labels, files=names))
    with pytest.raises(UserError, match="is in one of them only"):
        compare(first, second)
    flipped = read_scores(write_scores(tmp_path / "c", scores[0], ~labels))
    with pytest.raises(UserError, match="different labels"):
        compare(first, flipped)
    study = study_of(tmp_path / "d", scores[:2], labels)
    (study.cells[1].folder / "scores.csv").unlink()
    (record,) = comparisons_of(study, SPEC, read_scores)
    assert record["note"] == "not compared: a test has written no scores.csv"
    assert best_cells([record]) == set()
