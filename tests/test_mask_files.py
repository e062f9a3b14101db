"""A mask belongs to one image, and has its shape."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from dataset.catalog import object_info
from dataset.check import check_records
from dataset.folder import list_split
from dataset.mask_files import pair_masks
from dataset.masks import same_shape
from errors import UserError
from preparation.audit import check_objects

UNGOOD = Path("Brain_AD/test/Ungood")


@pytest.fixture
def brain(demo_root, tmp_path) -> Path:
    """Copy Brain; return the folder of the abnormal test images' folders."""
    shutil.copytree(demo_root / "data" / "Brain_AD", tmp_path / "Brain_AD")
    return tmp_path / UNGOOD


def masks_of(data: Path) -> list[str | None]:
    """Return the names of the masks of Brain's abnormal test images."""
    return [r.mask_name for r in list_split(data, object_info("Brain"), "test") if r.label]


def findings(data: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return the errors of `prepare_data.py check`."""
    (report,) = check_objects(data, ["Brain"], data, jobs=1).objects
    return [(f.kind, f.text, f.files) for f in report.findings if f.level == "error"]


def copy(path: Path, name: str) -> Path:
    """Save an image under another name, in the format that it says."""
    Image.open(path).save(path.with_name(name))
    return path.with_name(name)


def test_which_masks_pair():
    pairs = pair_masks(
        ["a.png", "b.png", "c.jpg", "c.png", "d.jpg", "d.png", "e.bmp", "e.jpg", "f.png"],
        ["a.png", "b.tif", "c.png", "d.jpg", "d.png", "e.png", "f.png", "f.tif", "x.png"],
    )
    # c.png is the mask of c.png, so c.jpg has none
    assert pairs.masks == {
        "a.png": "a.png",
        "b.png": "b.tif",
        "c.png": "c.png",
        "d.jpg": "d.jpg",
        "d.png": "d.png",
    }
    assert pairs.several == {"f.png": ["f.png", "f.tif"]}
    assert pairs.shared == {name: ["e.bmp", "e.jpg"] for name in ("e.bmp", "e.jpg")}


def test_only_an_image_is_a_mask(brain, tmp_path):
    """The first file of an image's stem was taken, here that of an annotation program."""
    masks = brain / "anomaly_mask"
    copy(masks / "000.png", "000.tif")
    (masks / "000.png").unlink()
    for name in ("000.json", "000.xml", "000", "._000.png"):
        (masks / name).write_text("{}")
    assert masks_of(tmp_path)[0] == "000.tif"
    assert findings(tmp_path) == []
    (masks / "000.tif").unlink()
    with pytest.raises(UserError, match=r"no mask .*anomaly_mask/000\.png for .*img/000\.png"):
        masks_of(tmp_path)


@pytest.mark.parametrize("other", ["000.tif", "000.PNG"])
def test_two_masks_of_an_image_are_refused(brain, tmp_path, other):
    copy(brain / "anomaly_mask" / "000.png", other)
    (kind, text, names) = findings(tmp_path)[0]
    assert (kind, names) == ("mask_several", ("test/Ungood/img/000.png",))
    assert "with several masks of its name; keep one" in text
    with pytest.raises(UserError, match=r"000\.png has several masks .*000\.\w+ 000\.\w+.*one$"):
        masks_of(tmp_path)


def test_one_mask_of_two_images_is_refused(brain, tmp_path):
    copy(brain / "img" / "000.png", "000.bmp")
    with pytest.raises(UserError, match=r"no mask .*anomaly_mask/000\.bmp for .*img/000\.bmp"):
        masks_of(tmp_path)
    assert [error[0] for error in findings(tmp_path)] == ["mask_missing"]
    mask = copy(brain / "anomaly_mask" / "000.png", "000.tif")
    mask.with_suffix(".png").unlink()
    with pytest.raises(
        UserError, match=r"000\.bmp 000\.png of .*img have one mask .*; give each image a mask of"
    ):
        masks_of(tmp_path)
    assert [error[0] for error in findings(tmp_path)] == ["mask_shared"]


def test_a_mask_that_leads_nowhere_is_named(brain, tmp_path):
    mask = brain / "anomaly_mask" / "000.png"
    mask.unlink()
    mask.symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"anomaly_mask/000\.png is a link that leads nowhere"):
        masks_of(tmp_path)
    mask.unlink()
    mask.mkdir()
    with pytest.raises(UserError, match=r"no mask .*anomaly_mask/000\.png"):
        masks_of(tmp_path)


@pytest.mark.parametrize(
    ("image", "mask", "same"),
    [
        ((240, 240), (240, 240), True),
        ((240, 240), (512, 512), True),
        ((1024, 512), (240, 120), True),
        ((1000, 333), (100, 33), True),  # rounded
        ((1000, 333), (100, 34), True),
        ((37, 50), (3, 4), True),
        ((512, 496), (512, 512), False),
        ((512, 1024), (512, 512), False),
        ((512, 1024), (1024, 512), False),
        ((240, 240), (240, 243), False),
        ((240, 240), (120, 122), False),
        ((1000, 333), (100, 35), False),
    ],
)
def test_which_sizes_have_one_shape(image, mask, same):
    assert same_shape(image, mask) == same
    assert same_shape(mask, image) == same
    assert same_shape(mask[::-1], image[::-1]) == same


@pytest.mark.parametrize("mode", ["L", "I;16"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_of_another_shape_is_refused(brain, tmp_path, suffix, mode):
    """It was stretched: pixel AUROC 0.7546 without a word."""
    image = brain / "img" / "000.png"
    mask = brain / "anomaly_mask" / "000.png"
    width, height = Image.open(image).size
    grey = Image.open(image).convert(mode)
    image.unlink()
    image = image.with_suffix(suffix)
    grey.save(image)
    records = list_split(tmp_path, object_info("Brain"), "test")
    check_records(records, 32)
    original = Image.open(mask)
    for size in ((2 * width, 2 * height), (width // 2, height // 2)):
        original.resize(size).save(mask)
        check_records(records, 32)
    original.resize((width, height // 2)).save(mask)
    with pytest.raises(UserError) as error:
        check_records(records, 32)
    assert str(error.value) == (
        f"{mask} has {width} x {height // 2} pixels, and its image {image} {width} x {height}; "
        "allowed are masks of the image's aspect ratio, so replace it"
    )


def test_a_mask_of_a_turned_image_is_refused_and_says_so(brain, tmp_path):
    """Pixels are used as they are stored, as in the released code; a viewer turns them."""
    image = Image.open(brain / "img" / "000.png").convert("RGB").resize((60, 40))
    (brain / "img" / "000.png").unlink()
    exif = Image.Exif()
    exif[274] = 6  # Orientation
    image.save(brain / "img" / "000.jpg", exif=exif)
    Image.open(brain / "anomaly_mask" / "000.png").resize((40, 60)).save(
        brain / "anomaly_mask" / "000.png"
    )
    records = list_split(tmp_path, object_info("Brain"), "test")
    with pytest.raises(
        UserError,
        match=r"000\.png has 40 x 60 pixels, and its image .*000\.jpg 60 x 40; it fits the image "
        "turned by a quarter, and tags that turn images are not applied; allowed are",
    ):
        check_records(records, 32)
