"""Catalog, folders, shot lists, resizing and augmentation."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.catalog import BENCHMARK, CATALOG, PAPER_ORDER, ObjectInfo, object_info
from dataset.folder import ImageSet, list_split, load_image, load_mask, resize
from dataset.intensity import Intensity
from dataset.items import unpack_masks
from dataset.medical_few import Support, evaluation_set
from dataset.medical_zero import others, zero_shot_set
from dataset.shots import Shots, choose_shots
from errors import UserError
from tests.conftest import listed_shots, random_shots
from utils import augment

BENCHMARK_NAMES = ["Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology"]


def test_catalog():
    assert list(CATALOG) == [*BENCHMARK_NAMES, "Skin", "Skin_HAM10000", "Skin_ISIC2019"]
    assert [i.name for i in BENCHMARK] == BENCHMARK_NAMES
    assert sorted(PAPER_ORDER) == sorted(BENCHMARK_NAMES)
    assert [i.name for i in CATALOG.values() if i.masks] == ["Brain", "Liver", "Retina_RESC"]
    with pytest.raises(UserError, match="unknown object 'Lung'; known: Brain, Liver"):
        object_info("Lung")


def test_order_and_labels(demo_root):
    tests = evaluation_set(demo_root / "data", object_info("Brain"), 48)
    names = [r.image.name for r in tests.records]
    assert names == sorted(names[:5]) + sorted(names[5:])
    assert tests.labels.tolist() == [0] * 5 + [1] * 5
    item = tests[7]
    assert item.image.shape == (3, 48, 48)
    assert item.image.dtype == torch.uint8
    assert unpack_masks([item.mask], 48).any()
    assert not unpack_masks([tests[0].mask], 48).any()


def test_resize_is_pillows_where_the_order_of_passes_never_changed():
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for resample in (Image.Resampling.BICUBIC, Image.Resampling.NEAREST):
        expected = image.resize((60, 60), resample)
        assert np.array_equal(np.asarray(resize(image, 60, resample)), np.asarray(expected))


def test_a_tall_image_is_resized_vertically_first():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 110), dtype=np.uint8))
    bicubic = Image.Resampling.BICUBIC
    expected = image.resize((110, 112), bicubic).resize((112, 112), bicubic)
    assert np.array_equal(np.asarray(resize(image, 112, bicubic)), np.asarray(expected))


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".jpg", ".bmp", ".tif", ".tiff", ".JPG"])
def test_every_image_format(tmp_path, suffix):
    folder = tmp_path / "Chest_AD" / "test" / "good" / "img"
    folder.mkdir(parents=True)
    Image.new("L", (20, 30), 128).save(folder / f"a{suffix}")
    (folder / "notes.txt").write_text("not an image")
    (record,) = list_split(tmp_path, object_info("Chest"), "test")
    assert load_image(record.image, 8).float().mean() == pytest.approx(128, abs=1)


def test_what_is_missing_is_named(tmp_path, demo_root):
    with pytest.raises(
        UserError, match=r"no folder .*Liver_AD; run python prepare_data.py download Liver"
    ):
        list_split(tmp_path, object_info("Liver"), "test")
    (tmp_path / "Liver_AD").mkdir()
    with pytest.raises(UserError, match=r"no images below .*Liver_AD/test; expected \.png"):
        list_split(tmp_path, object_info("Liver"), "test")
    shutil.copytree(demo_root / "data" / "Brain_AD", tmp_path / "Brain_AD")
    next((tmp_path / "Brain_AD/test/Ungood/anomaly_mask").glob("*.png")).unlink()
    with pytest.raises(UserError, match=r"no mask .*; a mask has its image's file name"):
        list_split(tmp_path, object_info("Brain"), "test")
    broken = next((tmp_path / "Brain_AD/test/good/img").glob("*.png"))
    broken.write_text("not an image")
    with pytest.raises(UserError, match="is not a readable image"):
        load_image(broken, 8)


def test_a_mask_may_have_another_suffix(tmp_path, demo_root):
    shutil.copytree(demo_root / "data" / "Brain_AD", tmp_path / "Brain_AD")
    for mask in sorted((tmp_path / "Brain_AD/test/Ungood/anomaly_mask").glob("*.png")):
        Image.open(mask).save(mask.with_suffix(".bmp"))
        mask.unlink()
    records = list_split(tmp_path, object_info("Brain"), "test")
    assert [r.mask.suffix for r in records if r.label] == [".bmp"] * 5
    assert load_mask(records[-1], 32).max() == 255


def test_shots_follow_the_list(demo_root):
    shots = listed_shots(demo_root, "Brain", 2)
    text = (demo_root / "fewshot_seed/Brain/2-shot.txt").read_text().splitlines()
    assert f"n-0: {' '.join(shots.names()['normal'])}" in text
    assert f"a-0: {' '.join(shots.names()['abnormal'])}" in text


def test_drawn_shots_depend_on_the_seed_alone(demo_root):
    def draw(seed: int) -> dict:
        return random_shots(demo_root / "data", "Chest", 2, seed).names()

    assert draw(1) == draw(1)
    assert len({str(draw(seed)) for seed in range(8)}) > 1


def test_bad_shot_lists_are_refused(demo_root, tmp_path):
    data = demo_root / "data"
    brain = object_info("Brain")
    with pytest.raises(
        UserError, match=r"no shot list .*; run python prepare_data.py download shots, pass --few"
    ):
        choose_shots(data, brain, 2, lists=tmp_path, seed=0)
    with pytest.raises(UserError, match="has 4 images; choose at most as many"):
        random_shots(data, "Brain", 5)
    (tmp_path / "Brain").mkdir()
    path = tmp_path / "Brain" / "2-shot.txt"
    for content, message in (
        ("n-1: 000.png 001.png\na-1: 000.png 001.png\n", "has no line 'n-0'"),
        ("n-0: 000.png\na-0: 000.png 001.png\n", "names 1 files in draw 0; 2 are allowed"),
        ("n-0: 000.png nowhere.png\na-0: 000.png 001.png\n", "names nowhere.png, which is not in"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            choose_shots(data, brain, 2, lists=tmp_path, seed=0)


def test_support_set(demo_root):
    shots = listed_shots(demo_root, "Brain", 2)
    support = Support(shots, object_info("Brain"), 32)
    assert support.images.shape == (44, 3, 32, 32)
    assert support.labels.tolist() == [1] * 22 + [0] * 22
    assert support.normal == list(range(22, 44))
    assert support.masks[:22].flatten(1).any(dim=1).all()
    assert not support.masks[22:].any()


def test_augmentation_by_hand():
    images = torch.rand(2, 1, 8, 8)
    versions = augment(images)
    assert versions.shape == (22, 1, 8, 8)
    torch.testing.assert_close(versions[:2], images)
    torch.testing.assert_close(versions[18:20], torch.flip(images, [3]))
    torch.testing.assert_close(versions[20:], torch.flip(images, [2]))
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    shifted = augment(ramp)[5]  # by 0.1 of half the side in x: one pixel of twenty
    torch.testing.assert_close(shifted[0, 5, :18], torch.arange(1.0, 19.0))


def test_zero_shot_set_leaves_its_object_out(demo_root):
    train = zero_shot_set(demo_root / "data", others("Liver"), 16)
    assert len(train) == 50
    assert {r.object.name for r in train.records} == set(BENCHMARK_NAMES) - {"Liver"}
    assert train.masked.sum() == 20
    assert len(others("Liver")) == 5
    assert len(others("Thyroid")) == 6


def test_image_sets_know_their_nouns(demo_root):
    records = list_split(demo_root / "data", object_info("Chest"), "valid")
    assert set(ImageSet(records, 16).nouns) == {"Chest X-ray film"}


def test_the_rule_of_an_object_reaches_its_images(tmp_path):
    """Test images, and shots, whose versions start with the images themselves."""
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 100
    for split in ("valid", "test"):
        folder = tmp_path / "A_AD" / split / "good" / "img"
        folder.mkdir(parents=True)
        Image.fromarray(values).save(folder / "a.png")
    info = ObjectInfo("A", "a", masks=False, intensity=Intensity("range", 0, 2550))
    expected = torch.from_numpy(np.minimum(values / 10, 255)).byte().expand(3, 8, 8)
    assert torch.equal(evaluation_set(tmp_path, info, 8)[0].image, expected)
    (shot,) = list_split(tmp_path, info, "valid")
    support = Support(Shots([shot], []), info, 8)
    assert torch.equal(support.images[0], expected / 255)
