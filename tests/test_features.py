"""Features are the same whatever is cached, whoever decodes, and scaled as the recipe says."""

import errno

import pytest
import torch
from torch.utils.data import DataLoader

from dataset.catalog import object_info
from dataset.items import Item
from dataset.medical_few import evaluation_set
from errors import UserError
from mvfa import features
from mvfa.features import prepare
from tests.image_sets import CPU, Pictures, drawn_method, loader


def test_cached_features_change_nothing(tiny):
    method = drawn_method(tiny)
    pictures = Pictures(7)
    plain = loader(method, pictures, 3)
    cached = loader(method, pictures, 3, cache_gb=4 * 17 * 64 * 4 / 1e9)
    order = [5, 0, 6, 3, 1, 2, 4]
    for _ in range(3):
        for a, b in zip(plain.batches(order), cached.batches(order), strict=True):
            assert a.members.tolist() == b.members.tolist()
            torch.testing.assert_close(a.features, b.features)
    assert cached.cached.tolist() == [True] * 4 + [False] * 3
    assert cached.store is not None
    for batch in plain.batches(range(4), 4):  # each row holds its own image
        torch.testing.assert_close(cached.store, batch.features)
    torch.testing.assert_close(cached.masks([1, 6]), pictures.pixels[[1, 6]])


def test_masks_of_images_that_have_them_are_remembered(tiny):
    pictures = Pictures(7)
    batches = loader(drawn_method(tiny), pictures, 1)
    list(batches.batches([1, 6, 0]))
    assert sorted(batches.packed_masks) == [0, 1]
    assert torch.equal(batches.masks([1, 0]), pictures.pixels[[1, 0]])


def test_workers_give_the_same_features(tiny):
    method = drawn_method(tiny)
    pictures = Pictures(6)
    plain = loader(method, pictures)
    decoded_elsewhere = loader(method, pictures, workers=2)
    for a, b in zip(plain.batches(), decoded_elsewhere.batches(), strict=True):
        torch.testing.assert_close(a.features, b.features)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("gigabytes", [0.0, 30e-6, 60e-6, 1.0])
def test_features_are_the_same_whatever_is_cached(demo_root, tiny, gigabytes, workers):
    source = evaluation_set(demo_root / "data", object_info("Brain"), 32)
    method = drawn_method(tiny)
    plain = loader(method, source, 3)
    cached = loader(method, source, 3, cache_gb=gigabytes, workers=workers)
    for order in (range(10), [7, 3, 9, 0, 1, 2, 8, 6, 5, 4]):
        for a, b in zip(plain.batches(order), cached.batches(order), strict=True):
            torch.testing.assert_close(a.features, b.features)
            assert torch.equal(plain.masks(a.members.tolist()), cached.masks(b.members.tolist()))


def test_features_are_computed_ahead(tiny):
    """Of the images asked for, those that fit: the store holds images 0 to 3."""
    batches = loader(drawn_method(tiny), Pictures(7), 3, cache_gb=4 * 17 * 64 * 4 / 1e9)
    batches.fill([6, 3, 1], 2)
    assert batches.cached.tolist() == [False, True, False, True] + [False] * 3


class OneBroken(Pictures):
    """Pictures of which number 2 cannot be read."""

    def __getitem__(self, index: int) -> Item:
        if index == 2:
            raise UserError("image 2 is broken")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_an_image_is_raised_as_it_is(tiny, workers):
    """A worker would wrap it, with its stack of calls in the message."""
    batches = loader(drawn_method(tiny), OneBroken(4), 2, workers=workers)
    with pytest.raises(UserError, match=r"^image 2 is broken$"):
        list(batches.batches())


def test_scaling():
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert prepare(images, CPU).tolist() == torch.ones(1, 3, 2, 2).tolist()
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    expected = torch.tensor([(1 - m) / s for m, s in zip(mean, std, strict=True)])
    torch.testing.assert_close(prepare(images, CPU, "clip")[0, :, 0, 0], expected)


class Refusing(Pictures):
    """Images of 8 bit, one of which cannot be read."""

    def __init__(self, error: Exception) -> None:
        super().__init__(4)
        self.images = (self.images * 255).to(torch.uint8)
        self.error = error

    def __getitem__(self, index: int) -> Item:
        if index == 2:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "error",
    [
        UserError("two.png is no image"),
        OSError(errno.EIO, "Input/output error", "two.png"),
        MemoryError("Unable to allocate 8 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_worker_passes_on_what_is_no_bug(tiny, error):
    """As it is, and not within a traceback of 28 lines."""
    images = loader(drawn_method(tiny), Refusing(error), 2, workers=1)
    with pytest.raises(type(error)) as found:
        list(images.batches())
    assert str(found.value) == str(error)


def test_images_in_memory_need_no_workers(tiny, monkeypatch):
    """They would pass through shared memory, of which there may be little."""
    started = []

    def spy(*arguments, **settings):
        started.append(settings["num_workers"])
        return DataLoader(*arguments, **settings)

    monkeypatch.setattr(features, "DataLoader", spy)
    list(loader(drawn_method(tiny), Pictures(4), 4, workers=1).batches())
    assert started == [0]
