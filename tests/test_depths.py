"""Cases and slices of the demo's images: what is planted is found, and nothing where nothing is."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import demo
from dataset.cases import Place, places
from dataset.catalog import CATALOG, object_info
from dataset.layout import LABELS, object_folder
from dataset.shots import choose_shots
from errors import UserError
from mvfa.shortcuts import MIDDLE, NONE, SLICE, VALID, Images, shortcuts
from report.arguments import parse as parse_reproduce
from synthetic.anatomy import PAINTERS
from synthetic.depths import SETS, all_places, file_names, slice_numbers
from synthetic.images import IMAGE_SEED, depth_of, names_of, write_demo
from synthetic.settings import DEPTHS, PLAIN, PLANTED, RANDOM

COUNTS = {"valid": 16, "test": 24}  # of each label, as the demo has


def split_images(obj: str, split: str, depth: str) -> Images:
    """Return the images of a split of the demo, by their names alone."""
    names = {
        state: names_of(obj, split, state, COUNTS[split], seed=IMAGE_SEED, depth=depth)
        for state in LABELS
    }
    assert not set(names["good"]) & set(names["Ungood"])
    labels = [label for state, label in LABELS.items() for _ in names[state]]
    found = [Place(n[:2], int(n[3:6])) for state in LABELS for n in names[state]]
    return Images(np.array(labels, bool), found)


def reached(obj: str, depth: str):
    """Return the shortcuts of an object's demo images, by name and fit."""
    test, valid = (split_images(obj, split, depth) for split in ("test", "valid"))
    return {(s.name, s.fit): s for s in shortcuts(test, valid)}


@pytest.mark.parametrize("obj", PAINTERS)
def test_a_planted_shortcut_is_found(obj):
    found = reached(obj, PLANTED)
    assert found[MIDDLE, NONE].auroc > 0.9
    assert found[SLICE, VALID].auroc > 0.9
    test = split_images(obj, "test", PLANTED)
    numbers = [place.slice for place in test.places]
    middle = (min(numbers) + max(numbers)) / 2
    distances = [abs(number - middle) for number in numbers]
    expected = 1 - roc_auc_score(test.labels, distances)
    assert found[MIDDLE, NONE].auroc == pytest.approx(expected)


@pytest.mark.parametrize("obj", PAINTERS)
def test_within_a_slice_number_it_is_worth_nothing(obj):
    """Some slice numbers have both labels, so this is a number."""
    assert reached(obj, PLANTED)[MIDDLE, NONE].within_slice == 0.5
    assert reached(obj, PLANTED)[SLICE, VALID].within_slice == 0.5


@pytest.mark.parametrize("obj", PAINTERS)
def test_without_the_plant_nothing_is_found(obj):
    found = reached(obj, RANDOM)
    assert found[MIDDLE, NONE].auroc == pytest.approx(0.5)
    assert found[SLICE, VALID].auroc == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("depth", [RANDOM, PLANTED])
def test_places_are_unique_and_cases_are_shared(depth):
    everything = [
        place
        for split, state in SETS
        for place in all_places(depth, split, state, np.random.default_rng(1))
    ]
    assert len(set(everything)) == len(everything)
    assert len({place.case for place in everything}) == 12
    for split, state in SETS:
        own = all_places(depth, split, state, np.random.default_rng(1))
        assert len({place.case for place in own}) == 12
        assert {place.slice for place in own} == set(slice_numbers(depth, state))
    middle, ends = slice_numbers(PLANTED, "Ungood"), slice_numbers(PLANTED, "good")
    assert len(set(middle) & set(ends)) >= 4


def test_more_images_do_not_change_the_names_of_others():
    few, many = (
        file_names(PLANTED, "test", "good", count, np.random.default_rng(1)) for count in (5, 30)
    )
    assert many[:5] == few
    with pytest.raises(ValueError, match="500 images of test/good; there are at most 48"):
        file_names(PLANTED, "test", "good", 500, np.random.default_rng(1))
    assert file_names(PLAIN, "test", "good", 2, np.random.default_rng(1)) == ["000.png", "001.png"]


def test_a_depth_changes_names_only(tmp_path):
    for depth in DEPTHS:
        write_demo(tmp_path / depth, valid=2, test=3, shots=(2,), depth=depth)
        assert depth_of(tmp_path / depth / "data") == depth

    def contents(depth: str) -> list[bytes]:
        return sorted(p.read_bytes() for p in (tmp_path / depth / "data").rglob("*.png"))

    assert contents(PLAIN) == contents(RANDOM) == contents(PLANTED)
    names = sorted(p.name for p in (tmp_path / PLAIN / "data").rglob("test/good/img/*.png"))
    assert set(names) == {"000.png", "001.png", "002.png"}
    for name in PAINTERS:
        info = object_info(name)
        plain, planted = (
            choose_shots(
                tmp_path / depth / "data", info, 2, lists=tmp_path / depth / "fewshot_seed", seed=0
            )
            for depth in (PLAIN, PLANTED)
        )
        for one, other in zip(
            [*plain.normal, *plain.abnormal], [*planted.normal, *planted.abnormal], strict=True
        ):
            assert one.image.read_bytes() == other.image.read_bytes()
            assert (one.mask is None) == (other.mask is None)
            if one.mask:
                assert one.mask.read_bytes() == other.mask.read_bytes()


@pytest.mark.parametrize("name", [*PAINTERS])
def test_the_reader_of_cases_reads_the_names(tmp_path, name):
    top = object_folder(tmp_path, name)
    names = names_of(name, "test", "Ungood", 24, seed=IMAGE_SEED, depth=PLANTED)
    found = places([top / "test/Ungood/img" / n for n in names], CATALOG[name], top)
    assert found == [Place(n[:2], int(n[3:6])) for n in names]


def test_a_demo_of_another_depth_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("synthetic.network.WEIGHTS", tmp_path)
    write_demo(tmp_path / "demo", valid=2, test=2, shots=(2,), depth=RANDOM)
    demo.prepare(tmp_path / "demo", RANDOM)
    for depth in (PLAIN, PLANTED):
        with pytest.raises(UserError, match=rf"a demo of --depth random, not {depth}; choose an"):
            demo.prepare(tmp_path / "demo", depth)


def test_the_flag():
    assert str(demo.parse([]).root) == "demo"
    assert str(demo.parse(["--depth", "planted"]).root) == "demo-planted"
    assert str(demo.parse(["--depth", "planted", "--root", "x"]).root) == "x"
    request = parse_reproduce(["--demo", "--depth", "random", "table1"])
    assert (str(request.root), request.depth) == ("demo-random", "random")
    assert "--depth random" in request.command
    with pytest.raises(UserError, match="--depth planted is of the demo's images; add --demo or"):
        parse_reproduce(["--depth", "planted", "table1"])
