"""DICOM series as volumes: grouping, order, geometry, files of several frames, refusals."""

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from dataset.dicom import is_multiframe, read_frames, read_header
from errors import UserError
from scans.geometry import read_plane
from scans.nifti import write_map
from scans.series import group_series, read_series
from scans.volume import AXES, Slices, ras, slice_pixels
from tests.scan_files import (
    dicom_dataset,
    group,
    write_dicom_file,
    write_enhanced,
    write_series,
)

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
NIBABEL = Path(nibabel.__file__).parent
DEGREE = np.pi / 180
SCALES = [(1.0, 0.0), (2.0, -10.0), (0.5, 100.0), (3.0, 1.0)]  # slope and intercept of frames
WINDOWS = [(10, 20)] * 4


def slices_of(count: int = 5) -> np.ndarray:
    """Return slices [K, 3, 4] of different values."""
    return np.arange(count * 12, dtype=np.int16).reshape(count, 3, 4)


def upwards(count: int = 5, step: float = 2.5) -> np.ndarray:
    """Return positions [K, 3] along z."""
    return np.array([[10.0, -20.0, 100 + step * k] for k in range(count)])


def test_a_series_is_sorted_by_position(tmp_path):
    stored = slices_of()
    paths = write_series(tmp_path, stored, upwards(), RescaleSlope=2, RescaleIntercept=-7)
    volume = read_series(sorted(paths))
    assert volume.paths == tuple(paths)
    assert volume.shape == (4, 3, 5)
    assert volume.kind == "dicom"
    assert volume.modality == "CT"
    assert volume.notes == ()
    assert volume.frames == ()
    np.testing.assert_array_equal(volume.values.transpose(2, 1, 0), 2.0 * stored - 7)
    np.testing.assert_allclose(
        volume.affine, [[1, 0, 0, 10], [0, 2, 0, -20], [0, 0, 2.5, 100], [0, 0, 0, 1]]
    )
    assert volume.full == (-65543.0, 65527.0)


def oblique_series(folder: Path) -> list[Path]:
    """Write slices of a patient who is turned about two axes."""
    turn = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, 0.96, 0.28], [0, -0.28, 0.96]]
    )
    positions = [np.array([5, 6, 7]) + turn[:, 2] * 3 * k for k in range(4)]
    cosines = [*turn[:, 0], *turn[:, 1]]
    return write_series(
        folder,
        slices_of(4),
        positions,
        ImageOrientationPatient=cosines,
        FrameOfReferenceUID="1.2.3",
        PatientPosition="HFS",
    )


def test_the_affine_is_that_of_highdicom(tmp_path):
    paths = oblique_series(tmp_path)
    volume = read_series(paths)
    datasets = [pydicom.dcmread(path) for path in paths]
    wanted = highdicom.get_volume_from_series(datasets)  # [K, J, I], slices against the normal
    turned = np.array([[0, 0, -1, 3], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(volume.affine, wanted.affine @ turned, atol=1e-6)
    np.testing.assert_array_equal(volume.values.transpose(2, 1, 0), wanted.array[::-1])


def test_a_series_downwards_is_sorted_along_its_normal(tmp_path):
    paths = write_series(tmp_path, slices_of(), upwards(step=-2.5))
    volume = read_series(paths)
    assert volume.paths == tuple(reversed(paths))
    assert volume.affine[2, 2] == 2.5
    assert volume.affine[2, 3] == 90


@pytest.mark.parametrize("axis", AXES)
def test_a_marked_voxel_stays_where_it_is(tmp_path, axis):
    stored = np.zeros((4, 3, 4), np.int16)
    stored[2, 1, 3] = 1000
    turn = oblique_series(tmp_path / "geometry")
    for path, slice_values in zip(turn, stored, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = slice_values.tobytes()
        dataset.save_as(path)
    plane = read_plane(read_header(turn[2]))
    place = plane.position + 3 * plane.along_row * 1 + 1 * plane.along_column * 2
    volume = read_series(turn)
    slices = Slices(volume, axis)
    maps = (np.stack(list(slices)) > 500).astype(np.float32)
    write_map(tmp_path / "map.nii.gz", volume, slices.place(maps))
    image = nibabel.load(tmp_path / "map.nii.gz")
    marked = np.argwhere(image.get_fdata())
    assert marked.tolist() == [[3, 1, 2]]
    np.testing.assert_allclose(ras(image.affine) @ [*marked[0], 1], [*place, 1], atol=1e-4)


def test_a_tilted_gantry_is_kept_and_said(tmp_path):
    positions = upwards()
    positions[:, 1] += np.tan(15 * DEGREE) * (positions[:, 2] - positions[0, 2])
    volume = read_series(write_series(tmp_path, slices_of(), positions))
    assert volume.notes == ("tilted gantry: the slices are sheared by 15.0 degrees",)
    for k, position in enumerate(positions):
        np.testing.assert_allclose(volume.affine @ [0, 0, k, 1], [*position, 1])


def test_uneven_spacing_is_said(tmp_path):
    positions = upwards()
    positions[-1, 2] += 2
    volume = read_series(write_series(tmp_path, slices_of(), positions))
    assert "2.5 to 4.5 mm apart; the geometry has the mean, 3 mm" in volume.notes[0]
    assert volume.affine[2, 2] == 3
    np.testing.assert_allclose(volume.affine @ [0, 0, 4, 1], [*positions[-1], 1])


def test_groups_are_the_series(tmp_path):
    first = write_series(tmp_path / "a", slices_of(), upwards(), SeriesInstanceUID="1.2.3")
    second = write_series(tmp_path / "b", slices_of(3), upwards(3), SeriesInstanceUID="1.2.4")
    photograph = write_dicom_file(
        tmp_path / "c.dcm", np.zeros((2, 2), np.uint8), SeriesInstanceUID="1.2.3"
    )
    cine = write_dicom_file(
        tmp_path / "d.dcm", np.zeros((2, 2, 2), np.uint8), SeriesInstanceUID="1.2.3"
    )
    bad = tmp_path / "e.dcm"
    bad.write_text("text")
    files = [*sorted(second), bad, *sorted(first), photograph, cine]
    assert group_series(files) == [
        tuple(second),
        (bad,),
        tuple(first),
        (photograph,),
        (cine,),
    ]
    assert is_multiframe(cine)
    assert group_series([]) == []


def test_files_of_several_frames_are_groups_of_their_own(tmp_path):
    stored = np.zeros((2, 3, 4), np.uint16)
    paths = [
        write_enhanced(
            tmp_path / f"{z}.dcm", stored, [(0, 0, z), (0, 0, z + 3)], SCALES[:2], WINDOWS[:2]
        )
        for z in (0, 6)
    ]
    assert group_series(paths) == [(paths[0],), (paths[1],)]


def test_grouping_reads_headers_alone(tmp_path):
    paths = write_series(tmp_path, slices_of(), upwards())
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[:-20])  # the pixels are cut off
    assert group_series(sorted(paths)) == [tuple(paths)]
    with pytest.raises(UserError, match="less than expected"):
        read_series(paths)


def refuse_after(paths: list[Path], k: int, **attributes) -> str:
    """Change attributes of a file of a series, and return why the series is refused."""
    dataset = pydicom.dcmread(paths[k])
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(paths[k])
    with pytest.raises(UserError) as caught:
        read_series(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "differ in orientation"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, -1, 0]}, "differ in orientation"),
        ({"Rows": 4, "Columns": 3}, "differ in Rows, 3 and 4"),
        ({"PixelSpacing": [2, 2]}, "differ in pixel spacing"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "differ in PhotometricInterpretation"),
        ({"ImagePositionPatient": [10, -20, 105]}, "lie at one place"),
    ],
)
def test_files_that_are_no_volume_are_named(tmp_path, attributes, reason):
    paths = write_series(tmp_path, slices_of(), upwards())
    message = refuse_after(paths, 3, **attributes)
    assert reason in message
    assert "--series no" in message
    assert sum(str(path) in message for path in paths) == 2
    assert str(paths[3]) in message


def test_files_without_a_place_are_refused(tmp_path):
    paths = write_series(tmp_path, slices_of(), upwards())
    message = refuse_after(paths, 3, ImagePositionPatient=None)
    assert f"{paths[3]} does not say where it lies" in message


def test_copies_are_left_out(tmp_path):
    paths = write_series(tmp_path, slices_of(), upwards())
    copy = tmp_path / "z-copy.dcm"
    copy.write_bytes(paths[2].read_bytes())
    volume = read_series([*paths, copy])
    assert volume.paths == tuple(paths)
    assert volume.notes == ("1 files are copies of others (SOPInstanceUID) and left out",)


def test_windows_of_their_own_are_said(tmp_path):
    paths = write_series(tmp_path, slices_of(), upwards(), WindowCenter=50, WindowWidth=101)
    assert read_series(paths).window == (-0.5, 99.5)
    dataset = pydicom.dcmread(paths[2])
    dataset.WindowCenter = 60
    dataset.save_as(paths[2])
    volume = read_series(paths)
    assert volume.window == (9.5, 109.5)  # of the middle slice
    assert "windows of their own" in volume.notes[0]


def test_tables_of_interest_are_said(tmp_path):
    table = group(LUTDescriptor=[60, 0, 16], LUTData=np.arange(60, dtype=np.uint16)[::-1].tobytes())
    paths = write_series(tmp_path, slices_of(), upwards(), VOILUTSequence=[table])
    volume = read_series(paths)
    np.testing.assert_array_equal(volume.values.transpose(2, 1, 0), 59 - slices_of())
    assert volume.notes == ("its VOI lookup table is applied, as it has no window",)


def test_bytes_stay_as_they_are(tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    paths = write_series(tmp_path, stored, upwards(3), PhotometricInterpretation="MONOCHROME1")
    volume = read_series(paths)
    assert volume.inverted
    pixels = slice_pixels(volume, Slices(volume), 1)
    assert pixels.values.dtype == np.uint8
    np.testing.assert_array_equal(pixels.values, stored[1])
    assert pixels.inverted


def test_one_file_is_a_volume_of_one_slice(tmp_path):
    path = write_series(tmp_path, slices_of(1), upwards(1), SliceThickness=4)[0]
    volume = read_series([path])
    assert volume.shape == (4, 3, 1)
    np.testing.assert_array_equal(volume.affine[:3, 2:], [[0, 10], [0, -20], [4, 100]])
    assert volume.notes == ()
    radiograph = write_dicom_file(tmp_path / "b.dcm", slices_of(1)[0])
    volume = read_series([radiograph])
    assert volume.shape == (4, 3, 1)
    assert "does not say where its frames lie" in volume.notes[0]


@pytest.mark.parametrize(
    ("heights", "order"),
    [([0, 3, 6, 9], [0, 1, 2, 3]), ([9, 6, 3, 0], [0, 1, 2, 3]), ([6, 0, 9, 3], [1, 3, 0, 2])],
)
def test_enhanced_files_are_volumes(tmp_path, heights, order):
    """Frames are sorted unless they follow their normal in either direction."""
    stored = np.random.default_rng(0).integers(0, 1000, (4, 3, 4)).astype(np.uint16)
    positions = [(1, 2, height) for height in heights]
    path = write_enhanced(tmp_path / "a.dcm", stored, positions, SCALES, WINDOWS)
    assert group_series([path]) == [(path,)]
    volume = read_series([path])
    assert volume.frames == tuple(order)
    assert volume.paths == (path,)
    assert volume.notes == ()
    assert volume.modality == "MR"
    frames = volume.in_frames(volume.values)
    for k in range(4):
        wanted = np.float32(stored[k] * SCALES[k][0] + SCALES[k][1])
        np.testing.assert_array_equal(frames[k], wanted)
    for k, frame in enumerate(order):
        slope, intercept = SCALES[frame]
        np.testing.assert_array_equal(
            volume.values[:, :, k].T, np.float32(stored[frame] * slope + intercept)
        )
        np.testing.assert_allclose(volume.affine @ [0, 0, k, 1], [*positions[frame], 1])
    np.testing.assert_allclose(volume.affine[:2, :2], [[1, 0], [0, 2]])


def test_frames_at_one_place_keep_their_order(tmp_path):
    stored = np.zeros((4, 3, 4), np.uint16)
    positions = [(0, 0, 0), (0, 0, 3), (0, 0, 0), (0, 0, 3)]  # two phases
    path = write_enhanced(tmp_path / "a.dcm", stored, positions, SCALES, WINDOWS)
    volume = read_series([path])
    np.testing.assert_array_equal(volume.affine, np.eye(4))
    assert volume.frames == (0, 1, 2, 3)
    assert "several of its frames lie at one place" in volume.notes[0]


def test_frames_in_several_directions_keep_their_order(tmp_path):
    stored = np.zeros((4, 3, 4), np.uint16)
    path = write_enhanced(
        tmp_path / "a.dcm", stored, [(0, 0, k) for k in range(4)], SCALES, WINDOWS
    )
    dataset = pydicom.dcmread(path)
    turned = [group(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])]
    dataset.PerFrameFunctionalGroupsSequence[2].PlaneOrientationSequence = turned
    dataset.save_as(path)
    volume = read_series([path])
    assert "its frames differ in orientation" in volume.notes[0]
    np.testing.assert_array_equal(volume.affine, np.eye(4))


def test_cine_is_read_in_colour_without_a_geometry():
    path = Path(get_testdata_file("examples_ybr_color.dcm", download=False))
    volume = read_series([path])
    assert volume.values.shape == (320, 240, 30, 3)
    assert volume.shape == (320, 240, 30)
    assert "does not say where its frames lie" in volume.notes[0]
    slices = Slices(volume)
    assert len(slices) == 30
    pixels = slice_pixels(volume, slices, 7)
    assert pixels.values.dtype == np.uint8
    np.testing.assert_array_equal(pixels.values, read_frames(path)[7].values)


def test_dose_grids_have_offsets():
    path = Path(get_testdata_file("rtdose.dcm", download=False))
    volume = read_series([path])
    header = read_header(path)
    assert volume.shape == (10, 10, 15)
    offsets = [float(offset) for offset in header.GridFrameOffsetVector]
    origin = np.array([float(number) for number in header.ImagePositionPatient])
    normal = read_plane(header).normal
    for k in (0, 7, 14):
        np.testing.assert_allclose(
            (volume.affine @ [0, 0, k, 1])[:3], origin + normal * offsets[k], atol=1e-6
        )
    assert volume.notes == ()


def test_floating_point_frames_that_are_not_finite_are_said(tmp_path):
    values = np.array([[[0.25, np.nan], [1, 2]], [[3, 4], [5, -6]]], np.float32)
    dataset = dicom_dataset(values.view(np.uint32))
    del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
    dataset.FloatPixelData = values.tobytes()
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    volume = read_series([tmp_path / "a.dcm"])
    assert volume.values[1, 0, 0] == -6
    assert "1 values are NaN or infinite" in " ".join(volume.notes)


def test_every_series_that_pydicom_and_nibabel_ship_is_read_or_refused(capfd):
    roots = [SHIPPED / "dicomdirtests", NIBABEL / "nicom/tests/data", NIBABEL / "tests/data"]
    files = sorted(
        path
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and (path.suffix == ".dcm" or path.read_bytes()[128:132] == b"DICM")
    )
    groups = group_series(files)
    assert sorted(path for members in groups for path in members) == files
    volumes = []
    messages = []
    for members in groups:
        try:
            volumes.append(read_series(members))
        except UserError as error:
            messages.append(str(error))
    sizes = sorted((volume.shape[2] for volume in volumes), reverse=True)
    assert capfd.readouterr() == ("", "")
    with capfd.disabled():
        print(f" {len(volumes)} of {len(groups)} series are read, of {sizes} slices")
    assert all("\n" not in message for message in messages)
    assert sizes[0] > 1
    assert len(volumes) >= 12
    assert capfd.readouterr().err == ""
    for volume in volumes:
        for k, path in enumerate(volume.paths):
            np.testing.assert_array_equal(
                volume.values[:, :, k].T, read_frames(path)[0].values.astype(np.float32)
            )
