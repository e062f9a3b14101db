"""A few of the kills of `make faults`, and that it would see what it looks for."""

import random

import pytest

from mvfa import checkpoint
from tests.faults.kills import differences, trial, undisturbed, unfinished_as_whole
from tests.faults.scenarios import World, scenarios, snapshot
from tests.methods import KEYS


@pytest.fixture
def world(demo_weights, demo_root, tmp_path) -> World:
    world = World(demo_weights, demo_root / "data", demo_root / "fewshot_seed", tmp_path)
    world.start.mkdir()
    return world


def test_a_killed_training_ends_as_an_undisturbed_one(world):
    scenario = scenarios(world)["train_few"]
    expected = undisturbed(scenario, world)
    assert {"new/Brain-4shot.pth", "out/metrics.json", "out/scores.csv"} < set(expected.files)
    kills, faults = trial(scenario, world, expected, random.Random(1))
    assert kills
    assert faults == []


def test_files_that_differ_are_seen():
    found = {"a": b"1", "b": b"2", "more": b""}
    expected = {"a": b"1", "b": b"3", "less": b""}
    assert list(differences(found, expected)) == [
        "b differs",
        "less is missing",
        "more was left over",
    ]


def test_an_unfinished_training_that_looks_whole_is_seen(world):
    world.fresh()
    path = world.work / "new" / "Brain-4shot.pth"
    path.parent.mkdir()
    checkpoint.save(path, {key: {} for key in KEYS}, {"ended": False})
    (path.parent / "metrics.json").write_text('{"seconds": 3, "image_auroc": 1.0}')
    seen = list(unfinished_as_whole(world, {}, {}))
    assert len(seen) == 3
    assert "new/Brain-4shot.pth does not say that its training ended" in seen
    assert list(unfinished_as_whole(world, {}, snapshot(world.work))) == [
        "new/Brain-4shot.pth does not say that its training ended"
    ]
    assert snapshot(path.parent)["metrics.json"] == b'{"image_auroc": 1.0}'
