"""Prepared slices: BMAD's pictures from any grid, and maps back where they belong."""

import nibabel
import numpy as np
import pytest

from errors import UserError
from scans.bmad import brain_picture, liver_picture
from scans.nifti import read_nifti
from scans.preparation import PREPARATIONS, Prepared
from scans.series import read_series
from scans.volume import ras
from tests.scans_made import FRAMES, series_files
from tests.volumes import ORIENTATIONS, reordered, reordered_place, rotation, volume_of

SHAPE = (11, 13, 7)
MARK = (3, 8, 4)


def head(shape: tuple[int, ...] = SHAPE, mark: tuple[int, ...] = MARK) -> np.ndarray:
    """Return something dim with 0 around it, on every slice, and one bright voxel."""
    values = np.zeros(shape, np.float32)
    values[2:-2, 2:-2] = np.random.default_rng(1).integers(50, 90, values[2:-2, 2:-2].shape)
    values[mark] = 1000
    return values


def marked(prepared: Prepared) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return maps with 1 at the marked pixel, 0 elsewhere, and its place.

    Every picture has its own range, so all but the mark is dark on the slice that has it.
    """
    stack = np.stack([prepared[n].sum(axis=-1, dtype=int) for n in range(len(prepared))])
    area = np.count_nonzero(stack, axis=(1, 2))
    grey = stack.sum(axis=(1, 2)) / area
    number = np.where(area > area.max() / 2, grey, np.inf).argmin()
    spot = (number, *np.unravel_index(stack[number].argmax(), stack.shape[1:]))
    maps = np.zeros(stack.shape, np.float32)
    maps[spot] = 1
    return maps, tuple(int(x) for x in spot)


@pytest.fixture(scope="module")
def brats():
    """Return a volume of BraTS's geometry: its usual affine, diag(-1, -1, 1) in RAS."""
    affine = np.eye(4)
    affine[:3, 3] = (0, -239, 0)
    values = np.zeros((240, 240, 155), np.float32)
    values[60:180, 50:200, 3:150] = np.random.default_rng(0).integers(1, 3000, (120, 150, 147))
    values[:, :, 70] = 0
    return volume_of(values, affine)


def test_a_brats_volume_gives_bmads_slices_bit_for_bit(brats):
    prepared = Prepared("Brain", brats)
    assert prepared.indices == [k for k in range(60, 100) if k != 70]
    assert any("60 to 99 of 155" in note for note in prepared.notes)
    assert any("1 slices show nothing" in note for note in prepared.notes)
    assert not any("interpolated" in note or "skull" in note for note in prepared.notes)
    for n in (0, 10, 38):
        a = brats.values[:, :, prepared.indices[n]].astype(np.float64)
        assert np.array_equal(prepared[n], brain_picture(a))
    maps = np.random.default_rng(2).random((39, 240, 240), np.float32)
    placed = prepared.place(maps)
    assert placed.dtype == np.float32
    assert np.array_equal(placed[:, :, prepared.indices], maps.transpose(1, 2, 0))
    others = [k for k in range(155) if k not in prepared.indices]
    assert np.isnan(placed[:, :, others]).all()


def test_slices_are_chosen(brats):
    assert Prepared("Brain", brats, slices=(3, 5)).indices == [3, 4, 5]
    with pytest.raises(UserError, match=r"--slices 100:155.*0 to 154"):
        Prepared("Brain", brats, slices=(100, 155))
    with pytest.raises(UserError, match="one value only"):
        Prepared("Brain", brats, slices=(0, 2))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_a_brain_of_1_mm_is_exact_in_every_orientation(orientation):
    base = volume_of(head(), np.eye(4))
    expected = Prepared("Brain", base)
    other = reordered(base, *orientation)
    prepared = Prepared("Brain", other)
    assert prepared.indices == expected.indices == list(range(7))
    assert prepared[4].shape == (240, 240, 3)
    assert np.array_equal(prepared[4], expected[4])
    maps, spot = marked(prepared)
    assert spot == (MARK[2], MARK[0] + 114, MARK[1] + 113)  # not transposed, in the middle
    placed = prepared.place(maps)
    assert placed.shape == other.shape
    assert np.argwhere(placed == 1).tolist() == [list(reordered_place(MARK, SHAPE, *orientation))]
    assert np.count_nonzero(placed) == 1


def test_a_wide_volume_is_cut_to_its_middle():
    values = np.zeros((250, 230, 2), np.float32)
    values[5:245, :, :] = 1
    values[5, 0] = 9
    prepared = Prepared("Brain", volume_of(values, np.eye(4)))
    assert prepared[0][0, 5].tolist() == [255, 255, 255]
    assert any("middle 240 x 240" in note for note in prepared.notes)
    placed = prepared.place(np.ones((2, 240, 240), np.float32))
    assert np.isnan(placed[:5]).all()
    assert np.isnan(placed[245:]).all()
    assert (placed[5:245] == 1).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS[::3], ids=str)
@pytest.mark.parametrize("degrees", [0.0, 18.0])
def test_a_mark_on_an_anisotropic_grid_stays_within_a_voxel(orientation, degrees):
    shape = (22, 24, 9)
    mark = (6, 15, 5)
    values = np.zeros(shape, np.float32)
    values[3:-3, 3:-3, 1:-1] = 60
    values[mark] = 1000
    affine = rotation(degrees) @ np.diag([1.3, 0.9, 3.0, 1.0])
    affine[:3, 3] = (12.0, -40.0, 7.0)
    volume = reordered(volume_of(values, affine), *orientation)
    prepared = Prepared("Brain", volume)
    assert any("interpolated from voxels of" in note for note in prepared.notes)
    maps, spot = marked(prepared)
    maps[:] = 0
    maps[spot[0], spot[1] - 1 : spot[1] + 2, spot[2] - 1 : spot[2] + 2] = 1
    placed = prepared.place(maps)
    assert placed.shape == volume.shape
    found = np.unravel_index(np.nanargmax(placed), placed.shape)
    there = reordered_place(mark, shape, *orientation)
    assert max(abs(f - t) for f, t in zip(found, there, strict=True)) <= 1
    assert placed[there] > 0


def test_notes_of_a_brain_that_is_unlike_the_pictures():
    noise = np.random.default_rng(3).random((8, 8, 4))
    notes = Prepared("Brain", volume_of(noise, np.eye(4), modality="CT")).notes
    assert any("skull-stripped" in note for note in notes)
    assert any("modality CT" in note for note in notes)
    assert any("60 to 99 mm" in note for note in notes)


@pytest.fixture
def scan() -> np.ndarray:
    values = np.random.default_rng(4).normal(40, 80, (20, 16, 6)).round().astype(np.float32)
    values[0] = -1000
    return values


CT = np.diag([0.8, 0.8, 5.0, 1.0])


@pytest.fixture
def liver() -> np.ndarray:
    mask = np.zeros((20, 16, 6), np.float32)
    mask[4:15, 3:12, 1:5] = 1
    mask[6:9, 5:8, 2] = 2
    return mask


def test_liver_slices_are_bmads_in_the_files_own_order(scan, liver):
    for flips in ((False, False), (False, True), (True, True)):
        axes = ((0, 1, 2), (*flips, False))
        volume = reordered(volume_of(scan, CT), *axes)
        mask = reordered(volume_of(liver, CT), *axes)
        prepared = Prepared("Liver", volume, mask)
        assert prepared.indices == [1, 2, 3, 4]
        assert any("mirrored" in note for note in prepared.notes) == flips[0]
        for n, k in enumerate(prepared.indices):
            expected = liver_picture(volume.values[:, :, k], mask.values[:, :, k] > 0)
            assert np.array_equal(prepared[n], expected)
        shown = prepared[0][::-1, :, 0] > 0
        assert np.array_equal(shown, mask.values[:, :, 1] > 0)  # upside down
        maps = np.random.default_rng(5).random((4, 20, 16), np.float32)
        placed = prepared.place(maps)
        assert np.array_equal(placed[:, :, 1:5], maps[:, ::-1].transpose(1, 2, 0))
        assert np.isnan(placed[:, :, (0, 5)]).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_a_mark_in_the_liver_stays_in_every_orientation(scan, liver, orientation):
    mark = (7, 6, 3)
    volume = reordered(volume_of(scan, CT), *orientation)
    mask = volume_of(liver, CT)  # in another order than the scan
    prepared = Prepared("Liver", volume, mask)
    assert len(prepared) == 4
    single = np.zeros_like(liver)
    single[mark] = 1
    there = Prepared("Liver", volume, volume_of(single, CT))
    assert len(there) == 1
    maps = np.where(there[0][..., 0] > 0, 1, 0)[None].astype(np.float32)
    placed = there.place(maps)
    place = reordered_place(mark, liver.shape, *orientation)
    assert np.argwhere(placed == 1).tolist() == [list(place)]


def test_a_nifti_mask_of_a_dicom_series(tmp_path):
    """A converter stores a series with its rows reversed; the mask still lies on it."""
    volume = read_series(series_files(tmp_path / "ct", 9, 14))
    assert volume.shape == (14, 9, FRAMES)
    place = (4, 2, 3)
    liver = np.zeros(volume.shape, np.uint8)
    liver[place] = 1
    reversed_rows = volume.affine @ np.array(
        [[1, 0, 0, 0], [0, -1, 0, 8], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    image = nibabel.Nifti1Image(liver[:, ::-1], ras(reversed_rows))
    nibabel.save(image, tmp_path / "liver.nii.gz")
    prepared = Prepared("Liver", volume, read_nifti(tmp_path / "liver.nii.gz"))
    assert prepared.indices == [place[2]]
    shown = np.argwhere(prepared[0][..., 0]).tolist()
    assert shown == [[13 - place[0], place[1]]]
    maps = (prepared[0][None, ..., 0] > 0).astype(np.float32)
    assert np.argwhere(prepared.place(maps) == 1).tolist() == [list(place)]


def test_slices_that_are_not_axial_are_turned(scan):
    volume = reordered(volume_of(scan, CT), (2, 0, 1), (False, False, False))
    prepared = Prepared("Liver", volume)
    assert any("turned to LPS" in note for note in prepared.notes)
    assert np.array_equal(prepared[2], liver_picture(scan[:, :, 2]))


def test_without_a_liver_mask_the_note_says_what_to_do(scan):
    prepared = Prepared("Liver", volume_of(scan, CT, modality="CT"))
    assert prepared.indices == list(range(6))
    (note,) = prepared.notes
    assert "nothing will look like the training pictures" in note
    assert "--liver_mask FILE" in note
    assert np.array_equal(prepared[0], liver_picture(scan[:, :, 0]))
    assert any("Hounsfield" in note for note in Prepared("Liver", volume_of(scan + 1024, CT)).notes)
    assert any(
        "modality MR" in note
        for note in Prepared("Liver", volume_of(scan, CT, modality="MR")).notes
    )


def test_liver_masks_that_do_not_fit_are_refused(scan, liver):
    volume = volume_of(scan, CT)
    with pytest.raises(UserError, match="do not lie on the 20 x 16 x 6"):
        Prepared("Liver", volume, volume_of(liver[:, :, 1:], CT))
    moved = CT.copy()
    moved[0, 3] = 0.8
    with pytest.raises(UserError, match="resample it"):
        Prepared("Liver", volume, volume_of(liver, moved))
    with pytest.raises(UserError, match="is empty"):
        Prepared("Liver", volume, volume_of(0 * liver, CT))
    many = liver.copy()
    many[0, 0, :3] = (5, 6, 7)
    with pytest.raises(UserError, match="5 different values"):
        Prepared("Liver", volume, volume_of(many, CT))
    with pytest.raises(UserError, match="show no liver"):
        Prepared("Liver", volume, volume_of(liver, CT), slices=(0, 0))
    with pytest.raises(UserError, match="--liver_mask is for --prepare Liver"):
        Prepared("Brain", volume, volume_of(liver, CT))


def test_names_and_colour(scan):
    assert PREPARATIONS == ("none", "Brain", "Liver")
    for name in ("none", "brain"):
        with pytest.raises(UserError, match="allowed here are Brain, Liver"):
            Prepared(name, volume_of(scan, CT))
    colour = volume_of(np.zeros((4, 4, 2, 3)), CT)
    with pytest.raises(UserError, match="in colour"):
        Prepared("Brain", colour)


def test_maps_of_another_shape_are_a_bug(scan):
    prepared = Prepared("Liver", volume_of(scan, CT))
    with pytest.raises(ValueError, match="maps of shape"):
        prepared.place(np.zeros((6, 16, 20), np.float32))
    with pytest.raises(ValueError, match="maps of shape"):
        prepared.place(np.zeros((5, 20, 16), np.float32))
