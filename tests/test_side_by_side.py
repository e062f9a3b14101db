"""Images that are scored side by side have the values of images scored alone, to the last bit."""

import pytest
import torch

from errors import UserError
from mvfa import side_by_side
from mvfa.side_by_side import SideBySide, equal
from tests.detectors import random_detector, random_images


@pytest.fixture(autouse=True)
def two_threads():
    """Let torch use two threads, as on a machine with two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[(True, True), (True, False), (False, True)])
def detector(request, tiny_path):
    few, masks = request.param
    return random_detector(tiny_path, few=few, masks=masks)


@pytest.fixture
def images() -> torch.Tensor:
    return random_images(11, 32, seed=7)


def counted(monkeypatch, detector) -> list[int]:
    """Return the sizes of what the detector computes from now on."""
    sizes = []
    compute = detector.patch_values

    def patch_values(images):
        sizes.append(len(images))
        return compute(images)

    monkeypatch.setattr(detector, "patch_values", patch_values)
    return sizes


def all_equal(found, expected) -> bool:
    return all(equal(one, other) for one, other in zip(found, expected, strict=True))


def test_values_are_the_same_to_the_last_bit(detector, images):
    expected = detector.patch_values(images)
    with SideBySide(detector) as beside:
        assert all_equal(beside(images), expected)
        assert beside.proven is not None
        assert all_equal(beside(images), expected)
    assert torch.get_num_threads() == 2


def test_two_are_computed_at_once_and_one_that_is_left_alone(monkeypatch, detector, images):
    monkeypatch.setattr(side_by_side, "equal", lambda *_: True)
    expected = detector.patch_values(images)
    sizes = counted(monkeypatch, detector)
    with SideBySide(detector) as beside:
        for found, one in zip(beside(images), expected, strict=True):
            assert found.keys() == one.keys()
            for name, values in found.items():
                torch.testing.assert_close(values, one[name])
    assert sizes == [1] * 12  # the first one twice


def test_where_bits_differ_images_are_computed_alone(monkeypatch, detector, images):
    monkeypatch.setattr(side_by_side, "equal", lambda *_: False)
    expected = detector.patch_values(images)
    sizes = counted(monkeypatch, detector)
    with SideBySide(detector) as beside:
        found = [beside(images), beside(images)]
    assert sizes == [1, 1, 1, 11, 11]
    assert all_equal(found[0], expected)
    assert all_equal(found[1], expected)


def test_few_images_are_computed_alone(monkeypatch, detector, images):
    sizes = counted(monkeypatch, detector)
    with SideBySide(detector) as beside:
        beside(images[:7])
        assert beside.proven is None
    assert sizes == [7]
    torch.set_num_threads(1)
    with SideBySide(detector) as beside:
        beside(images)
    assert sizes == [7, 11]


def test_a_difference_of_one_bit_is_seen():
    values = torch.tensor([1.0, 2.0])
    other = torch.tensor([1.0, 2.0 + 2**-22])
    assert equal({"a": values}, {"a": values.clone()})
    assert not equal({"a": values}, {"a": other})
    assert not equal({"a": values}, {"b": values})


def test_a_mistake_with_one_image_is_told(monkeypatch, detector, images):
    def refuse(_):
        raise UserError("not finite")

    monkeypatch.setattr(detector, "patch_values", refuse)
    with SideBySide(detector) as beside, pytest.raises(UserError, match="not finite"):
        beside(images)
    assert torch.get_num_threads() == 2
