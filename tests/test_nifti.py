"""Volumes by nibabel: all it ships, scaling, geometry; maps written with the input's geometry."""

import gzip
import shutil
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import nilearn
import numpy as np
import pytest

from errors import UserError
from scans import nifti
from scans.nifti import read_nifti, write_map
from scans.volume import DICOM, Slices, ras, slice_pixels

SHIPPED = Path(nibabel.__file__).parent
TEMPLATE = (
    Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
)
READ = {  # of those that nibabel ships; most others are headers without their data
    "anatomical.nii",
    "example4d+orig.BRIK.gz",
    "example4d+orig.HEAD",
    "example4d.nii.gz",
    "example_nifti2.nii.gz",
    "functional.nii",
    "minc1-no-att.mnc",
    "minc1_1_scale.mnc",
    "minc1_4d.mnc",
    "phantom_EPI_asc_CLEAR_2_1.PAR",
    "phantom_EPI_asc_CLEAR_2_1.REC",
    "phantom_varscale.PAR",
    "phantom_varscale.REC",
    "reoriented_anat_moved.nii",
    "resampled_anat_moved.nii",
    "scaled+tlrc.BRIK",
    "scaled+tlrc.HEAD",
    "standard.nii.gz",
    "test.mgz",
    "tiny.mnc",
}


def shipped() -> list[Path]:
    """Return the data files of nibabel's package."""
    data = [path for path in SHIPPED.rglob("tests/data/*") if path.is_file()]
    return sorted(path for path in data if path.suffix not in (".py", ".pyc"))


def attempt(path: Path):
    """Return a volume, of four axes the first, or the message of its refusal."""
    try:
        return read_nifti(path)
    except UserError as error:
        message = str(error)
    if "choose one by --volume" not in message:
        return message
    return read_nifti(path, 0)


def test_all_that_nibabel_ships_is_read_or_refused_in_one_line(capfd):
    results = {path: attempt(path) for path in shipped()}
    refused = {path: result for path, result in results.items() if isinstance(result, str)}
    read = {path: result for path, result in results.items() if path not in refused}
    assert capfd.readouterr() == ("", "")
    with capfd.disabled():
        print(f" {len(read)} of nibabel's {len(results)} data files are read as volumes")
    assert {path.name for path in read} >= READ
    assert len(results) > 80
    assert all("\n" not in message for message in refused.values())
    assert all(path.name in message for path, message in refused.items())
    for path, volume in read.items():
        image = nibabel.load(path)
        wanted = image.get_fdata()
        wanted = wanted if wanted.ndim == 3 else wanted[..., 0]
        same = np.isclose(volume.values, wanted, rtol=1e-6, atol=0)
        assert (same | ~np.isfinite(wanted)).all(), path.name
        np.testing.assert_allclose(ras(volume.affine), image.affine)
        assert volume.full[0] <= volume.values.min() <= volume.values.max() <= volume.full[1]
        assert slice_pixels(volume, Slices(volume), 0).values.size


def test_the_template_of_nilearn_is_read_as_it_is():
    volume = read_nifti(TEMPLATE)
    image = nibabel.load(TEMPLATE)
    assert volume.shape == image.shape
    assert volume.notes == ()
    np.testing.assert_array_equal(volume.values, image.get_fdata(dtype=np.float32))
    middle = slice_pixels(volume, Slices(volume), 94).values
    assert middle.shape == (233, 197)
    assert middle[:30].max() < middle[100:130].max()  # air, then brain


def save(path: Path, values: np.ndarray, affine=None, **header) -> Path:
    """Write a NIfTI file with some fields of its header set."""
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for field, value in header.items():
        image.header[field] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", ">i2"])
def test_number_types(tmp_path, dtype):
    values = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    volume = read_nifti(save(tmp_path / "a.nii.gz", values))
    np.testing.assert_array_equal(volume.values, values)
    assert volume.values.dtype == np.float32
    assert volume.bits == (32 if values.dtype.kind == "f" else 8 * values.dtype.itemsize)
    limits = (0, 23) if values.dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert volume.full == pytest.approx(limits)
    assert volume.bytes_as_stored == (dtype == "u1")


def scaled(path: Path, slope: float, inter: float) -> Path:
    """Write bytes that a header scales."""
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(slope, inter)
    image.to_filename(path)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, inter], "<f4").tobytes()  # scl_slope, scl_inter
    data[352:] = bytes(range(24))
    path.write_bytes(bytes(data))
    return path


def test_slope_and_intercept_are_applied(tmp_path):
    volume = read_nifti(scaled(tmp_path / "a.nii", -2.0, 5.0))
    stored = np.arange(24).reshape((2, 3, 4), order="F")
    np.testing.assert_array_equal(volume.values, 5.0 - 2 * stored)
    assert volume.full == (-505.0, 5.0)
    assert not volume.bytes_as_stored


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], "c8"])
def test_colours_and_complex_numbers_are_refused(tmp_path, dtype):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), dtype))
    with pytest.raises(UserError, match="allowed are whole and floating-point numbers"):
        read_nifti(path)


def test_four_axes_need_a_number(tmp_path):
    values = np.arange(48, dtype=np.int16).reshape(2, 3, 4, 2)
    path = save(tmp_path / "a.nii.gz", values)
    with pytest.raises(UserError, match=r"2 x 3 x 4 x 2: 2 volumes; choose one by --volume N"):
        read_nifti(path)
    np.testing.assert_array_equal(read_nifti(path, 1).values, values[..., 1])
    for index in (2, -1):
        with pytest.raises(UserError, match=rf"--volume {index}.*allowed are 0 to 1"):
            read_nifti(path, index)
    map_path = tmp_path / "map.nii.gz"
    write_map(map_path, read_nifti(path, 1), np.zeros((2, 3, 4), np.float32))
    assert nibabel.load(map_path).shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 4, 1), (2, 3, 4, 1, 1)])
def test_axes_of_one_value_are_dropped_or_added(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = save(tmp_path / "a.nii", values)
    for index in (None, 0):
        volume = read_nifti(path, index)
        assert volume.shape == (*shape, 1, 1)[:3]
        np.testing.assert_array_equal(volume.values.ravel(), values.ravel())
    with pytest.raises(UserError, match="--volume 1"):
        read_nifti(path, 1)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 2, 3), (2, 3, 4, 1, 3)])
def test_other_numbers_of_axes_are_refused(tmp_path, shape):
    with pytest.raises(UserError, match="allowed are 3 axes, or 4 with --volume"):
        read_nifti(save(tmp_path / "a.nii", np.zeros(shape, np.int16)), 0)


def test_a_volume_of_four_axes_and_a_trailing_one(tmp_path):
    values = np.arange(48, dtype=np.int16).reshape(2, 3, 4, 2, 1)
    volume = read_nifti(save(tmp_path / "a.nii", values), 1)
    np.testing.assert_array_equal(volume.values, values[..., 1, 0])


def test_oblique_is_said(tmp_path):
    angle = np.radians(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume = read_nifti(save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), affine))
    assert volume.notes == ("oblique: its axes are turned 20 degrees from the patient's",)


def test_values_that_are_not_finite_are_said(tmp_path):
    values = np.zeros((2, 3, 4), np.float32)
    values[0, 0] = [np.nan, np.inf, -np.inf, -7]
    volume = read_nifti(save(tmp_path / "a.nii", values))
    np.testing.assert_array_equal(volume.values[0, 0], [-7] * 4)
    assert volume.notes[0].startswith("3 values are NaN or infinite")
    assert volume.full == (-7.0, 0.0)


def test_units_become_millimetres(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), 2 * np.eye(4), xyzt_units=1)
    volume = read_nifti(path)  # metres
    np.testing.assert_allclose(np.diag(volume.affine), [-2000, -2000, 2000, 1])
    write_map(tmp_path / "map.nii", volume, np.zeros((2, 3, 4), np.float32))
    again = nibabel.load(tmp_path / "map.nii")
    np.testing.assert_array_equal(again.affine, nibabel.load(path).affine)
    assert again.header["xyzt_units"] == 1


def test_a_useless_affine_is_replaced_and_said(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2, 2, 1]))
    image = nibabel.load(path)
    image.header["srow_x"] = 0
    image.header["sform_code"] = 1
    nibabel.Nifti1Image(image.get_fdata(), None, image.header).to_filename(tmp_path / "b.nii")
    volume = read_nifti(tmp_path / "b.nii")
    assert "voxel sizes alone are used" in volume.notes[0]
    np.testing.assert_allclose(np.abs(np.diag(volume.affine)), [2, 2, 2, 1])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 3), (2, 4)])
def test_maps_have_the_shape_affine_and_codes_of_their_volume(tmp_path, kind, codes):
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.5, 2.5, 3.5])
    affine[:3, 3] = [10, -20, 30]
    image = kind(rng.normal(size=(3, 4, 5)).astype(np.float32), affine)
    image.set_qform(affine, codes[0])
    moved = affine.copy()
    moved[:3, 3] += 1
    image.set_sform(moved, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    path = tmp_path / ("a.img" if kind is nibabel.Nifti1Pair else "a.nii")
    nibabel.save(image, path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    volume = read_nifti(path)
    values = rng.normal(size=(3, 4, 5)).astype(np.float32)
    values[0, 0, 0] = np.nan
    write_map(tmp_path / "maps" / "map.nii.gz", volume, values)
    original = nibabel.load(path)
    again = nibabel.load(tmp_path / "maps" / "map.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(dtype=np.float32), values)
    assert again.get_data_dtype() == np.float32
    np.testing.assert_array_equal(again.affine, original.affine)
    assert again.header.get_zooms() == original.header.get_zooms()
    for field in nifti.PLACED:
        np.testing.assert_array_equal(again.header[field], original.header[field])
    for get in ("get_qform", "get_sform"):
        for got, wanted in zip(
            getattr(again, get)(coded=True), getattr(original, get)(coded=True), strict=True
        ):
            assert got == wanted if wanted is None else np.array_equal(got, wanted)
    assert {file: file.read_bytes() for file in before} == before


def test_equal_maps_are_equal_files(tmp_path, monkeypatch):
    volume = read_nifti(save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16)))
    for name in ("one.nii.gz", "two.nii.gz"):
        monkeypatch.setattr(time, "time", lambda name=name: float(len(name) + ord(name[0])))
        write_map(tmp_path / name, volume, np.ones((2, 3, 4), np.float32))
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    write_map(tmp_path / "one.nii", volume, np.ones((2, 3, 4), np.float32))
    plain = (tmp_path / "one.nii").read_bytes()
    assert gzip.decompress((tmp_path / "one.nii.gz").read_bytes()) == plain
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


def test_maps_of_other_formats_lie_where_the_volume_lies(tmp_path):
    affine = np.array([[0, 0, -2.0, 7], [-3, 0, 0, 8], [0, 4, 0, 9], [0, 0, 0, 1]])
    path = tmp_path / "a.mgz"
    nibabel.save(nibabel.MGHImage(np.zeros((2, 3, 4), np.float32), affine), path)
    volume = read_nifti(path)
    write_map(tmp_path / "map.nii.gz", volume, volume.values)
    again = nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(again.affine, affine, atol=1e-5)
    assert (again.header["sform_code"], again.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(again.get_qform(), again.affine, atol=1e-4)


def test_a_sheared_geometry_has_no_quaternion(tmp_path):
    affine = np.eye(4)
    affine[0, 2] = 0.3  # as of a tilted gantry
    volume = replace(
        read_nifti(save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16))), kind=DICOM
    )
    write_map(tmp_path / "map.nii", replace(volume, affine=ras(affine)), volume.values)
    again = nibabel.load(tmp_path / "map.nii")
    np.testing.assert_allclose(again.affine, affine, atol=1e-6)
    assert (again.header["sform_code"], again.header["qform_code"]) == (1, 0)
    assert again.header.get_xyzt_units()[0] == "mm"


def test_a_map_of_another_shape_is_a_mistake_of_ours(tmp_path):
    volume = read_nifti(save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16)))
    with pytest.raises(ValueError, match="a map of shape"):
        write_map(tmp_path / "map.nii", volume, np.zeros((4, 3, 2), np.float32))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_nifti(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_damaged_files_are_refused(tmp_path, capfd):
    whole = save(tmp_path / "a.nii", np.zeros((20, 30, 40), np.int16)).read_bytes()
    for name, data in {
        "empty.nii": b"",
        "text.nii": b"text" * 100,
        "cut.nii": whole[:5000],
        "header.nii": whole[:200],
        "cut.nii.gz": gzip.compress(whole)[:100],
        "plain.nii.gz": b"not compressed",
    }.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    refused(tmp_path / "absent.nii")
    refused(tmp_path)
    assert capfd.readouterr().err == ""


def test_headers_that_nibabel_corrects_are_read_without_a_word(tmp_path, capfd):
    save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[80:84] = np.array(-1, "<f4").tobytes()  # pixdim
    (tmp_path / "a.nii").write_bytes(bytes(data))
    assert read_nifti(tmp_path / "a.nii").shape == (2, 3, 4)
    assert capfd.readouterr().err == ""


def test_absurd_sizes_are_refused(tmp_path):
    save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[40:48] = np.array([3, 32767, 32767, 32767], "<i2").tobytes()  # dim
    (tmp_path / "a.nii").write_bytes(bytes(data))
    assert "at most 2147483648 are read" in refused(tmp_path / "a.nii")


def test_a_lone_header_names_what_is_missing(tmp_path):
    header = next(path for path in shipped() if path.name == "nifti1.hdr")
    shutil.copy(header, tmp_path / "a.hdr")
    assert "a.img" in refused(tmp_path / "a.hdr")
