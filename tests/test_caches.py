"""Caches: the budget is divided and bounded, stores find room, images are decoded once."""

import errno
import os

import pytest
import torch

from dataset.catalog import object_info
from dataset.medical_few import evaluation_set
from errors import UserError
from mvfa import caches
from mvfa.caches import CacheBudget, DecodedImages, allocate, divide, reserve
from mvfa.distributed import World
from tests.image_sets import CPU, Pictures, drawn_method


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
    method = drawn_method(tiny)
    image = 17 * 64 * 4
    budget = CacheBudget(processes * 10 * image / 1e9, World(0, processes))
    taken = [budget.take(Pictures(8), method) for _ in range(3)]
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


def usage(free: int) -> type:
    """Return what shutil.disk_usage returns of a disk."""
    return type("Usage", (), {"free": free})


def test_a_file_has_its_place_on_the_disk(tmp_path):
    """A sparse one would end the process, at the first write on a full disk."""
    with (tmp_path / "store").open("wb") as file:
        reserve(file.fileno(), 1_000_000)
    found = (tmp_path / "store").stat()
    assert found.st_size == 1_000_000
    assert found.st_blocks * 512 >= 1_000_000


def refuse(number: int):
    """Return a function that raises an error of the system."""

    def raise_it(*_):
        raise OSError(number, os.strerror(number))

    return raise_it


def test_a_file_system_that_reserves_nothing_will_do(monkeypatch):
    monkeypatch.setattr(caches, "available_memory", lambda: 100)
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP))
    assert allocate((10, 30), torch.float32, CPU).shape == (10, 30)
    monkeypatch.delattr(os, "posix_fallocate")
    assert allocate((10, 30), torch.float32, CPU).shape == (10, 30)


def test_a_disk_that_fills_costs_the_store_only(monkeypatch):
    monkeypatch.setattr(caches, "available_memory", lambda: 100)
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC))
    assert allocate((10, 30), torch.float32, CPU).shape == (0, 30)
    monkeypatch.setattr(caches.tempfile, "gettempdir", refuse(errno.ENOENT))
    assert allocate((10, 30), torch.float32, CPU).shape == (0, 30)


def test_memory_that_is_not_there_after_all_is_a_file(monkeypatch):
    """A limit of the process, which what is free does not show."""
    real = torch.empty

    def limited(*shape, **more):
        if shape[0] == (10, 30):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(*shape, **more)

    monkeypatch.setattr(torch, "empty", limited)
    assert allocate((10, 30), torch.float32, CPU).shape == (10, 30)
    monkeypatch.setattr(caches.mmap, "mmap", refuse(errno.ENOMEM))
    store = allocate((10, 30), torch.float32, CPU, shared=True)
    assert store.shape == (10, 30)


@pytest.mark.parametrize("memory", [2**40, 100], ids=["memory", "file"])
def test_processes_share_decoded_images(demo_root, monkeypatch, memory):
    """Without anything of /dev/shm, of which a container has 64 MB."""
    source = evaluation_set(demo_root / "data", object_info("Brain"), 32)
    monkeypatch.setattr(caches, "available_memory", lambda: memory)
    monkeypatch.setattr(torch.Tensor, "share_memory_", lambda _: pytest.fail("of /dev/shm"))
    decoded = DecodedImages(source, first=0, capacity=5)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            decoded[3]
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert decoded.done.tolist() == [False, False, False, True, False]
    expected = source[3]
    object.__setattr__(source.records[3], "name", "gone.png")
    assert torch.equal(decoded[3].image, expected.image)
    assert decoded[3].mask == expected.mask


def test_fewer_images_are_decoded_once_where_room_is_short(demo_root, monkeypatch):
    source = evaluation_set(demo_root / "data", object_info("Brain"), 32)
    image = 4 * 32 * 32
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: usage(0))
    for free, count in ((20 * image, 8), (8 * image, 4), (2 * image, 1), (image, 0)):
        monkeypatch.setattr(caches, "available_memory", lambda free=free: free)
        decoded = DecodedImages(source, first=0, capacity=8)
        assert len(decoded.done) == count
        assert decoded[7].position == 7
