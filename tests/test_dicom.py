"""Frames of DICOM files: all that pydicom ships, the order of the steps, and damaged files."""

import subprocess
import sys
import zlib
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    RLELossless,
)

from dataset import dicom
from dataset.dicom import (
    is_dicom,
    is_multiframe,
    iter_frames,
    read_frames,
    read_header,
    window_range,
)
from dataset.intensity import Intensity, to_bytes
from dataset.pixels import pixels_to_rgb
from errors import UserError
from tests.scan_files import dicom_dataset, group, write_dicom_file, write_enhanced

SHIPPED = Path(pydicom.__file__).parent / "data"  # files of the package alone: no download
REFUSED = {  # all that have pixels but cannot be read, and why
    "JPEG-lossy.dcm": "no installed decoder",  # lossy JPEG of 12 bit
    "JPGExtended.dcm": "no installed decoder",  # lossy JPEG of 12 bit
    "JPEG2000-embedded-sequence-delimiter.dcm": "no installed decoder",  # damaged on purpose
    "MR_truncated.dcm": "bytes of pixel data is less than expected",
    "meta_missing_tsyntax.dcm": "holds no image",  # pixel data, but no rows and columns
    "nested_priv_SQ.dcm": "holds no image",
}


def shipped() -> list[Path]:
    """Return the files that pydicom's package brings along."""
    return sorted(path for path in SHIPPED.rglob("*") if path.is_file() and path.suffix != ".py")


def with_pixels(path: Path) -> bool:
    try:
        dataset = pydicom.dcmread(path, force=True)
    except Exception:  # noqa: BLE001 - not a DICOM file
        return False
    return "PixelData" in dataset


def rgb(pixels, spec: str = "auto") -> np.ndarray:
    return np.asarray(pixels_to_rgb(pixels, Intensity(spec)))


def equal(first, second) -> bool:
    same = first.values.dtype == second.values.dtype
    return same and np.array_equal(first.values, second.values) and first.full == second.full


def test_all_that_pydicom_ships_is_read_or_refused_in_one_line(capfd):
    read = []
    refused = {}
    for path in shipped():
        try:
            frames = read_frames(path)
        except UserError as error:
            refused[path] = str(error)
        else:
            assert frames
            assert all(rgb(pixels).dtype == np.uint8 for pixels in frames)
            read.append(path)
    assert all("\n" not in message for message in refused.values())
    assert all(path.name in message for path, message in refused.items())
    pixels = [path for path in shipped() if with_pixels(path)]
    assert capfd.readouterr() == ("", "")
    with capfd.disabled():
        print(f" {len(read)} of pydicom's {len(pixels)} files with pixels are read")
    assert set(read) <= set(pixels)
    assert {path.name for path in set(pixels) - set(read)} <= set(REFUSED)
    assert len(read) >= 101
    for path in set(pixels) - set(read):
        assert REFUSED[path.name] in refused[path]


def test_values_are_those_of_highdicom():
    count = 0
    for path in shipped():
        try:
            frames = read_frames(path)
            image = highdicom.imread(path)
        except Exception:  # noqa: BLE001 - files that highdicom does not take
            continue
        for k, pixels in enumerate(frames):
            wanted = image.get_frame(
                k + 1,
                apply_real_world_transform=False,
                apply_presentation_lut=False,
                apply_icc_profile=False,
            )
            if image.PhotometricInterpretation == "PALETTE COLOR":
                wanted = wanted // 256
            np.testing.assert_array_equal(pixels.values, wanted)
        count += 1
    assert count >= 90


def test_both_ways_of_decoding_agree(monkeypatch):
    paths = [path for path in shipped() if with_pixels(path) and path.name not in REFUSED]
    first = [read_frames(path) for path in paths]
    monkeypatch.setattr(dicom, "highdicom_image", lambda _: None)
    second = [read_frames(path) for path in paths]
    for path, one, other in zip(paths, first, second, strict=True):
        pairs = zip(one, other, strict=True)
        assert all(equal(*pair) for pair in pairs), path.name


def test_frames_of_enhanced_files_have_their_own_rescale(tmp_path):
    stored = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
    scales = [(1.0, 0.0), (2.0, -10.0), (0.5, 100.0)]
    windows = [(10, 20), (30, 5), (110, 7)]
    path = write_enhanced(
        tmp_path / "mr", stored, [(0, 0, 3 * k) for k in range(3)], scales, windows
    )
    frames = read_frames(path)
    image = highdicom.imread(path)
    for k, (slope, intercept) in enumerate(scales):
        np.testing.assert_array_equal(frames[k].values, stored[k] * slope + intercept)
        np.testing.assert_array_equal(frames[k].values, image.get_frame(k + 1))
        assert frames[k].full == (intercept, 65535 * slope + intercept)
        assert frames[k].window == window_range(*windows[k])
    ignored = apply_modality_lut(stored, pydicom.dcmread(path))  # what pydicom alone gives
    assert not np.array_equal(frames[1].values, ignored[1])
    assert [pixels.modality for pixels in frames] == ["MR"] * 3


def test_a_shared_rescale_is_used_where_frames_have_none(tmp_path):
    shared = group(
        PixelValueTransformationSequence=[group(RescaleSlope=3, RescaleIntercept=1)],
        FrameVOILUTSequence=[group(WindowCenter=50, WindowWidth=100)],
    )
    stored = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    path = write_dicom_file(
        tmp_path / "a.dcm", stored, SharedFunctionalGroupsSequence=[shared], RescaleSlope=7
    )
    frames = read_frames(path)
    np.testing.assert_array_equal([pixels.values for pixels in frames], 3.0 * stored + 1)
    assert frames[1].window == (0.0, 99.0)


def standard_linear(x: np.ndarray, center: float, width: float) -> np.ndarray:
    """Return 0 to 255 by the pseudocode of PS3.3 C.11.2.1.2.1."""
    middle = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255 if width > 1 else 0 * x
    below = x <= center - 0.5 - (width - 1) / 2
    above = x > center - 0.5 + (width - 1) / 2
    return np.where(below, 0, np.where(above, 255, middle))


def standard_exact(x: np.ndarray, center: float, width: float) -> np.ndarray:
    """Return 0 to 255 by the pseudocode of PS3.3 C.11.2.1.3.2."""
    middle = ((x - center) / width + 0.5) * 255
    below = x <= center - width / 2
    return np.where(below, 0, np.where(x > center + width / 2, 255, middle))


@pytest.mark.parametrize(
    ("center", "width", "function", "formula"),
    [
        (40, 400, "LINEAR", standard_linear),
        (40.5, 80, "LINEAR", standard_linear),
        (100, 1, "LINEAR", standard_linear),
        (2048, 4096, "LINEAR", standard_linear),
        (40, 400, "LINEAR_EXACT", standard_exact),
        (127.5, 255, "LINEAR_EXACT", standard_exact),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_are_the_standards(tmp_path, center, width, function, formula, photometric):
    """MONOCHROME1 is inverted after the window."""
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = write_dicom_file(
        tmp_path / "a.dcm",
        stored,
        BitsStored=12,
        RescaleSlope=0.5,
        RescaleIntercept=-200,
        WindowCenter=[center, 7],
        WindowWidth=[width, 9],
        VOILUTFunction=function,
        PhotometricInterpretation=photometric,
    )
    pixels = read_frames(path)[0]
    wanted = formula(stored * 0.5 - 200, center, width)
    if photometric == "MONOCHROME1":
        wanted = 255 - wanted
    got = rgb(pixels)
    assert pixels.bits == 12
    assert pixels.full == (-200.0, 1847.5)
    assert pixels.inverted == (photometric == "MONOCHROME1")
    assert np.abs(got[..., 0] - wanted).max() <= 0.5 + 1e-9  # to the nearest
    assert (got[..., 0] == got[..., 2]).all()


def test_a_window_can_be_given(tmp_path):
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    path = write_dicom_file(tmp_path / "a.dcm", stored, WindowCenter=40, WindowWidth=400)
    assert read_frames(path, (3.0, 4.0))[0].window == (3.0, 4.0)


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [(0, 0, "LINEAR"), (0, 0.5, "LINEAR"), (0, 0, "LINEAR_EXACT"), (0, float("nan"), "LINEAR")],
)
def test_nonsense_windows_are_refused_by_hand_and_left_out_of_files(
    tmp_path, center, width, function
):
    with pytest.raises(UserError, match="window center 0, width"):
        window_range(center, width, function)
    if width == width:  # not NaN
        stored = np.zeros((2, 2), np.uint16)
        path = write_dicom_file(
            tmp_path / "a.dcm", stored, WindowCenter=0, WindowWidth=width, VOILUTFunction=function
        )
        assert read_frames(path)[0].window is None


def test_a_window_of_width_1_is_a_step_also_where_tiny_numbers_become_zero():
    torch.set_flush_denormal(True)
    try:
        low, high = window_range(0.5, 1)
        values = np.array([[-1, 0, 1, 2]])
        assert low < high
        scaled = to_bytes(values, Intensity(), full=(0, 9), window=(low, high))
        assert scaled.tolist() == [[0, 0, 255, 255]]
    finally:
        torch.set_flush_denormal(False)


def test_an_unknown_window_function_is_refused():
    with pytest.raises(UserError, match="allowed are LINEAR, LINEAR_EXACT, SIGMOID"):
        window_range(0, 10, "SQUARE")


def test_eight_bits_stay_as_they_are(tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (8, 6), np.uint8)
    path = write_dicom_file(tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=0)
    pixels = read_frames(path)[0]
    assert pixels.values.dtype == np.uint8
    assert (pixels.values == stored).all()
    assert (rgb(pixels) == stored[..., None]).all()
    assert pixels.bits == 8
    assert pixels.window is None


def test_a_negative_slope_turns_the_range(tmp_path):
    stored = np.array([[0, 4095]], np.uint16)
    path = write_dicom_file(
        tmp_path / "a.dcm", stored, BitsStored=12, RescaleSlope=-1, RescaleIntercept=5
    )
    pixels = read_frames(path)[0]
    np.testing.assert_array_equal(pixels.values, [[5, -4090]])
    assert pixels.full == (-4090.0, 5.0)


def test_bits_that_hold_no_values_are_ignored(tmp_path):
    """Old files keep overlays in them, and signed values need their sign."""
    stored = np.array([[1, 2000], [4095, 7]], np.uint16)
    for name, table in (("plain", None), ("table", np.arange(4096, dtype=np.uint16)[::-1])):
        attributes = {}
        wanted = stored
        if table is not None:
            attributes["ModalityLUTSequence"] = [
                group(LUTDescriptor=[4096, 0, 16], LUTData=table.tobytes(), ModalityLUTType="US")
            ]
            wanted = 4095 - stored
        path = write_dicom_file(tmp_path / name, stored | 0x7000, BitsStored=12, **attributes)
        np.testing.assert_array_equal(read_frames(path)[0].values, wanted)
    negative = np.array([[-1, -2048], [5, 2047]], np.int16)
    path = write_dicom_file(tmp_path / "signed", negative & 0x0FFF, BitsStored=12)
    pixels = read_frames(path)[0]
    np.testing.assert_array_equal(pixels.values, negative)
    assert pixels.full == (-2048.0, 2047.0)


def test_tables_of_modality_and_interest_follow_one_another(tmp_path):
    stored = np.array([[0, 1, 2, 3, 4, 9]], np.uint16)
    first = np.array([10, 20, 30, 40], np.uint16)  # of stored 1 to 4
    second = np.array([7, 70, 700], np.uint16)  # of 29 to 31
    path = write_dicom_file(
        tmp_path / "a.dcm",
        stored,
        ModalityLUTSequence=[
            group(LUTDescriptor=[4, 1, 16], LUTData=first.tobytes(), ModalityLUTType="US")
        ],
        VOILUTSequence=[group(LUTDescriptor=[3, 29, 12], LUTData=second.tobytes())],
    )
    given = read_frames(path, (0.0, 40.0))[0]
    np.testing.assert_array_equal(given.values, [[10, 10, 20, 30, 40, 40]])
    pixels = read_frames(path)[0]
    np.testing.assert_array_equal(pixels.values, [[7, 7, 7, 70, 700, 700]])
    assert pixels.window == pixels.full == (0.0, 4095.0)
    assert pixels.bits == 12
    image = highdicom.imread(path)
    np.testing.assert_array_equal(given.values, image.get_frame(1))


def test_a_table_of_interest_with_signed_inputs_and_eight_bits(tmp_path):
    stored = np.array([[-3, -2, -1, 0]], np.int16)
    table = group(LUTDescriptor=[2, -2, 8], LUTData=bytes([5, 250]))
    path = write_dicom_file(tmp_path / "a.dcm", stored, VOILUTSequence=[table])
    pixels = read_frames(path)[0]
    assert pixels.values.dtype == np.uint8
    np.testing.assert_array_equal(pixels.values, [[5, 5, 250, 250]])


@pytest.mark.parametrize("shift", [0, 8])
def test_palettes_become_rgb(tmp_path, shift):
    """Entries of 16 bit count by their upper byte, unless none uses it."""
    stored = np.arange(4, dtype=np.uint8).reshape(2, 2)
    colours = np.array([[0, 0, 0], [255, 0, 10], [1, 2, 3], [200, 100, 50]], np.uint16)
    attributes = {"PhotometricInterpretation": "PALETTE COLOR"}
    for c, name in enumerate(("Red", "Green", "Blue")):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        data = (colours[:, c] << shift).astype("<u2").tobytes()
        attributes[f"{name}PaletteColorLookupTableData"] = data
    pixels = read_frames(write_dicom_file(tmp_path / "a.dcm", stored, **attributes))[0]
    assert pixels.values.dtype == np.uint8
    np.testing.assert_array_equal(pixels.values, colours.reshape(2, 2, 3))


def test_wide_colours_are_not_clipped(tmp_path):
    stored = np.random.default_rng(0).integers(0, 2**16, (4, 5, 3)).astype(np.uint16)
    pixels = read_frames(write_dicom_file(tmp_path / "a.dcm", stored))[0]
    np.testing.assert_array_equal(pixels.values, stored)
    assert pixels.bits == 16
    assert rgb(pixels, "full").max() > 250


def test_floating_point_is_read(tmp_path):
    values = np.array([[0.25, -3.5]], np.float32)
    dataset = dicom_dataset(values.view(np.uint32))
    del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
    dataset.FloatPixelData = values.tobytes()
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    pixels = read_frames(tmp_path / "a.dcm")[0]
    np.testing.assert_array_equal(pixels.values, values)
    assert pixels.bits == 32


def test_frames_are_decoded_one_by_one(tmp_path, monkeypatch):
    stored = np.zeros((3, 2, 2), np.uint8)
    path = write_dicom_file(tmp_path / "a.dcm", stored)
    calls = []
    decode = dicom.stored_frame

    def counted(dataset, image, k):
        calls.append(k)
        return decode(dataset, image, k)

    monkeypatch.setattr(dicom, "stored_frame", counted)
    frames = iter_frames(path)
    next(frames)
    assert calls == [0]


def test_what_is_dicom(tmp_path):
    values = np.zeros((2, 2), np.uint8)
    assert is_dicom(write_dicom_file(tmp_path / "marked", values))
    for name in ("a.dcm", "a.DICOM", "a.IMA"):
        assert is_dicom(tmp_path / name)
    (tmp_path / "text").write_text("DICM")
    assert not is_dicom(tmp_path / "text")
    assert not is_dicom(tmp_path / "absent")
    assert not is_dicom(tmp_path)


def test_what_has_several_frames(tmp_path):
    one = write_dicom_file(tmp_path / "one", np.zeros((2, 2), np.uint8))
    three = write_dicom_file(tmp_path / "three", np.zeros((3, 2, 2), np.uint8))
    (tmp_path / "text.dcm").write_text("text")
    assert not is_multiframe(one)
    assert is_multiframe(three)
    assert not is_multiframe(tmp_path / "text.dcm")
    assert not is_multiframe(tmp_path / "absent")


def test_a_file_without_a_preamble_is_read_by_its_suffix(tmp_path):
    stored = np.array([[1, 2], [3, 4]], np.uint16)
    dataset = dicom_dataset(stored)
    del dataset.file_meta
    for implicit in (True, False):
        dataset.save_as(tmp_path / "a.dcm", implicit_vr=implicit, little_endian=True)
        np.testing.assert_array_equal(read_frames(tmp_path / "a.dcm")[0].values, stored)


def test_headers_have_no_pixels(tmp_path):
    header = read_header(write_dicom_file(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8)))
    assert header.Rows == 2
    assert "PixelData" not in header


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_frames(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_without_pixels_say_what_they_are(tmp_path):
    dataset = dicom_dataset(np.zeros((2, 2), np.uint8), SOPClassUID=EncapsulatedPDFStorage)
    for keyword in ("Rows", "Columns", "PixelData", "PhotometricInterpretation"):
        delattr(dataset, keyword)
    dataset.EncapsulatedDocument = b"%PDF"
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    assert "holds no image (Encapsulated PDF Storage" in refused(tmp_path / "a.dcm")


def test_text_of_files_stays_on_one_line(tmp_path):
    dataset = dicom_dataset(np.zeros((2, 2), np.uint8), Modality="C\nT\x1b[2J")
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    assert read_frames(tmp_path / "a.dcm")[0].modality == r"C T\x1b[2J"
    for keyword, value in (("PhotometricInterpretation", "A\nB" * 300), ("SOPClassUID", "1\n2")):
        dataset = dicom_dataset(np.zeros((2, 2), np.uint8))
        setattr(dataset, keyword, value)
        if keyword == "SOPClassUID":
            del dataset.Rows
        pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
        assert len(refused(tmp_path / "a.dcm")) < 600


@pytest.mark.parametrize("content", [b"", b"text", bytes(200), b"\0" * 128 + b"DICM"])
@pytest.mark.parametrize("name", ["a.dcm", "a"])
def test_files_that_are_no_dicom_are_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


def test_absent_files_and_folders_are_refused(tmp_path):
    refused(tmp_path / "absent.dcm")
    refused(tmp_path)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 65535, "Columns": 65535}, "claims 1 frames of 65535 x 65535"),
        ({"NumberOfFrames": 2**31 - 1}, "claims 2147483647 frames"),
        ({"NumberOfFrames": -3}, "claims -3 frames"),
        ({"Rows": 0}, "Rows missing"),
        ({"Rows": 300}, "less than expected"),
        ({"PhotometricInterpretation": "CMYK"}, "colours of the kind CMYK"),
        ({"BitsAllocated": 12}, "cannot be read"),
        ({"SamplesPerPixel": 2}, "cannot be read"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path, attributes, reason):
    path = write_dicom_file(tmp_path / "a.dcm", np.zeros((20, 20), np.uint16), **attributes)
    assert reason in refused(path)


def test_a_deflated_bomb_is_refused(tmp_path, monkeypatch):
    dataset = dicom_dataset(np.zeros((600, 600), np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    assert read_frames(tmp_path / "a.dcm")[0].values.shape == (600, 600)
    monkeypatch.setattr(dicom, "MOST_VALUES", 500_000)
    assert "inflates to more than" in refused(tmp_path / "a.dcm")


def test_jpeg_2000_with_an_empty_box_does_not_hang(tmp_path):
    data = (SHIPPED / "test_files" / "GDCMJ2K_TextGBR.dcm").read_bytes()
    start = data.index(b"\x00\x00\x00\x0cjP  ") + 12
    path = tmp_path / "a.dcm"
    path.write_bytes(data[:start] + bytes(4) + data[start + 4 :])
    assert "damaged header of its JPEG 2000" in refused(path)


def test_damaged_files_give_one_line(tmp_path, capfd):
    """Random bytes are changed and files cut off: never a traceback, whatever comes of it."""
    rng = np.random.default_rng(0)
    names = ("MR_small_RLE.dcm", "CT_small.dcm", "SC_rgb_small_odd_jpeg.dcm", "rtdose_rle.dcm")
    read = 0
    messages = []
    for name in names:
        whole = np.frombuffer((SHIPPED / "test_files" / name).read_bytes(), np.uint8)
        for trial in range(25):
            data = whole.copy()
            data[rng.integers(132, min(len(data), 3000), 8)] = rng.integers(0, 256, 8)
            if trial % 5 == 0:
                data = data[: rng.integers(len(data))]
            path = tmp_path / f"{trial}-{name}"
            path.write_bytes(data.tobytes())
            try:
                read += bool(read_frames(path))
            except UserError as error:
                messages.append(str(error))
    assert all("\n" not in message for message in messages)
    assert 0 < read < 25 * len(names)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("syntax", [RLELossless, ExplicitVRBigEndian])
def test_other_transfer_syntaxes(tmp_path, syntax):
    stored = np.random.default_rng(0).integers(0, 4096, (2, 9, 7)).astype(np.uint16)
    dataset = dicom_dataset(stored, BitsStored=12)
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = stored.astype(">u2").tobytes()
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    frames = read_frames(tmp_path / "a.dcm")
    np.testing.assert_array_equal([pixels.values for pixels in frames], stored)
    assert frames[0].values.dtype == np.uint16  # of this machine's byte order
    assert zlib.crc32(frames[0].values.tobytes()) == zlib.crc32(stored[0].tobytes())


def test_a_missing_package_is_named(tmp_path):
    path = write_dicom_file(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8))
    code = (
        "import sys; sys.modules['highdicom'] = None\n"
        "from pathlib import Path\n"
        "from errors import UserError\n"
        "from dataset.dicom import read_frames\n"
        "try:\n    read_frames(Path(sys.argv[1]))\n"
        "except UserError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "pip install -r requirements-scans.txt" in done.stdout
    assert "torch" not in done.stderr
