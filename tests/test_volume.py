"""Slices as viewers show them, and maps put back: in every orientation, along every axis."""

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dataset.intensity import Intensity
from dataset.pixels import pixels_to_rgb
from errors import UserError
from scans.nifti import read_nifti, write_map
from scans.volume import AXES, Slices, Volume, finite_values, ras, slice_pixels

ORIENTATIONS = [  # all 48: three axes in any order, each in either direction
    tuple(pair[side] for pair, side in zip(axes, sides, strict=True))
    for axes in permutations(("RL", "AP", "IS"))
    for sides in product((0, 1), repeat=3)
]
SIZE = {"R": 5, "L": 5, "A": 6, "P": 6, "I": 7, "S": 7}  # voxels along a direction
SPACING = {"R": 1.0, "L": 1.0, "A": 2.0, "P": 2.0, "I": 3.0, "S": 3.0}  # millimetres
TO_RAS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
ORIGIN = np.array([-10.0, 20.0, 30.0])
MARKED = np.array([2.0, 2.0, 9.0])  # where in the patient, from the right, back and lowest voxel


def affine_of(codes: tuple[str, ...]) -> np.ndarray:
    """Return an affine to RAS of a box that covers the same place in every orientation."""
    affine = np.eye(4)
    affine[:3, 3] = ORIGIN
    affine[:3, :3] = 0
    for index, code in enumerate(codes):
        axis, sign = TO_RAS[code]
        affine[axis, index] = sign * SPACING[code]
        if sign < 0:
            affine[axis, 3] += (SIZE[code] - 1) * SPACING[code]
    return affine


def turned(affine: np.ndarray, degrees: float) -> np.ndarray:
    """Return an affine of a patient who is turned about two axes."""
    angle = np.radians(degrees)
    cosine = np.cos(angle)
    sine = np.sin(angle)
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    full = np.eye(4)
    full[:3, :3] = about_x @ about_z
    return full @ affine


def write_marked(path: Path, codes: tuple[str, ...], degrees: float = 0.0) -> tuple[int, ...]:
    """Write a volume that is 0 but for one voxel at the marked place; return its indices."""
    affine = affine_of(codes)
    voxel = np.rint(np.linalg.inv(affine) @ [*(ORIGIN + MARKED), 1])[:3].astype(int)
    values = np.zeros([SIZE[code] for code in codes], np.int16)
    values[tuple(voxel)] = 900
    nibabel.save(nibabel.Nifti1Image(values, turned(affine, degrees)), path)
    return tuple(int(index) for index in voxel)


# slice, row and column of the marked place, 2 mm from the right (of 5 voxels of 1 mm), 2 mm from
# the back (of 6 of 2 mm), 9 mm from below (of 7 of 3 mm)
SHOWN_AT = {"axial": (3, 4, 2), "coronal": (4, 3, 2), "sagittal": (2, 3, 4)}


@pytest.mark.parametrize("degrees", [0.0, 12.0])
@pytest.mark.parametrize("codes", ORIENTATIONS, ids="".join)
def test_a_marked_voxel_stays_where_it_is(tmp_path, codes, degrees):
    voxel = write_marked(tmp_path / "a.nii", codes, degrees)
    volume = read_nifti(tmp_path / "a.nii")
    place = volume.affine @ [*voxel, 1]
    for axis in AXES:
        slices = Slices(volume, axis)
        stack = np.stack([slices[k] for k in range(len(slices))])
        maps = (stack > 450).astype(np.float32)
        found = tuple(int(index) for index in np.argwhere(maps)[0])
        assert found == SHOWN_AT.get(axis, voxel[::-1])
        write_map(tmp_path / "map.nii.gz", volume, slices.place(maps))
        again = nibabel.load(tmp_path / "map.nii.gz")
        marked = np.argwhere(again.get_fdata())
        assert [tuple(index) for index in marked] == [voxel]
        np.testing.assert_allclose(ras(again.affine) @ [*marked[0], 1], place, atol=1e-4)
        np.testing.assert_array_equal(again.affine, nibabel.load(tmp_path / "a.nii").affine)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48
    for codes in ORIENTATIONS:
        assert nibabel.aff2axcodes(affine_of(codes)) == codes


def lps_volume(values: np.ndarray, **attributes) -> Volume:
    """Return a volume whose indices grow to the left, to the back and upwards."""
    values = np.asarray(values, np.float32)
    return Volume(values, np.eye(4), "nifti", (Path("a"),), **attributes)


def test_slices_are_shown_as_viewers_do():
    """By the definition: L, P and S of each voxel stand in it."""
    left, back, up = np.indices((3, 4, 5))
    volume = lps_volume(100 * left + 10 * back + up)
    axial = Slices(volume, "axial")
    assert len(axial) == 5
    np.testing.assert_array_equal(
        axial[4], [[4 + 10 * p + 100 * x for x in range(3)] for p in range(4)]
    )
    coronal = Slices(volume, "coronal")
    assert len(coronal) == 4
    np.testing.assert_array_equal(
        coronal[1], [[10 + 100 * x + z for x in range(3)] for z in (4, 3, 2, 1, 0)]
    )
    sagittal = Slices(volume, "sagittal")
    assert len(sagittal) == 3
    np.testing.assert_array_equal(
        sagittal[2], [[200 + 10 * p + z for p in range(4)] for z in (4, 3, 2, 1, 0)]
    )
    acquired = Slices(volume, "acquired")
    np.testing.assert_array_equal(acquired[0], volume.values[:, :, 0].T)


@pytest.mark.parametrize("axis", AXES)
def test_placing_is_the_exact_inverse(axis):
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    volume = lps_volume(values)
    slices = Slices(volume, axis)
    stack = np.stack(list(slices))
    assert stack.dtype == np.float32
    placed = slices.place(stack)
    np.testing.assert_array_equal(placed, volume.values)
    assert placed.flags.c_contiguous
    with pytest.raises(ValueError, match="maps of shape"):
        slices.place(stack[1:])


def test_colours_are_sliced_and_their_maps_have_none():
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3))
    volume = lps_volume(values, bits=8, full=(0.0, 255.0))
    slices = Slices(volume, "coronal")
    np.testing.assert_array_equal(slices[1], values[:, 1, ::-1].transpose(1, 0, 2))
    assert slices.place(np.zeros((4, 5, 3), np.float32)).shape == volume.shape == (3, 4, 5)
    pixels = slice_pixels(volume, slices, 1)
    shown = np.asarray(pixels_to_rgb(pixels, Intensity()))
    np.testing.assert_array_equal(shown, slices[1])


def test_axes_have_defaults_and_others_are_refused():
    volume = lps_volume(np.zeros((3, 4, 5)))
    assert Slices(volume).axis == "axial"
    dicom = Volume(volume.values, volume.affine, "dicom", volume.paths)
    assert Slices(dicom).axis == "acquired"
    with pytest.raises(UserError, match="allowed are axial, coronal, sagittal, acquired"):
        Slices(volume, "oblique")


def test_slices_are_pixels():
    values = np.arange(24).reshape(2, 3, 4)
    wide = lps_volume(
        values, bits=12, full=(0.0, 4095.0), window=(5.0, 10.0), inverted=True, modality="MR"
    )
    pixels = slice_pixels(wide, Slices(wide, "acquired"), 1)
    assert pixels.wide
    assert (pixels.bits, pixels.full, pixels.window) == (12, (0.0, 4095.0), (5.0, 10.0))
    assert pixels.inverted
    assert pixels.modality == "MR"
    shown = np.asarray(pixels_to_rgb(pixels, Intensity()))
    assert shown[0, 0, 0] == 255  # value 1, below the window, inverted
    narrow = lps_volume(values, bits=8, full=(0.0, 255.0))
    pixels = slice_pixels(narrow, Slices(narrow, "acquired"), 1)
    assert pixels.values.dtype == np.uint8
    shown = np.asarray(pixels_to_rgb(pixels, Intensity()))
    np.testing.assert_array_equal(shown[..., 0], values[:, :, 1].T)
    scaled = lps_volume(values, bits=8, full=(0.0, 25.5))
    assert slice_pixels(scaled, Slices(scaled), 0).wide


def test_values_that_are_not_finite_become_the_smallest():
    values = np.array([[np.nan, 2], [np.inf, -3]], np.float32)
    found, note = finite_values(Path("a"), values)
    np.testing.assert_array_equal(found, [[-3, 2], [-3, -3]])
    assert note.startswith("2 values are NaN or infinite")
    same, note = finite_values(Path("a"), found)
    assert same is found
    assert note == ""
    with pytest.raises(UserError, match="a has no finite value"):
        finite_values(Path("a"), np.full((2, 2), np.nan, np.float32))
