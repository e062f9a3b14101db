"""Masks that would count as empty and broken links are refused; wide images are counted."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from dataset.catalog import object_info
from dataset.check import Checked, check_labels, check_records, mask_content
from dataset.folder import list_split
from dataset.layout import list_images
from errors import UserError
from tests.conftest import random_shots

SHAPE = np.zeros((12, 10), np.uint8)
SHAPE[3:6, 2:8] = 1


def palette_mask() -> Image.Image:
    """Draw labels 0 and 1 as a palette image whose colours are black and a dark red."""
    image = Image.fromarray(SHAPE, mode=None).convert("P")
    image.putdata(SHAPE.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


def black_palette_mask() -> Image.Image:
    """Draw the same labels, both in black."""
    image = palette_mask()
    image.putpalette([0, 0, 0] * 2)
    return image


def alpha_mask() -> Image.Image:
    """Draw a black image with the shape in its alpha channel."""
    image = Image.new("RGBA", (10, 12))
    image.putalpha(Image.fromarray(SHAPE * 255))
    return image


LOW = {
    "labels 0 and 1": lambda: Image.fromarray(SHAPE),
    "palette": palette_mask,
    "palette of one colour": black_palette_mask,
    "red on black": lambda: Image.fromarray(np.stack([SHAPE * 255, SHAPE * 0, SHAPE * 0], axis=2)),
    "alpha only": alpha_mask,
    "at the threshold": lambda: Image.fromarray(SHAPE * 127),
    "everything": lambda: Image.new("L", (10, 12), 1),
}
HIGH = {
    "0 and 255": lambda: Image.fromarray(SHAPE * 255),
    "1 bit": lambda: Image.fromarray(SHAPE * 255).convert("1"),
    "white on black": lambda: Image.fromarray(np.stack([SHAPE * 255] * 3, axis=2)),
    "above the threshold": lambda: Image.fromarray(SHAPE * 128),
}
EMPTY = {
    "grey": lambda: Image.new("L", (10, 12)),
    "colour": lambda: Image.new("RGB", (10, 12)),
    "opaque": lambda: Image.new("RGBA", (10, 12), (0, 0, 0, 255)),
    "transparent": lambda: Image.new("RGBA", (10, 12)),
    "1 bit": lambda: Image.new("1", (10, 12)),
}


@pytest.mark.parametrize("kind", LOW)
def test_a_mask_that_would_count_as_empty_is_refused(tmp_path, kind):
    LOW[kind]().save(tmp_path / "mask.png")
    with pytest.raises(
        UserError, match=r"mask\.png marks something, but no pixel is foreground: got .* as 255"
    ) as error:
        mask_content(tmp_path / "mask.png", 8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", HIGH)
def test_a_mask_with_foreground_is_taken(tmp_path, kind):
    HIGH[kind]().save(tmp_path / "mask.png")
    assert mask_content(tmp_path / "mask.png", 8)[:2] == (True, True)


@pytest.mark.parametrize("kind", EMPTY)
def test_a_mask_that_holds_nothing_is_legal(tmp_path, kind):
    EMPTY[kind]().save(tmp_path / "mask.png")
    assert mask_content(tmp_path / "mask.png", 8)[:2] == (False, False)


def test_a_region_may_vanish_in_the_resized_mask(tmp_path):
    dot = np.zeros((200, 200), np.uint8)
    dot[1, 1] = 255
    Image.fromarray(dot).save(tmp_path / "mask.png")
    assert mask_content(tmp_path / "mask.png", 8)[:2] == (True, False)


def test_images_of_more_than_8_bit_are_counted(demo_root, tmp_path):
    shutil.copytree(demo_root / "data" / "Chest_AD", tmp_path / "Chest_AD")
    folder = tmp_path / "Chest_AD/test/good/img"
    values = np.arange(120).reshape(12, 10) * 30
    Image.fromarray(values.astype("<u2")).save(folder / "000.png")
    Image.fromarray(values.astype("<f4")).save(folder / "009.tif")
    records = list_split(tmp_path, object_info("Chest"), "test")
    assert check_records(records, 32) == Checked(
        normal=6, abnormal=5, masks=0, empty=0, foreground=0, wide=2
    )
    broken = values.astype("<f4")
    broken[0, 0] = np.nan
    Image.fromarray(broken).save(folder / "009.tif")
    with pytest.raises(UserError, match=r"009\.tif has values that are not finite"):
        check_records(records, 32)


def test_one_label_says_what_it_counts():
    with pytest.raises(
        UserError, match=r"got 3 abnormal and 0 normal images; check the test folder$"
    ):
        check_labels(3, 0, "images")
    with pytest.raises(
        UserError, match=r"got 0 abnormal and 9 normal pixels; check the test folder and its masks$"
    ):
        check_labels(0, 9, "pixels")


def test_a_whole_split_is_counted(demo_root, tmp_path):
    shutil.copytree(demo_root / "data" / "Brain_AD", tmp_path / "Brain_AD")
    Image.new("L", (9, 9)).save(tmp_path / "Brain_AD/test/Ungood/anomaly_mask/002.png")
    seen = []
    checked = check_records(
        list_split(tmp_path, object_info("Brain"), "test"), 32, lambda: seen.append(1)
    )
    assert checked == Checked(normal=5, abnormal=5, masks=5, empty=1, foreground=4)
    assert len(seen) == 10


def folder_of(tmp_path):
    folder = tmp_path / "img"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4)).save(folder / name)
    return folder


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "._a.png").write_bytes(b"a resource fork")
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "a.png", folder / ".hidden" / "c.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "empty").mkdir()
    assert [path.name for path in list_images(folder)] == ["a.png", "b.png"]


def test_files_that_cannot_be_followed_are_refused(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "c.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"c\.png is a link that leads nowhere"):
        list_images(folder)
    (folder / "c.png").unlink()
    (folder / "c.png").symlink_to("c.png")
    with pytest.raises(UserError, match=r"c\.png is a link that leads nowhere"):
        list_images(folder)
    (folder / "c.png").unlink()
    os.mkfifo(folder / "c.png")
    with pytest.raises(UserError, match=r"c\.png is not a regular file"):
        list_images(folder)
    (folder / "c.png").unlink()
    (folder / "more" / "deep").mkdir(parents=True)
    shutil.copy(folder / "a.png", folder / "more" / "deep" / "d.png")
    with pytest.raises(
        UserError, match=r"more/deep/d\.png is an image in a subfolder; move it into .*img"
    ):
        list_images(folder)


def test_folders_that_cannot_be_followed_are_refused(tmp_path):
    assert list_images(tmp_path / "absent") == []
    (tmp_path / "link").symlink_to("nowhere")
    for folder in (tmp_path / "link", tmp_path / "link" / "good" / "img"):
        with pytest.raises(UserError, match=r"link is a link that leads nowhere"):
            list_images(folder)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file is a file, not a folder of images"):
        list_images(tmp_path / "file")


def test_a_link_to_nowhere_does_not_change_a_draw(demo_root, tmp_path):
    shutil.copytree(demo_root / "data" / "Chest_AD", tmp_path / "Chest_AD")
    random_shots(tmp_path, "Chest", 2)
    (tmp_path / "Chest_AD" / "valid" / "good" / "img" / "0.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"0\.png is a link that leads nowhere"):
        random_shots(tmp_path, "Chest", 2)


def test_an_unreadable_image_is_refused(demo_root, tmp_path, monkeypatch):
    """Root may read everything, so opening is made to fail instead of changing permissions."""
    shutil.copytree(demo_root / "data" / "Chest_AD", tmp_path / "Chest_AD")
    opened = Image.open

    def deny(path, *arguments, **settings):
        if path.name == "000.png" and path.parent.parent.name == "good":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **settings)

    monkeypatch.setattr(Image, "open", deny)
    with pytest.raises(UserError, match=r"000\.png is not a readable image .*Permission denied"):
        check_records(list_split(tmp_path, object_info("Chest"), "test"), 32)
