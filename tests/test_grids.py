"""Grids: every orientation by hand, resampling against nibabel, masks on the same voxels."""

import nibabel
import numpy as np
import pytest
from nibabel.processing import resample_from_to

from scans.grids import Turned, axis_codes, is_millimetric, lay_on, resample
from scans.volume import Volume, ras
from tests.volumes import ORIENTATIONS, reordered, rotation, volume_of

SHAPE = (4, 5, 6)


@pytest.fixture
def numbered() -> Volume:
    return volume_of(np.arange(np.prod(SHAPE)).reshape(SHAPE), np.diag([1.0, 1, 1, 1]))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_any_order_turns_to_the_same_grid_and_back(numbered, orientation):
    other = reordered(numbered, *orientation)
    turned = Turned(other)
    assert np.array_equal(turned.values, numbered.values)
    np.testing.assert_allclose(turned.affine, numbered.affine, atol=1e-12)
    assert np.array_equal(turned.back(turned.values), other.values)


def test_axis_codes_are_lps_of_a_dicom_like_affine(numbered):
    assert axis_codes(numbered) == "LPS"
    assert axis_codes(reordered(numbered, (1, 0, 2), (False, True, False))) == "PRS"


def test_what_counts_as_a_millimetre(numbered):
    assert is_millimetric(numbered.affine)
    assert is_millimetric(np.diag([1.0000005, 0.9999, 1, 1]))
    assert not is_millimetric(np.diag([1.0, 1.0, 1.01, 1.0]))
    assert not is_millimetric(np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert not is_millimetric(rotation(2.0))


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(0, 3, size) for size in shape), indexing="ij")
    return sum(np.sin(axis + 1) for axis in axes) + 5


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_resampling_is_nibabels(degrees):
    affine = rotation(degrees) @ np.diag([1.3, 0.8, 2.5, 1.0])
    affine[:3, 3] = (-17.0, 30.0, 5.0)
    volume = volume_of(smooth((12, 15, 9)), affine)
    got = resample(volume)
    assert is_millimetric(got.affine)
    image = nibabel.Nifti1Image(volume.values, ras(volume.affine))
    target = (got.values.shape, ras(got.affine))
    expected = resample_from_to(image, target, order=1, cval=np.nan).get_fdata()
    inside = np.isfinite(expected)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(got.values[inside], expected[inside], atol=1e-4)
    grid = np.indices(got.values.shape).reshape(3, -1)
    to_volume = np.linalg.inv(volume.affine) @ got.affine
    there = (to_volume[:3, :3] @ grid).T + to_volume[:3, 3]
    far = ((there < -1) | (there > np.array(volume.shape))).any(axis=1).reshape(got.values.shape)
    assert far.any() == (degrees > 0)
    assert (got.values[far] == volume.values.min()).all()


def test_resampling_covers_every_voxel_and_comes_back():
    affine = rotation(10.0) @ np.diag([1.3, 0.8, 2.5, 1.0])
    values = np.indices((12, 15, 9)).sum(axis=0) + 1.0  # linear interpolation is exact
    volume = volume_of(values, affine)
    grid = resample(volume)
    back = grid.back(grid.values)
    assert back.shape == volume.shape
    assert np.isfinite(back).all()
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(back[inner], values[inner], atol=1e-4)


def test_what_is_not_known_does_not_spread():
    volume = volume_of(np.ones((6, 6, 3)), np.diag([1.0, 1.0, 4.25, 1.0]))  # at 0, 4.25, 8.5 mm
    grid = resample(volume)
    assert grid.values.shape == (6, 6, 10)
    below = np.full(grid.values.shape, np.nan, np.float32)
    below[:, :, :5] = 7
    back = grid.back(below)
    assert (back[:, :, :2] == 7).all()  # not pulled to 0 by what is unknown
    assert np.isnan(back[:, :, 2]).all()
    above = np.where(np.isnan(below), np.float32(7), np.float32(np.nan))
    back = grid.back(above)
    assert np.isnan(back[:, :, :2]).all()  # a quarter of the weight at 4.25 mm
    assert (back[:, :, 2] == 7).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5], ids=str)
def test_a_mask_with_other_axes_lies_on_its_scan(numbered, orientation):
    tilted = volume_of(numbered.values, rotation(15.0) @ np.diag([0.7, 0.9, 3.0, 1.0]))
    mask = reordered(tilted, *orientation)
    assert np.array_equal(lay_on(mask, tilted), tilted.values)


def test_a_mask_elsewhere_does_not(numbered):
    moved = numbered.affine.copy()
    moved[2, 3] += 0.2
    assert lay_on(volume_of(numbered.values, moved), numbered) is None
    finer = np.diag([1.02, 1.0, 1.0, 1.0])
    assert lay_on(volume_of(numbered.values, finer), numbered) is not None  # 0.06 voxels off
    assert lay_on(volume_of(numbered.values[1:], numbered.affine), numbered) is None
    assert lay_on(volume_of(numbered.values, np.diag([2.0, 2, 2, 1])), numbered) is None


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48
