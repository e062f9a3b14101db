"""The sixteen versions of MadCLIP's shots: reference figures and properties."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.catalog import object_info
from dataset.folder import image_folder, make_records
from dataset.medical_few import stack_shots
from mvfa.methods.madclip_shots import ZOOMS, MadclipVersions, jitter, zoom
from tests.parity import REFERENCE, SIDE, difference

EXPECTED = json.loads((REFERENCE / "madclip" / "expected_madclip.json").read_text())
CLOSE = 1e-4
SEED = 111
VERSIONS = 16


def shots(obj: str, state: str, letter: str) -> tuple[Tensor, Tensor]:
    """Return images and masks of the two reference shots of a group."""
    folder = image_folder(REFERENCE / "data", obj, "valid", state)
    records = make_records(object_info(obj), folder, [f"{letter}0.png", f"{letter}1.png"])
    return stack_shots(records, SIDE)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 21, 21, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_means_of_the_released_code(obj):
    expected = EXPECTED[obj]
    make = MadclipVersions(torch.Generator().manual_seed(SEED))
    abnormal, masks = make(*shots(obj, "Ungood", "a"))
    assert difference(make.factors, expected["jitter_first"]) < CLOSE
    normal, _ = make(*shots(obj, "good", "n"))
    assert len(abnormal) == len(normal) == len(masks) == expected["versions"]
    assert difference(abnormal.mean(dim=(1, 2, 3)), expected["abnormal_mean"]) < CLOSE
    assert difference(normal.mean(dim=(1, 2, 3)), expected["normal_mean"]) < CLOSE
    if object_info(obj).masks:
        assert difference(masks.mean(dim=(1, 2)), expected["mask_mean"]) < CLOSE


def test_order_of_versions(images):
    made, _ = MadclipVersions(torch.Generator())(images, torch.zeros(3, 21, 21))
    groups = made.unflatten(0, (VERSIONS, 3))
    assert torch.equal(groups[0], images)
    for i, factor in enumerate(ZOOMS):
        assert torch.equal(groups[9 + i], zoom(images, factor))
    assert torch.equal(groups[14], images.flip(-1))
    assert torch.equal(groups[15], images.flip(-2))


def test_zoom_is_the_middle_enlarged():
    """Compare with interpolation between pixel centres, written out."""
    image = torch.rand(1, 1, 23, 23, generator=torch.Generator().manual_seed(2))
    for factor in ZOOMS:
        size = int(23 / factor)
        first = (23 - size) // 2
        last = (23 + size) // 2
        middle = image[0, 0, first:last, first:last].numpy()
        side = len(middle)
        place = np.clip((np.arange(23) + 0.5) * side / 23 - 0.5, 0, side - 1)
        rows = np.stack([np.interp(place, np.arange(side), column) for column in middle.T], axis=1)
        expected = np.stack([np.interp(place, np.arange(side), row) for row in rows])
        np.testing.assert_allclose(zoom(image, factor)[0, 0].numpy(), expected, atol=1e-5)


def test_jitter_keeps_the_mean_of_each_column(images):
    changed = jitter(0.3 + 0.2 * images, 1.1, 0.9)
    brighter = 1.1 * (0.3 + 0.2 * images)
    torch.testing.assert_close(changed.mean(dim=(1, 2)), brighter.mean(dim=(1, 2)))
    for image, own in zip(changed, brighter, strict=True):
        for column in range(21):
            mean = own[:, :, column].mean()
            expected = 0.9 * (own[:, :, column] - mean) + mean
            torch.testing.assert_close(image[:, :, column], expected)


def test_jitter_stays_in_range(images):
    changed = jitter(images, 1.2, 1.2)
    assert changed.min() == 0
    assert changed.max() == 1


def test_masks_are_not_jittered(images):
    masks = images[:, 0]
    _, made = MadclipVersions(torch.Generator().manual_seed(0))(images, masks)
    groups = made.unflatten(0, (VERSIONS, 3))
    assert torch.equal(groups[0], masks)
    assert torch.equal(groups[10], zoom(masks[:, None], ZOOMS[1])[:, 0])
    assert torch.equal(groups[13], masks)
    assert torch.equal(groups[14], masks.flip(-1))


def test_factors_come_from_the_generator(images):
    masks = torch.zeros(3, 21, 21)
    make = MadclipVersions(torch.Generator().manual_seed(5))
    drawn = []
    for _ in range(2):
        make(images, masks)
        drawn += make.factors
    numbers = torch.rand(4, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(torch.tensor(drawn), 0.8 + 0.4 * numbers)


def test_one_shot():
    one = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images, masks = MadclipVersions(torch.Generator())(one, torch.ones(1, 16, 16))
    assert images.shape == (VERSIONS, 3, 16, 16)
    assert masks.shape == (VERSIONS, 16, 16)
    assert masks.all()
