"""Files of 8 bit are read as ever, wider ones exactly, and what cannot be read is one line."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dataset import wide
from dataset.folder import load_image
from dataset.intensity import Intensity, intensity
from dataset.pixels import Pixels, check_file, pixels_to_rgb, read_pixels, read_rgb
from errors import UserError
from tests.wide_images import (
    COLOUR,
    COLOUR_ALPHA,
    GREY,
    GREY_ALPHA,
    PLANAR,
    WIDE_COPIES,
    write_dicom,
    write_png,
    write_tiff,
)

AUTO = Intensity()
RANDOM = np.random.default_rng(0)
NARROW = [
    *[(mode, ".png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
    *[(mode, ".tif") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB")],
    *[(mode, ".jpg") for mode in ("L", "RGB", "CMYK")],
    *[(mode, ".bmp") for mode in ("1", "L", "P", "RGB")],
    ("P", ".gif"),
    ("RGB", ".webp"),
]


def values_of(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw values over the whole range of a type."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return ((RANDOM.random(shape) - 0.3) * 5000).astype(kind)
    ends = np.iinfo(kind)
    return RANDOM.integers(ends.min, ends.max, shape, dtype=kind, endpoint=True)


def narrow_image(mode: str) -> Image.Image:
    """Return a random image of 8 bit and a mode."""
    if mode == "LAB":
        return Image.frombytes("LAB", (12, 10), values_of("u1", (10, 12, 3)).tobytes())
    image = Image.fromarray(values_of("u1", (10, 12, 3)))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(values_of("u1", (10, 12))))
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "suffix"), NARROW)
def test_files_of_8_bit_are_pillows_whatever_the_rule(tmp_path, mode, suffix):
    path = tmp_path / f"image{suffix}"
    narrow_image(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    for rule in ("auto", "minmax", "full", "50:60"):
        assert np.array_equal(np.asarray(read_rgb(path, intensity(rule))), expected)
    pixels = read_pixels(path)
    assert (pixels.bits, pixels.wide, pixels.values.dtype) == (8, False, np.uint8)
    assert np.array_equal(np.asarray(pixels_to_rgb(pixels, AUTO)), expected)
    assert not check_file(path).wide


@pytest.mark.parametrize(
    ("kind", "channels"), [(GREY, 1), (GREY_ALPHA, 2), (COLOUR, 3), (COLOUR_ALPHA, 4)]
)
def test_png_of_16_bit_keeps_every_bit(tmp_path, kind, channels):
    values = values_of("u2", (9, 11, channels))
    write_png(tmp_path / "a.png", values, kind)
    pixels = read_pixels(tmp_path / "a.png")
    assert np.array_equal(pixels.values, values[..., :3] if channels > 2 else values[..., 0])
    assert (pixels.values.dtype, pixels.bits, pixels.full) == (np.uint16, 16, (0, 65535))
    assert check_file(tmp_path / "a.png").wide


@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "i4", "f4", "f8"])
def test_tiff_of_more_than_8_bit_keeps_every_bit(tmp_path, dtype, order, photometric):
    values = values_of(dtype, (9, 11, 3) if photometric == 2 else (9, 11))
    write_tiff(tmp_path / "a.tif", values, photometric=photometric, order=order)
    pixels = read_pixels(tmp_path / "a.tif")
    assert np.array_equal(pixels.values, values)
    assert pixels.values.dtype == np.dtype(dtype)
    assert pixels.inverted == (photometric == 0)
    assert check_file(tmp_path / "a.tif").wide


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32, np.int32, np.float32])
def test_pillow_alone_keeps_every_bit(tmp_path, monkeypatch, kind):
    """It reads what OpenCV cannot, and gives some types in others."""
    monkeypatch.setitem(wide.READERS, wide.OPENCV, lambda *_: None)
    values = values_of(np.dtype(kind).str, (9, 11))
    write_tiff(tmp_path / "a.tif", values)
    pixels = read_pixels(tmp_path / "a.tif")
    assert np.array_equal(pixels.values, values)
    assert pixels.values.dtype == kind


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_compressed_tiff_keeps_every_bit(tmp_path, mode, compression):
    values = values_of({"I;16": "u2", "I": "i4", "F": "f4"}[mode], (9, 11))
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read_pixels(tmp_path / "a.tif").values, values)


def test_wide_values_become_black_to_white(tmp_path):
    """12 bit in 16: clipped to white by Pillow, from black to white here."""
    ramp = (np.arange(256, dtype=np.uint16) << 4).reshape(16, 16)
    write_png(tmp_path / "a.png", ramp, GREY)
    grey = np.arange(256).reshape(16, 16)
    for rule, expected in {
        "auto": grey,
        "minmax": grey,
        "0:4080": grey,
        "full": np.rint(ramp / 257),
        "0:2040": np.minimum(2 * grey, 255),
    }.items():
        image = np.asarray(read_rgb(tmp_path / "a.png", intensity(rule)))
        assert np.array_equal(image, np.repeat(expected[..., None], 3, axis=2)), rule


def test_the_full_range_of_each_type(tmp_path):
    ends = {"u2": (0, 65535), "i2": (-32768, 32767), "u4": (0, 2**32 - 1), "f4": (0, 1)}
    for dtype, full in ends.items():
        write_tiff(tmp_path / "a.tif", values_of(dtype, (4, 4)))
        assert read_pixels(tmp_path / "a.tif").full == full


def test_white_is_zero_is_turned_last(tmp_path):
    values = np.array([[0, 1000, 2000, 4000]], np.uint16)
    write_tiff(tmp_path / "a.tif", values, photometric=0)
    image = np.asarray(read_rgb(tmp_path / "a.tif", AUTO))[0, :, 0]
    assert image.tolist() == [255, 191, 127, 0]  # 255 - rint(255 * value / 4000)


def test_a_wide_image_becomes_a_tensor(tmp_path):
    values = values_of("u2", (8, 8, 3))
    write_png(tmp_path / "a.png", values, COLOUR)
    tensor = load_image(tmp_path / "a.png", 8, intensity("full"))
    assert tensor.dtype == torch.uint8
    assert torch.equal(tensor, torch.from_numpy(np.rint(values / 257)).permute(2, 0, 1).byte())


def one_line(read, path, message: str) -> None:
    """Check that a file is refused in one line that names it."""
    with pytest.raises(UserError, match=message) as error:
        read(path, AUTO) if read is read_rgb else read(path)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


REFUSED = {
    "planes of colours": lambda p: write_tiff(
        p, values_of("u2", (4, 4, 3)), photometric=2, more=[(PLANAR, 2)]
    ),
    "two channels": lambda p: write_tiff(p, values_of("u2", (4, 4, 2))),
    "CMYK of 16 bit": lambda p: write_tiff(p, values_of("u2", (4, 4, 4)), photometric=5),
    "half precision": lambda p: write_tiff(p, values_of("f2", (4, 4))),
    "turned": lambda p: write_tiff(p, values_of("u2", (4, 6)), more=[(274, 6)]),
    "turned, 8 bit": lambda p: write_tiff(p, values_of("u1", (4, 6)), more=[(274, 8)]),
    "unknown numbers": lambda p: write_tiff(p, values_of("u2", (4, 4)), more=[(339, 5)]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_layouts_that_readers_get_wrong_are_refused(tmp_path, kind):
    path = tmp_path / "a.tif"
    REFUSED[kind](path)
    for read in (read_pixels, read_rgb):
        one_line(read, path, r"without loss; save it|turn its pixels and save it")


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_pages_and_frames_are_refused(tmp_path, dtype):
    write_tiff(tmp_path / "a.tif", values_of(dtype, (4, 4)), pages=3)
    frames = [Image.fromarray(values_of("u1", (4, 4, 3))) for _ in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    for name in ("a.tif", "a.png", "a.gif"):
        for read in (read_pixels, read_rgb, check_file):
            one_line(read, tmp_path / name, r"more than one image .*save each as a file of its own")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    values = values_of("f4", (4, 4))
    values[1, 2] = value
    write_tiff(tmp_path / "a.tif", values)
    for read in (read_pixels, read_rgb, check_file):
        one_line(read, tmp_path / "a.tif", "not finite")


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_damaged_files_are_refused(tmp_path, suffix, dtype):
    if (suffix, dtype) == (".png", "f4"):
        return
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        write_tiff(path, values_of(dtype, (40, 40)))
    elif dtype == "u2":
        write_png(path, values_of("u2", (40, 40, 3)), COLOUR)
    else:
        Image.fromarray(values_of(dtype, (40, 40))).save(path)
    whole = path.read_bytes()
    for length in (0, 10, 30, len(whole) // 2):
        path.write_bytes(whole[:length])
        one_line(read_rgb, path, "not a readable image|damaged")


def test_formats_that_start_an_interpreter_are_not_opened(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(
        EpsImagePlugin.EpsImageFile, "_open", lambda *_: pytest.fail("the file was opened")
    )
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    one_line(read_rgb, tmp_path / "a.png", "not a readable image")


def test_a_jpeg_with_a_preview_is_one_image(tmp_path):
    images = [Image.fromarray(values_of("u1", (8, 8, 3))) for _ in range(2)]
    images[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=images[1:])
    alone = io.BytesIO()
    images[0].save(alone, "JPEG")
    expected = np.asarray(Image.open(alone).convert("RGB"))
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "a.jpg", AUTO)), expected)


def test_8_bit_pixels_follow_a_window_only_by_auto():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = Pixels(values, 8, (0, 255), window=(100, 151), modality="US")
    by_window = np.asarray(pixels_to_rgb(pixels, AUTO))[..., 0]
    expected = np.rint(255 * ((values.astype(float) - 100) / 51).clip(0, 1))
    assert np.array_equal(by_window, expected)
    as_they_are = np.asarray(pixels_to_rgb(pixels, intensity("full")))[..., 0]
    assert np.array_equal(as_they_are, values)


def test_fewer_than_8_bit_fill_the_range():
    pixels = Pixels(np.array([[0, 1]], np.uint8), 1, (0, 1), inverted=True)
    assert np.asarray(pixels_to_rgb(pixels, AUTO))[0, :, 0].tolist() == [255, 0]


def stretched(image: Image.Image) -> np.ndarray:
    """Return the grey values of an image, stretched to 0..255."""
    grey = np.asarray(image.convert("L")).astype(float)
    return np.rint(255 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint8)


@pytest.mark.parametrize("kind", WIDE_COPIES)
def test_a_wide_copy_gives_the_pixels_of_8_bit(tmp_path, demo_root, kind):
    if kind.startswith("DICOM"):
        pytest.importorskip("pydicom")
    suffix, write = WIDE_COPIES[kind]
    for source in sorted(demo_root.glob("data/*_AD/valid/Ungood/img/000.png")):
        grey = stretched(Image.open(source))
        Image.fromarray(grey).save(tmp_path / "narrow.png")
        write(tmp_path / f"wide{suffix}", grey)
        expected = load_image(tmp_path / "narrow.png", 24)
        assert torch.equal(load_image(tmp_path / f"wide{suffix}", 24), expected)
        assert check_file(tmp_path / f"wide{suffix}").wide


def test_dicom_of_8_bit_is_as_it_is(tmp_path):
    pytest.importorskip("pydicom")
    values = RANDOM.integers(40, 200, (8, 10), dtype=np.uint8)
    write_dicom(tmp_path / "a.DCM", values)
    for rule in ("auto", "minmax", "full"):
        image = np.asarray(read_rgb(tmp_path / "a.DCM", intensity(rule)))
        assert np.array_equal(image, np.repeat(values[..., None], 3, axis=2))
    assert not check_file(tmp_path / "a.DCM").wide
    write_dicom(tmp_path / "b.dcm", values, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "b.dcm", AUTO))[..., 0], 255 - values)


def test_dicom_of_several_frames_is_refused(tmp_path):
    pytest.importorskip("pydicom")
    values = values_of("u1", (8, 10))
    write_dicom(tmp_path / "a.dcm", values, Rows=4, NumberOfFrames=2)
    for read in (read_pixels, read_rgb, check_file):
        one_line(read, tmp_path / "a.dcm", "more than one image")
