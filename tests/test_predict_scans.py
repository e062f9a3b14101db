"""predict.py on scans: volumes, DICOM series, files that packages ship, and DICOM output."""

import csv
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from PIL import Image
from pydicom.data import get_testdata_file

from mvfa import Detector
from tests.test_predict import Made, images, made, rows  # noqa: F401

AXES = ("L", "R"), ("P", "A"), ("S", "I")


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def brain(made) -> Path:  # noqa: F811
    return made.detector("Brain")


def volume(path: Path, shape=(12, 10, 6), affine=None) -> Path:
    """Write a small NIfTI volume with a bright block."""
    values = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)
    values[2:5, 3:6, 2:4] = 2000
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 3, 1]) if affine is None else affine), path)
    return path


def test_a_volume_gives_a_map_in_its_own_geometry(made, brain, tmp_path):  # noqa: F811
    affine = np.array([[-2, 0, 0.2, 30], [0, 2, 0, -20], [0.1, 0, 3, 7], [0, 0, 0, 1.0]])
    path = volume(tmp_path / "scan.nii.gz", affine=affine)
    summary = made.predict(brain, tmp_path / "out", path, more=("--prepare", "none"))
    assert summary.scored == 1
    found = rows(tmp_path / "out")
    assert [row["slice"] for row in found] == [*map(str, range(6)), ""]
    assert float(found[-1]["score"]) == max(float(row["score"]) for row in found[:-1])
    assert found[-1]["p_value"] == ""  # the calibration is of images, not of cases
    image = nib.load(tmp_path / "out/maps/scan.nii.gz/map.nii.gz")
    assert image.shape == (12, 10, 6)
    assert image.get_data_dtype() == np.float32
    assert np.allclose(image.affine, nib.load(path).affine)
    # each slice's map is the one of the same slice alone
    detector = Detector.load(brain, clip_path=made.weights)
    values = nib.load(path).get_fdata()
    shown = values[::-1, ::-1, 2].T  # R A S: to the left and to the back
    shown = shown if affine[0, 0] > 0 else values[:, ::-1, 2].T
    result = detector(shown.astype(np.float32))
    assert result.score == float(found[2]["score"])


def test_slices_axis_and_flat_ones(made, brain, tmp_path):  # noqa: F811
    values = np.zeros((12, 10, 6), np.float32)
    values[:, :, 1:4] = np.random.default_rng(1).random((12, 10, 3))
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii")
    out = tmp_path / "out"
    made.predict(brain, out, tmp_path / "scan.nii", more=("--prepare", "none", "--slices", "0:4"))
    found = rows(out)
    assert [row["slice"] for row in found] == ["1", "2", "3", ""]
    assert "2 of 5 slices" in found[-1]["notes"]
    data = nib.load(out / "maps/scan.nii/map.nii.gz").get_fdata()
    assert np.isnan(data[:, :, [0, 4, 5]]).all()
    assert np.isfinite(data[:, :, 1:4]).all()
    more = ("--prepare", "none", "--axis", "sagittal", "--overwrite")
    made.predict(brain, out, tmp_path / "scan.nii", more=more)
    assert len(rows(out)) == 13


@pytest.mark.parametrize("first", ["L", "P", "S"])
def test_a_marked_voxel_stays_in_place(made, brain, tmp_path, first):  # noqa: F811
    """The map's highest voxel is at the same place of the patient however the file is stored."""
    base = volume(tmp_path / "base.nii", shape=(10, 10, 10), affine=np.diag([2.0, 2, 2, 1]))
    image = nib.load(base)
    orders = [codes for codes in orientations() if codes[0] in {first, opposite(first)}]
    assert len(orders) == 16
    paths = []
    for codes in orders:
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), axcodes2ornt(codes)
        )
        values = nib.orientations.apply_orientation(np.asarray(image.dataobj), turn)
        affine = image.affine @ inv_ornt_aff(turn, image.shape)
        paths.append(tmp_path / f"{''.join(codes)}.nii")
        nib.save(nib.Nifti1Image(values, affine), paths[-1])
    out = tmp_path / "out"
    more = ("--prepare", "none", "--axis", "axial", "--overlays", "no")
    made.predict(brain, out, *paths, more=more)
    places = set()
    for path in paths:
        found = nib.load(out / "maps" / path.name / "map.nii.gz")
        index = np.unravel_index(np.argmax(found.get_fdata()), found.shape)
        places.add(tuple(np.round(found.affine @ [*index, 1], 6)[:3]))
    assert len(places) == 1


def opposite(code: str) -> str:
    return next(b if a == code else a for a, b in AXES if code in (a, b))


def orientations() -> Iterable[tuple[str, str, str]]:
    """Yield the 48 orientations."""
    from itertools import permutations, product

    for order in permutations(AXES):
        yield from product(*order)


def test_files_that_packages_ship_are_read_or_listed(made, brain, tmp_path, capfd):  # noqa: F811
    dicom = package("pydicom") / "data"
    volumes = package("nibabel") / "tests/data"
    template = next((package("nilearn") / "datasets/data").glob("mni*t1*.nii.gz"))
    more = ("--prepare", "none", "--maps", "no", "--series", "no", "--overlays", "no")
    summary = made.predict(brain, tmp_path / "out", dicom, volumes, template, more=more)
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    assert not any("unexpected" in record["error"] for record in summary.failures)
    assert all(len(record["error"].splitlines()) == 1 for record in summary.failures)
    with_pixels = [path for path in dicom.rglob("*") if path.is_file() and has_pixels(path)]
    failed = {Path(record["name"]).name for record in summary.failures}
    read = [path for path in with_pixels if path.name not in failed]
    print(f"{len(read)} of {len(with_pixels)} DICOM files with pixels were read")
    assert len(with_pixels) >= 100
    assert len(read) >= 0.94 * len(with_pixels)
    scored = {row["file"] for row in rows(tmp_path / "out") if row["score"]}
    assert any("mni_icbm152" in name for name in scored)
    assert {"anatomical.nii", "minc1_1_scale.mnc"} <= {Path(name).name for name in scored}


def has_pixels(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=False)
        except Exception:  # noqa: BLE001  # not DICOM at all
            return False
        return any(
            key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
        )


def series(folder: Path, count: int = 4) -> list[Path]:
    """Write a CT series from a file that pydicom ships, oblique, in mixed order of file names."""
    folder.mkdir()
    base = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    angle = np.radians(20)
    across = [1.0, 0, 0]
    down = [0, float(np.cos(angle)), float(np.sin(angle))]
    normal = np.cross(across, down)
    frame = pydicom.uid.generate_uid()
    uid = pydicom.uid.generate_uid()
    rng = np.random.default_rng(2)
    paths = []
    for k in range(count):
        base.SOPInstanceUID = pydicom.uid.generate_uid()
        base.file_meta.MediaStorageSOPInstanceUID = base.SOPInstanceUID
        base.SeriesInstanceUID = uid
        base.FrameOfReferenceUID = frame
        base.ImageOrientationPatient = [*across, *down]
        base.ImagePositionPatient = [float(v) for v in (np.array([5.0, 6, 7]) + 4 * k * normal)]
        base.PixelSpacing = [0.7, 0.7]
        base.SliceThickness = 4
        base.InstanceNumber = k + 1
        values = rng.integers(0, 1000, (128, 128)).astype(np.int16)
        values[30 + 10 * k : 60 + 10 * k, 40:80] += 2000
        base.PixelData = values.tobytes()
        paths.append(folder / f"{(k * 7) % count}-{k}.dcm")
        base.save_as(paths[-1])
    return paths


def test_a_series_is_a_volume_and_its_dicom_output_lies_on_it(made, brain, tmp_path):  # noqa: F811
    paths = series(tmp_path / "ct")
    out = tmp_path / "out"
    more = ("--prepare", "none", "--window", 40, 400, "--dicom_out", "seg,pm,sc")
    more += ("--threshold", "0.3")
    summary = made.predict(brain, out, tmp_path / "ct", more=more)
    assert (summary.scored, summary.failures) == (1, [])
    found = rows(out)
    assert [row["slice"] for row in found] == ["0", "1", "2", "3", ""]
    assert found[-1]["notes"] == "" or "--dicom_out" not in found[-1]["notes"]
    written = [pydicom.dcmread(path) for path in sorted((out / "dicom").rglob("*.dcm"))]
    kinds = {dataset.Modality for dataset in written}
    assert {"SEG"} <= kinds
    sources = {str(pydicom.dcmread(p).SOPInstanceUID): p for p in paths}
    segment = next(d for d in written if d.Modality == "SEG")
    seg = hd.seg.Segmentation.from_dataset(segment)
    planes = seg.get_pixels_by_source_instance(
        [str(pydicom.dcmread(p).SOPInstanceUID) for p in paths], combine_segments=True
    )
    assert planes.shape[0] == len(paths)
    image = nib.load(next((out / "maps").rglob("map.nii.gz")))
    data = image.get_fdata()  # column, row, slice
    for k, path in enumerate(paths):
        above = data[:, :, k].T > 0.3
        differ = (planes[k] > 0) != above
        assert differ.mean() < 0.02, path  # the region is resized, not the map
        dataset = pydicom.dcmread(path)
        corner = image.affine @ [0, 0, k, 1]
        assert np.allclose(corner[:3] * [-1, -1, 1], dataset.ImagePositionPatient, atol=1e-3)
    assert all(str(d.SOPInstanceUID) not in sources for d in written)
    assert all("research" in str(d.SeriesDescription).lower() for d in written)


def test_one_file_of_a_series_is_an_image(made, brain, tmp_path):  # noqa: F811
    paths = series(tmp_path / "ct")
    made.predict(brain, tmp_path / "out", tmp_path / "ct", more=("--series", "no"))
    found = rows(tmp_path / "out")
    assert len(found) == len(paths)
    assert {row["slice"] for row in found} == {""}
    saved = Image.open(tmp_path / "out/maps" / f"{found[0]['file']}.tif")
    assert saved.size == (128, 128)


def test_brain_volumes_are_prepared_as_the_training_pictures(made, brain, tmp_path):  # noqa: F811
    path = volume(tmp_path / "scan.nii.gz", shape=(40, 50, 8), affine=np.diag([4.0, 4, 5, 1]))
    made.predict(brain, tmp_path / "out", path)  # the detector's own preparation
    image = nib.load(tmp_path / "out/maps/scan.nii.gz/map.nii.gz")
    assert image.shape == (40, 50, 8)
    assert np.isfinite(image.get_fdata()).any()
    overlay = Image.open(tmp_path / "out/overlays/scan.nii.gz.jpg")
    assert overlay.size == (240, 240)


def test_a_liver_without_a_mask_is_said_to_be_unlike(made, tmp_path):  # noqa: F811
    detector = made.detector("Brain", "--prepare", "Liver", "--out", tmp_path / "l.detector")
    path = volume(tmp_path / "scan.nii.gz")
    made.predict(detector, tmp_path / "out", path)
    with (tmp_path / "out/scores.csv").open() as file:
        notes = [row["notes"] for row in csv.DictReader(file)][-1]
    assert "liver" in notes.lower()
