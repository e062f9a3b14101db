"""Caches: the budget is divided and bounded, stores find room, images are decoded once."""

import pytest
import torch

from dataset.catalog import object_info
from dataset.medical_few import evaluation_set
from errors import UserError
from mvfa import caches
from mvfa.caches import CacheBudget, DecodedImages, allocate, divide
from mvfa.distributed import World
from tests.image_sets import CPU, Pictures, drawn_adapters


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (0, (0, 0)),
        (9, (0, 0)),
        (35, (0, 3)),
        (100, (0, 10)),
        (189, (0, 10)),
        (190, (1, 9)),
        (1_000, (10, 0)),
        (9_999, (10, 0)),
    ],
)
def test_a_budget_is_divided(budget, expected):
    with_features, decoded = divide(budget, images=10, features=100, image=10)
    assert (with_features, decoded) == expected
    assert with_features * 100 + decoded * 10 <= budget


@pytest.mark.parametrize(("budget", "expected"), [(0, 0), (99, 0), (250, 2), (9_999, 10)])
def test_images_in_memory_are_not_cached_decoded(budget, expected):
    assert divide(budget, images=10, features=100, image=0) == (expected, 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_loaders_share_a_budget(tiny, processes):
    """First come, first served: 8 images, then what is left, then nothing."""
    mvfa = drawn_adapters(tiny)
    image = 17 * 64 * 4
    budget = CacheBudget(processes * 10 * image / 1e9, World(0, processes))
    taken = [budget.take(Pictures(8), mvfa) for _ in range(3)]
    assert taken == pytest.approx([8 * image / 1e9, 2 * image / 1e9, 0], abs=2e-9)


def test_a_store_goes_to_a_file_when_memory_is_short(monkeypatch):
    monkeypatch.setattr(caches, "available_memory", lambda: 100)
    store = allocate((10, 3, 4), torch.float32, CPU)
    store.copy_(torch.arange(120.0).view(10, 3, 4))
    assert store.sum() == 119 * 60
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    assert allocate((10, 3, 4), torch.float32, CPU).shape == (0, 3, 4)


def test_decoded_images_are_read_once(demo_root):
    source = evaluation_set(demo_root / "data", object_info("Brain"), 32)
    decoded = DecodedImages(source, first=2, capacity=5)
    first = [decoded[i] for i in range(10)]
    for record in source.records:
        object.__setattr__(record, "name", "gone.png")
    for i in range(2, 7):
        assert torch.equal(decoded[i].image, first[i].image)
        assert decoded[i].mask == first[i].mask
    with pytest.raises(UserError, match=r"gone\.png"):
        decoded[7]
