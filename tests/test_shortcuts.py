"""Scores that see no lesion: the published figures again from file names, and plain loops."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dataset.cases import Place
from dataset.catalog import object_info
from dataset.folder import Record
from mvfa.intervals import bootstrap_cases, bootstrap_images
from mvfa.shortcuts import (
    BLACK,
    CASE_MIDDLE,
    CASE_SHARE,
    FILE_SIZE,
    MEAN,
    MIDDLE,
    NONE,
    ORACLE,
    SLICE,
    SLICE_SHARE,
    VALID,
    Images,
    fitted,
    named_images,
    read_images,
    shortcuts,
    values_of,
)
from tests.conftest import REFERENCE

NAME = {"Brain": "{:05d}_{}.png", "Liver": "{}_{}.png", "Retina_RESC": "{}_{}.png"}
FIGURES = [  # of public lists of the benchmark's test splits: object, score, fit, percent
    ("Brain", MIDDLE, NONE, 80.97),
    ("Brain", SLICE_SHARE, ORACLE, 98.39),
    ("Retina_RESC", MIDDLE, NONE, 83.67),
    ("Retina_RESC", CASE_MIDDLE, NONE, 83.48),
    ("Retina_RESC", CASE_SHARE, ORACLE, 77.30),
    ("Liver", CASE_SHARE, ORACLE, 79.39),
    ("Liver", CASE_MIDDLE, NONE, 56.62),
]
COUNTS = {"Brain": (3_715, 777), "Liver": (1_493, 10), "Retina_RESC": (1_805, 15)}


@pytest.fixture(scope="module")
def listed() -> dict[str, Images]:
    """Return the test images of three objects, of which file names are known and nothing else."""
    found = {}
    for obj, form in NAME.items():
        with (REFERENCE / "cases" / f"{obj}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [form.format(int(row["case"]), row["slice"]) for row in rows]
        labels = [row["abnormal"] == "1" for row in rows]
        found[obj] = named_images(names, labels, object_info(obj))
    return found


@pytest.fixture(scope="module")
def reached(listed):
    """Return the shortcuts of each object by name and fit."""
    return {
        obj: {(s.name, s.fit): s for s in shortcuts(images, None)} for obj, images in listed.items()
    }


@pytest.mark.parametrize(("obj", "name", "fit", "percent"), FIGURES)
def test_figures_of_file_names(reached, obj, name, fit, percent):
    found = reached[obj][name, fit]
    assert round(100 * found.auroc, 2) == percent
    assert (found.images, found.cases) == COUNTS[obj]
    assert (found.kind, found.by_image, found.by_case) == ("names", None, None)


def test_a_case_of_brain_has_one_label(reached):
    """So its share orders everything, and nothing can be ordered within cases."""
    assert reached["Brain"][CASE_SHARE, ORACLE].auroc == 1.0
    assert reached["Brain"][MIDDLE, NONE].within_case is None
    assert reached["Brain"][MIDDLE, NONE].within_slice == 0.5
    assert reached["Liver"][CASE_SHARE, ORACLE].within_case == 0.5


def test_intervals_of_file_names(listed):
    """Of Retina_RESC's 83.67: of 15 patients they reach three times as far as of 1,805 images."""
    images = listed["Retina_RESC"]
    scores = torch.from_numpy(values_of(images, images)[MIDDLE])
    labels = torch.from_numpy(images.labels)
    by_image = bootstrap_images(scores, labels, 2_000, seed=0)["auroc"]
    assert by_image == pytest.approx([0.819, 0.856], abs=0.005)
    by_case = bootstrap_cases(scores, labels, images.cases, 2_000, seed=0)
    assert by_case["auroc"] == pytest.approx([0.769, 0.917], abs=0.01)
    assert by_case["cases"] == 15


def invented(n: int, seed: int, first: int = 0) -> Images:
    """Return images of cases of 11 slices, abnormal near slice 30 and in odd cases."""
    g = np.random.default_rng(seed)
    places = [Place(str(first + i // 11), 20 + i % 11 * 2) for i in range(n)]
    chance = [0.8 - 0.06 * abs(p.slice - 30) + 0.2 * (int(p.case) % 2) for p in places]
    labels = g.random(n) < chance
    return Images(labels, places, {FILE_SIZE: 1000 - 40 * labels + np.round(60 * g.normal(size=n))})


def test_values_equal_plain_loops():
    test = invented(40, seed=0)
    values = values_of(test, test)
    for i, place in enumerate(test.places):
        own = [p.slice for p in test.places if p.case == place.case]
        middle = (min(own) + max(own)) / 2
        spread = max(own) - min(own)
        assert values[SLICE][i] == place.slice
        assert values[MIDDLE][i] == -abs(place.slice - 30)
        assert values[CASE_MIDDLE][i] == pytest.approx(-abs(place.slice - middle) / spread)
    # middles of valid/ are those of the test's slices, also of a case that shows part of itself
    valid = Images(np.array([True, False]), [Place("0", 20), Place("new", 22)])
    assert values_of(valid, test)[MIDDLE].tolist() == [-10, -8]
    assert values_of(valid, test)[CASE_MIDDLE].tolist() == [-0.5, 0.0]


def test_what_valid_teaches_and_what_it_cannot_see():
    valid = invented(300, seed=1)
    test = invented(200, seed=2, first=20)
    found = {(s.name, s.fit): s for s in shortcuts(test, valid, resamples=20)}
    k, q = (np.array([[i.slice] for i in images.places], float) for images in (valid, test))
    model = LogisticRegression(C=1e6).fit(np.hstack([k - 30, (k - 30) ** 2]), valid.labels)
    expected = model.predict_proba(np.hstack([q - 30, (q - 30) ** 2]))[:, 1]
    reached = found[SLICE, VALID].auroc
    assert reached == pytest.approx(roc_auc_score(test.labels, expected.round(9)), abs=0.01)
    assert reached > 0.7 > found[SLICE, NONE].auroc + 0.1  # a middle was learned
    # a larger file is a normal image here, which has to be learned
    assert found[FILE_SIZE, NONE].auroc == pytest.approx(1 - found[FILE_SIZE, VALID].auroc)
    assert found[FILE_SIZE, VALID].auroc > 0.5
    # cases 20 to 26 were seen by valid, the others get the overall share
    seen = {
        case: np.mean([x for x, c in zip(valid.labels, valid.cases, strict=True) if c == case])
        for case in set(valid.cases)
    }
    score = [seen.get(case, valid.labels.mean()) for case in test.cases]
    assert 0 < sum(case in seen for case in test.cases) < 200
    assert found[CASE_SHARE, VALID].auroc == pytest.approx(roc_auc_score(test.labels, score))
    low, high = found[FILE_SIZE, NONE].by_image
    assert low < found[FILE_SIZE, NONE].auroc < high
    assert found[FILE_SIZE, NONE].by_case != found[FILE_SIZE, NONE].by_image
    assert found[SLICE, VALID].within_slice == 0.5


def test_ties_stay_ties():
    valid = invented(100, seed=1)
    numbers = np.array([22.0, 30, 22, np.nan, 30, 38, 22])
    scores = fitted(SLICE, valid.slices, valid.labels, numbers)
    assert len(set(scores[~np.isnan(numbers)])) == 3
    assert np.isnan(scores[3])
    assert fitted(SLICE, valid.slices, np.ones(100, bool), numbers) is None


def test_unknown_places_and_labels_of_one_kind():
    labels = np.array([True, False, True, False])
    places = [Place(None, 3), Place("a", 5), Place("a", None), Place()]
    found = {(s.name, s.fit): s for s in shortcuts(Images(labels, places), None)}
    assert found[SLICE, NONE].images == 2
    assert found[SLICE, NONE].cases == 1
    assert found[CASE_SHARE, ORACLE].images == 2
    assert (CASE_MIDDLE, NONE) not in found  # known of one image
    assert shortcuts(Images(labels, [Place()] * 4), None) == []


def test_sizes_and_greys_are_read(tmp_path):
    folder = tmp_path / "test" / "good" / "img"
    folder.mkdir(parents=True)
    g = np.random.default_rng(0)
    records = []
    for i in range(5):
        pixels = g.integers(0, 256, (7 + i, 9), np.uint8)
        pixels[: i + 1] = 0
        Image.fromarray(pixels).save(folder / f"{i}.png")
        records.append(Record(folder, f"{i}.png", None, i % 2, object_info("Chest")))
    images = read_images(records, [Place()] * 5)
    assert images.labels.tolist() == [False, True, False, True, False]
    for i, record in enumerate(records):
        grey = np.array(Image.open(record.image))
        assert images.measures[FILE_SIZE][i] == record.image.stat().st_size
        assert images.measures[MEAN][i] == pytest.approx(grey.mean())
        assert images.measures[BLACK][i] == pytest.approx((grey == 0).mean())
