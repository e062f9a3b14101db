"""Which mask pixels are foreground, by the rules half and any, in files of 8 bit and wider."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.catalog import ObjectInfo
from dataset.check import mask_content
from dataset.folder import load_mask, make_records
from dataset.masks import FOREGROUND, read_mask
from errors import UserError
from tests.wide_images import COLOUR, GREY, write_png, write_tiff

SHAPE = np.zeros((12, 10), np.uint8)
SHAPE[3:6, 2:8] = 1
RED = np.stack([SHAPE * 255, SHAPE * 0, SHAPE * 0], axis=2)


def palette(colour: list[int]) -> Image.Image:
    """Draw labels 0 and 1 as a palette image of black and a colour."""
    image = Image.fromarray(SHAPE).convert("P")
    image.putdata(SHAPE.ravel().tolist())
    image.putpalette([0, 0, 0, *colour])
    return image


def alpha() -> Image.Image:
    """Draw a black image with the shape in its alpha channel."""
    image = Image.new("RGBA", (10, 12))
    image.putalpha(Image.fromarray(SHAPE * 255))
    return image


# a mask file, and whether the rules half and any find the shape in it
MASKS = {
    "labels 0 and 1": (lambda p: Image.fromarray(SHAPE).save(p), False, True),
    "0 and 255": (lambda p: Image.fromarray(SHAPE * 255).save(p), True, True),
    "1 bit": (lambda p: Image.fromarray(SHAPE * 255).convert("1").save(p), True, True),
    "0 and 127": (lambda p: Image.fromarray(SHAPE * 127).save(p), False, True),
    "0 and 128": (lambda p: Image.fromarray(SHAPE * 128).save(p), True, True),
    "red on black": (lambda p: Image.fromarray(RED).save(p), False, True),
    "palette, dark red": (lambda p: palette([128, 0, 0]).save(p), False, True),
    "palette, white": (lambda p: palette([255, 255, 255]).save(p), True, True),
    "16 bit, 0 and 1": (lambda p: write_png(p, SHAPE.astype("u2"), GREY), False, True),
    "16 bit, 0 and 255": (lambda p: write_png(p, SHAPE * np.uint16(255), GREY), False, True),
    "16 bit, 0 and 32767": (lambda p: write_png(p, SHAPE * np.uint16(32767), GREY), False, True),
    "16 bit, 0 and 32768": (lambda p: write_png(p, SHAPE * np.uint16(32768), GREY), True, True),
    "16 bit, 0 and 65535": (lambda p: write_png(p, SHAPE * np.uint16(65535), GREY), True, True),
    "16 bit, white": (
        lambda p: write_png(p, np.stack([SHAPE * np.uint16(65535)] * 3, axis=2), COLOUR),
        True,
        True,
    ),
    "16 bit, red": (lambda p: write_png(p, RED * np.uint16(257), COLOUR), False, True),
}
WIDE_TIFF = {
    "labels of 32 bit": (SHAPE.astype("i4"), False, True),
    "floating point": (SHAPE.astype("f4"), True, True),
    "floating point, half": (SHAPE * np.float32(0.5), False, True),
    "floating point, 255": (SHAPE * np.float32(255), True, True),
}


def check(path, half: bool, any_: bool) -> None:
    """Check that the rules find the whole shape or refuse the mask, which is never empty."""
    for rule, found in (("half", half), ("any", any_)):
        if found:
            foreground = np.asarray(read_mask(path, rule)) > FOREGROUND
            assert np.array_equal(foreground, SHAPE > 0), rule
            assert mask_content(path, 12, rule)[:2] == (True, True)
        else:
            with pytest.raises(UserError, match="marks something, but no pixel is foreground"):
                mask_content(path, 12, rule)


@pytest.mark.parametrize("kind", MASKS)
def test_rules_on_png_masks(tmp_path, kind):
    write, half, any_ = MASKS[kind]
    write(tmp_path / "mask.png")
    check(tmp_path / "mask.png", half, any_)


@pytest.mark.parametrize("kind", WIDE_TIFF)
def test_rules_on_tiff_masks(tmp_path, kind):
    values, half, any_ = WIDE_TIFF[kind]
    write_tiff(tmp_path / "mask.tif", values)
    check(tmp_path / "mask.tif", half, any_)


def test_a_mask_whose_white_is_zero(tmp_path):
    write_tiff(tmp_path / "mask.tif", (1 - SHAPE) * np.uint16(65535), photometric=0)
    check(tmp_path / "mask.tif", half=True, any_=True)
    write_tiff(tmp_path / "mask.tif", np.full((12, 10), 65535, np.uint16), photometric=0)
    assert mask_content(tmp_path / "mask.tif", 12)[:2] == (False, False)


@pytest.mark.parametrize("rule", ["half", "any"])
def test_what_only_another_channel_marks_is_refused(tmp_path, rule):
    alpha().save(tmp_path / "mask.png")
    faint = np.stack([SHAPE * 0, SHAPE * 0, SHAPE], axis=2)  # its grey value rounds to 0
    Image.fromarray(faint).save(tmp_path / "blue.png")
    for name in ("mask.png", "blue.png"):
        with pytest.raises(UserError, match=rf"{name} marks something.*another channel") as error:
            mask_content(tmp_path / name, 12, rule)
        assert "--mask_rule" not in str(error.value)  # it would not help


@pytest.mark.parametrize("rule", ["half", "any"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_an_empty_mask_is_legal(tmp_path, dtype, rule):
    write_tiff(tmp_path / "mask.tif", np.zeros((12, 10), dtype))
    assert mask_content(tmp_path / "mask.tif", 12, rule)[:2] == (False, False)


def test_the_remedy_of_low_labels_is_named(tmp_path):
    write_png(tmp_path / "mask.png", SHAPE.astype("u2"), GREY)
    with pytest.raises(
        UserError, match=r"got grey values 0 1 \(16 bit\); .*as 0, or pass --mask_rule any"
    ):
        mask_content(tmp_path / "mask.png", 12)


def test_a_grey_edge_keeps_its_values_by_the_released_rule(tmp_path):
    """Augmented masks are interpolated, so values between count; by "any" there are none."""
    folder = tmp_path / "A_AD" / "valid" / "Ungood" / "img"
    folder.mkdir(parents=True)
    masks = folder.with_name("anomaly_mask")
    masks.mkdir()
    grey = np.array([[0, 1, 100, 200, 255]] * 5, np.uint8)
    Image.fromarray(grey).save(masks / "a.png")
    Image.fromarray(grey).save(folder / "a.png")
    half = ObjectInfo("A", "a", masks=True)
    found = load_mask(make_records(half, folder, ["a.png"])[0], 5)
    assert torch.equal(found, torch.from_numpy(grey))
    any_ = ObjectInfo("A", "a", masks=True, mask_rule="any")
    (record,) = make_records(any_, folder, ["a.png"])
    assert load_mask(record, 5)[0].tolist() == [0, 255, 255, 255, 255]
