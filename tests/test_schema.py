"""Checks of JSON from elsewhere, and what they keep out: detectors and results."""

import json

import pytest
from PIL import Image

from CLIP.hashing import sha256
from errors import UserError
from mvfa import Detector
from mvfa.embedding import drawn
from mvfa.run_files import digest, load_metrics, sealed
from mvfa.schema import Each, Entries, Many, between, finite, number, one_of, problem, text, whole
from report.study import load_cell
from tests.detectors import random_detector, write_described

SCHEMA = Entries(
    {"name": text, "sizes": Many(whole, 2), "by_name": Each(Entries({"value": number}))},
    needed=("name",),
    present=("sizes",),
)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"name": "a", "sizes": [1, 2]}, ""),
        ({"name": "a", "sizes": None, "other": object()}, ""),
        ({"name": "a", "sizes": [1, 2], "by_name": {"x": {"value": 0.5}, "y": None}}, ""),
        ([], "its content is of another type or range"),
        ({"sizes": [1, 2]}, "name is missing"),
        ({"name": None, "sizes": [1, 2]}, "name is missing"),
        ({"name": "a"}, "sizes is missing"),
        ({"name": 5, "sizes": [1, 2]}, "name is of another type or range"),
        ({"name": "a", "sizes": [1]}, "sizes is of another type or range"),
        ({"name": "a", "sizes": [1, None]}, "sizes is of another type or range"),
        ({"name": "a", "sizes": [1, 2.5]}, "sizes.1 is of another type or range"),
        ({"name": "a", "sizes": [1, True]}, "sizes.1 is of another type or range"),
        (
            {"name": "a", "sizes": None, "by_name": {"x": {"value": "1"}}},
            "by_name.x.value is of another type or range",
        ),
    ],
)
def test_a_problem_is_named_by_its_place(value, found):
    assert problem(value, SCHEMA) == found


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (number, [1, 0.5, float("nan"), -(10**300)], [10**400, "1", True, None]),
        (finite, [1, -0.5], [float("nan"), float("inf"), 10**400, False]),
        (whole, [0, -7], [1.0, 10**15, True]),
        (between(1, 3), [1, 3], [0, 4, 2.0]),
        (one_of("a", "b"), ["a", "b"], ["", "c", ["a"], None]),
    ],
)
def test_predicates(check, good, bad):
    assert all(map(check, good))
    assert not any(map(check, bad))


# ---------------------------------------------------------------------- detectors


@pytest.fixture(scope="module")
def detector(tiny_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "x.detector"
    random_detector(tiny_path).save(path)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"features_list": [[1]]},
        {"features_list": [1, None]},
        {"img_size": 10**9},
        {"embed_dim": "64"},
        {"shot": -1},
        {"setting": "x"},
        {"precision": "fp8"},
        {"weights": {}},
        {"calibration": {"source": "normals"}},
        {"map_ranges": {"text": [0, 10**400], "memory": [0, 1], "fused": [0, 1]}},
    ],
)
def test_a_described_detector_of_other_types_is_refused(detector, tiny_path, tmp_path, changes):
    write_described(detector, tmp_path / "x.detector", **changes)
    with pytest.raises(UserError, match="is not a detector"):
        Detector.load(tmp_path / "x.detector", clip_path=tiny_path)


@pytest.mark.parametrize("value", ["0.8", True, 1e300, None, float("nan")])
def test_a_recipe_of_other_numbers_is_refused(detector, tiny_path, tmp_path, value):
    recipe = Detector.load(detector, clip_path=tiny_path).settings.recipe.as_dict()
    write_described(detector, tmp_path / "x.detector", recipe=recipe | {"keep": value})
    with pytest.raises(UserError, match="its recipe has keep = "):
        Detector.load(tmp_path / "x.detector", clip_path=tiny_path)


# ---------------------------------------------------------------------- results


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({}, "image_auroc is missing"),
        ({"image_auroc": "0.9"}, "image_auroc is"),
        ({"image_auroc": 0.9, "details": {"image": {"both": {"auroc": {}}}}}, "both.auroc is"),
        ({"image_auroc": 0.9, "details": {"image": 5}}, "details.image is"),
        ({"image_auroc": 0.9, "details": {"pixel": {"both": {"roc": [[0]]}}}}, "both.roc.0 is"),
        ({"image_auroc": 0.9, "pictures": [{"file": "a"}]}, r"pictures\.0\.label is missing"),
        ({"image_auroc": 0.9, "weights": {"file": "a"}}, "weights.sha256 is missing"),
        ({"image_auroc": 0.9, "options": {"shot": "4"}}, "options.shot is"),
    ],
)
def test_results_of_other_types_are_refused(tmp_path, content, place):
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"metrics\.json is not a run's metrics\.json \(.*{place}"):
        load_metrics(tmp_path)


def test_a_file_of_deep_lists_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_metrics(tmp_path)


def test_curves_replace_no_metric(tmp_path):
    measures = {"image": {"both": {"auroc": 0.9}}}
    content = {"image_auroc": 0.9, "details": measures}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    curves = {"image": {"both": {"auroc": 0.1, "roc": [[0, 0], [1, 1]]}}}
    (tmp_path / "curves.json").write_text(json.dumps(curves))
    cell = load_cell("t", "r", "Brain", seed=1, draw=0, test=tmp_path)
    assert cell.measures("image", "both") == {"auroc": 0.9, "roc": [[0, 0], [1, 1]]}


def test_results_without_their_digest_are_refused_but_for_older_ones(tmp_path):
    content = sealed({"image_auroc": 0.9}, tmp_path)
    del content["sha256"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not what the run has written"):
        load_metrics(tmp_path)
    del content["files"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    assert load_metrics(tmp_path) == {"image_auroc": 0.9}


def test_results_may_state_the_digests_of_their_own_files_only(tmp_path):
    (tmp_path / "other").write_bytes(b"x")
    content = {"image_auroc": 0.9, "files": {"other": sha256(tmp_path / "other")}}
    (tmp_path / "metrics.json").write_text(json.dumps(content | {"sha256": digest(content)}))
    with pytest.raises(UserError, match="is not what the run has written"):
        load_metrics(tmp_path)


def entry(name: str) -> dict:
    """Return a picture whose map has a name."""
    entry = {"file": "a.png", "label": 1, "score": 0.5, "rank": "worst", "mask": None}
    names = {"panel": "pictures/00001.jpg", "image": "pictures/00001-image.png"}
    return entry | names | {"map": name}


def test_pictures_lie_in_the_run_s_folder(tmp_path, capsys):
    run = tmp_path / "run"
    pictures = run / "pictures"
    pictures.mkdir(parents=True)
    picture = Image.new("RGB", (4, 4))
    inside = [pictures / f"00001{end}" for end in (".jpg", "-image.png", "-map.png")]
    for path in (*inside, run / "1-map.png", tmp_path / "2-map.png"):
        picture.save(path)
    (pictures / "3-map.png").symlink_to(tmp_path / "2-map.png")
    (pictures / "4-map.png").write_text("secret")
    shown = entry("pictures/00001-map.png")
    outside = ["1-map.png", "pictures/../1-map.png", "../2-map.png", str(tmp_path / "2-map.png")]
    inside_only = ["pictures/3-map.png", "pictures/4-map.png", "pictures/5-map.png"]
    odd = ["", "pictures/a\0-map.png", "pictures/00001.jpg", "pictures", "../../etc/passwd"]
    entries = [entry(name) for name in (*outside, *inside_only, *odd)]
    assert drawn(run, {"pictures": [shown, *entries]}) == [shown]
    assert len(capsys.readouterr().err.splitlines()) == len(entries)
