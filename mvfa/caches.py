"""Stores for what is computed or decoded once: features and images. A run works without them, too.

Letters: n images, S image side.
"""

import errno
import math
import mmap
import os
import shutil
import tempfile
from contextlib import suppress

import torch
from torch import Tensor

from dataset.items import ImageSource, Item, pack_mask, unpack_masks
from mvfa.accelerator import free_bytes, is_cuda
from mvfa.distributed import World
from mvfa.memory import available_memory
from mvfa.methods.base import Method

UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # of reserving, by a file system
FREE_SHARE = 2  # a store takes at most one in so many bytes of what is free


class CacheBudget:
    """The bytes that all loaders of a run may cache, shared among them: first come, first served.

    `gigabytes` is the bound for all processes of the run together.
    """

    def __init__(self, gigabytes: float, world: World) -> None:
        self.bytes_left = int(gigabytes * 1e9 / world.size)

    def take(self, source: ImageSource, method: Method) -> float:
        """Take what the features of an image set need, as far as it is there; return gigabytes."""
        taken = min(self.bytes_left, len(source) * feature_bytes(method))
        self.bytes_left -= taken
        return taken / 1e9


def feature_bytes(method: Method) -> int:
    """Return the size of one image's features, float32; 0 where they are not cached."""
    shape = method.feature_shape
    return 0 if shape is None else math.prod(shape) * torch.float32.itemsize


def allocate(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, shared: bool = False
) -> Tensor:
    """Return an empty tensor where twice its size is free: on the device, in memory, or in a file.

    The file vanishes with the tensor. Where nothing has the room the tensor has no rows. With
    `shared`, processes that are forked from this one share it, and the device is not used.
    """
    size = dtype.itemsize * math.prod(shape)
    on_device = is_cuda(device) and not shared
    # where too little is free after all, by a limit of the process, the next place is tried
    if on_device and size * FREE_SHARE <= free_bytes(device):
        with suppress(RuntimeError):
            return torch.empty(shape, dtype=dtype, device=device)
    if size * FREE_SHARE <= available_memory():
        with suppress(RuntimeError, MemoryError, OSError):
            return in_shared_memory(shape, dtype) if shared else torch.empty(shape, dtype=dtype)
    with suppress(RuntimeError, OSError):
        if size * FREE_SHARE <= shutil.disk_usage(tempfile.gettempdir()).free:
            return in_file(shape, dtype)
    return torch.empty(0, *shape[1:], dtype=dtype)


def in_shared_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor of zeros that forked processes share, outside of /dev/shm.

    A container's /dev/shm often has 64 MB, and writing beyond that ends a process. Raises OSError.
    """
    size = dtype.itemsize * math.prod(shape)
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)


def in_file(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor that lies in a file without a name. Raises OSError on a full disk."""
    count = math.prod(shape)
    with tempfile.NamedTemporaryFile(prefix="mvfa-") as file:
        reserve(file.fileno(), count * dtype.itemsize)
        # the file is unlinked at the end; the mapping keeps its bytes
        return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)


def reserve(descriptor: int, size: int) -> None:
    """Give a file `size` bytes, with their place on the disk where the file system can do that.

    Without a place, the first write to a mapped byte on a full disk ends the process. Raises
    OSError if the disk has no room.
    """
    os.truncate(descriptor, size)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # macOS, Windows
        return
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def allocate_most(rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor [r, *shape] that forked processes share, with as many rows as have room.

    `r` is `rows`, else half of it, and so on.
    """
    while rows:
        store = allocate((rows, *shape), dtype, torch.device("cpu"), shared=True)
        if len(store):
            return store
        rows //= 2
    return torch.empty(0, *shape, dtype=dtype)


def divide(budget: int, images: int, features: int, image: int) -> tuple[int, int]:
    """Return how many images' features and how many decoded images a budget holds.

    `features` and `image` are the sizes of one, all sizes in bytes. Features spare more work than
    a decoded image and make it superfluous, but every image is at least cached decoded before the
    first features are. Images of size 0 are in memory anyway.
    """
    if image == 0:
        return min(images, budget // features), 0
    spare = budget - images * image
    with_features = max(0, min(images, spare // max(1, features - image)))
    decoded = (budget - with_features * features) // image
    return with_features, max(0, min(images - with_features, decoded))


class DecodedImages:
    """An image set whose images from number `first` on are decoded once, up to `capacity` images.

    The store is shared memory, so processes that decode fill it for one another. Where memory is
    short it is a file, or holds fewer images.
    """

    def __init__(self, source: ImageSource, first: int, capacity: int) -> None:
        side = source.side
        self.source = source
        self.first = first
        self.side = side
        self.labels = source.labels
        self.masked = source.masked
        self.nouns = source.nouns
        store = allocate_most(capacity, (3 + 1, side, side), torch.uint8)
        self.images = store[:, :3]
        self.masks = store[:, 3].view(torch.bool)
        self.done = in_shared_memory((len(store),), torch.bool)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        row = index - self.first
        stored = 0 <= row < len(self.done)
        if stored and self.done[row]:
            return Item(self.images[row], pack_mask(self.masks[row]), index)
        item = self.source[index]
        if stored:
            self.images[row] = item.image
            self.masks[row] = unpack_masks([item.mask], self.side)[0]
            self.done[row] = True
        return item
