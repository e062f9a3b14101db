"""An object is its folder: what flags, object.toml, the catalog and the files say of it."""

import argparse

import pytest
from PIL import Image

from dataset.cases import case_of, group_by_case
from dataset.catalog import CATALOG, find_object, object_info, object_name
from dataset.draws import write_lists
from dataset.intensity import Intensity
from errors import UserError
from mvfa.options import parse


def make(data, name: str, *, masks: bool = False, images: tuple[str, ...] = ("a.png",), toml=""):
    """Make an object's folder with a few images of valid/ and test/."""
    for split in ("valid", "test"):
        for state in ("good", "Ungood"):
            folder = data / f"{name}_AD" / split / state / "img"
            folder.mkdir(parents=True)
            for image in images:
                Image.new("L", (4, 4)).save(folder / image)
    if masks:
        folder = data / f"{name}_AD" / "test" / "Ungood" / "anomaly_mask"
        folder.mkdir()
        Image.new("L", (4, 4), 255).save(folder / images[0])
    if toml:
        (data / f"{name}_AD" / "object.toml").write_text(toml, encoding="utf-8")


def test_an_object_of_the_catalog_stays_as_it_is(tmp_path):
    for name, info in CATALOG.items():
        make(tmp_path, name)
        assert find_object(tmp_path, name) == info == object_info(name)
        assert find_object(tmp_path, name).notes == ()
        assert (info.mask_rule, str(info.intensity), info.cases) == ("half", "auto", "")


def test_an_object_without_code(tmp_path):
    make(tmp_path, "Thyroid_gland", masks=True)
    info = find_object(tmp_path, "Thyroid_gland")
    assert (info.name, info.noun, info.masks) == ("Thyroid_gland", "Thyroid gland", True)
    assert not info.benchmark
    assert len(info.notes) == 1
    assert "noun 'Thyroid gland' (its name; --noun changes it)" in info.notes[0]
    assert "masks (by looking)" in info.notes[0]


def test_masks_are_found_by_looking(tmp_path):
    make(tmp_path, "A")
    assert not find_object(tmp_path, "A").masks
    folder = tmp_path / "A_AD" / "valid" / "Ungood" / "anomaly_mask"
    folder.mkdir()
    (folder / ".DS_Store").touch()
    assert not find_object(tmp_path, "A").masks
    (folder / "a.png").touch()
    assert find_object(tmp_path, "A").masks
    (tmp_path / "A_AD" / "object.toml").write_text("masks = false")
    assert not find_object(tmp_path, "A").masks


TOML = """
noun = "thyroid ultrasound"
masks = true
mask_rule = "any"
intensity = "-200:250"
cases = '(?P<case>p\\d+)_.*'
"""


def test_flags_come_before_the_file_and_the_file_before_the_catalog(tmp_path):
    make(tmp_path, "Thyroid", toml=TOML)
    info = find_object(tmp_path, "Thyroid")
    assert info.noun == "thyroid ultrasound"
    assert info.masks
    assert info.mask_rule == "any"
    assert info.intensity == Intensity("range", -200, 250)
    assert info.as_dict() == {
        "noun": "thyroid ultrasound",
        "masks": True,
        "mask_rule": "any",
        "intensity": "-200:250",
    }
    assert "object.toml" in info.notes[0]
    flagged = find_object(tmp_path, "Thyroid", "neck", "half", Intensity("full"))
    assert (flagged.noun, flagged.mask_rule, flagged.intensity.kind) == ("neck", "half", "full")
    assert flagged.cases == info.cases
    assert "noun 'neck' (--noun)" in flagged.notes[0]
    assert "\n" not in flagged.notes[0]


def test_a_file_overrides_the_catalog_but_for_masks(tmp_path):
    make(tmp_path, "Brain", toml='intensity = "full"\nmask_rule = "any"\nnoun = "head"\n')
    info = find_object(tmp_path, "Brain")
    assert (info.noun, info.mask_rule, str(info.intensity)) == ("head", "any", "full")
    assert info.benchmark
    assert info.test_images == CATALOG["Brain"].test_images
    for part in ("Brain: noun 'head'", "mask_rule any", "intensity full", "(object.toml)"):
        assert part in info.notes[0]
    make(tmp_path, "Chest", toml="masks = true")
    with pytest.raises(UserError, match=r"object\.toml: masks of Chest is false in the catalog"):
        find_object(tmp_path, "Chest")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("noun = x", r"cannot be read as TOML \(.*line 1"),
        ("nuon = 'x'", r"unknown key 'nuon'; allowed are masks, noun, mask_rule, intensity, cases"),
        ("masks = 1", "masks = 1; allowed are true and false"),
        ("noun = 5", "noun = 5; allowed is text in quotes"),
        ("noun = ''", "noun: '' is no noun"),
        ("mask_rule = 'most'", "got 'most'; allowed are half and any"),
        ("intensity = '5:1'", "LOW must be below HIGH"),
        ("cases = '('", r"cases: '\(' is no regular expression"),
        ("cases = 'a(.*)'", r"allowed is a regular expression with a group \(\?P<case>"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, toml, message):
    make(tmp_path, "A", toml=toml)
    with pytest.raises(UserError, match=rf"object\.toml.*{message}") as error:
        find_object(tmp_path, "A")
    assert "\n" not in str(error.value)


def test_a_missing_folder_names_what_there_is(tmp_path):
    make(tmp_path, "Thyroid")
    make(tmp_path, "Brain")
    with pytest.raises(UserError) as error:
        find_object(tmp_path, "Tyroid")
    text = str(error.value)
    assert f"no folder {tmp_path}/Tyroid_AD" in text
    assert all(name in text for name in CATALOG)
    assert "objects in" in text
    assert text.endswith(": Brain Thyroid)")
    assert "http" not in text
    assert "\n" not in text
    with pytest.raises(UserError, match=r"objects in .*nowhere: none\)"):
        find_object(tmp_path / "nowhere", "Liver")


@pytest.mark.parametrize("name", ["", " a", "a/b", "../a", "..", ".a", "a\\b", "a\nb", "a\0", "C:"])
def test_a_name_is_part_of_a_folder_name(name):
    with pytest.raises(argparse.ArgumentTypeError):
        object_name(name)
    for script in ("train_few", "test_zero"):
        with pytest.raises(UserError, match=r"--obj: .* is no object; "):
            parse(script, ["--obj", name])


def test_names_and_aliases():
    assert object_name("HAM10000") == "Skin_HAM10000"
    assert object_name("Thyroid v1.2 (left)") == "Thyroid v1.2 (left)"


def test_a_pattern_says_which_images_are_one_patients(tmp_path):
    pattern = r"(?P<case>p\d+)-.*"
    assert case_of("p12-left.png", pattern) == "p12"
    assert case_of("other.png", pattern) == "other"
    names = ("p1-a.png", "p1-b.png", "p2-a.png", "p2-b.png")
    assert group_by_case(names, pattern) == [["p1-a.png", "p1-b.png"], ["p2-a.png", "p2-b.png"]]
    make(tmp_path, "Thyroid", images=names, toml=f"cases = '{pattern}'")
    (path,) = write_lists(tmp_path, "Thyroid", tmp_path / "lists", [2], draws=20, seed=1)
    for line in path.read_text().splitlines():
        drawn = line.split(": ")[1].split()
        assert {case_of(name, pattern) for name in drawn} == {"p1", "p2"}
