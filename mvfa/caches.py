"""What is worked out once and kept: streams, decoded images, text features. All of it can be left out."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dataset.items import ImageSource, Item, pack_mask, unpack_masks
from utils import LOAD_ERRORS, write_whole

SHARE = 2  # at most one in so many bytes of what is free is taken
TEXT_FORMAT = 1  # of stored text features; a change makes the stored ones stale


def available_memory() -> int:
    """Bytes of host memory that a program may take: free ones, and where the system tells, those it would give up."""
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        if found:
            return found[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def installed_memory() -> int:
    """Bytes of memory of this machine, free or not: decisions that follow it are the same in every run."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor on the device, else in host memory, else in a file that vanishes with it, wherever half is free.

    Where nothing has the room the tensor has no rows, and nothing is kept.
    """
    size = dtype.itemsize
    for n in shape:
        size *= n
    if device.type == "cuda" and size * SHARE <= torch.cuda.mem_get_info(device)[0]:
        return torch.empty(shape, dtype=dtype, device=device)
    if size * SHARE <= available_memory():
        return torch.empty(shape, dtype=dtype)
    if size * SHARE <= shutil.disk_usage(tempfile.gettempdir()).free:
        with tempfile.NamedTemporaryFile(
            prefix="mvfa-"
        ) as file:  # unlinked at once; the mapping keeps the bytes
            file.truncate(size)
            count = size // dtype.itemsize
            return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)
    return torch.empty(0, *shape[1:], dtype=dtype)


def divide(budget: int, images: int, stream: int, image: int) -> tuple[int, int]:
    """How many streams and how many decoded images a budget holds, all sizes in bytes.

    A stream spares more than a decoded image, and makes it superfluous; but every image is at least kept decoded
    before the first stream is. Images of size 0 are in memory anyway.
    """
    if image == 0:
        return min(images, budget // stream), 0
    streams = max(0, min(images, (budget - images * image) // max(1, stream - image)))
    return streams, max(0, min(images - streams, (budget - streams * stream) // image))


class DecodedImages:
    """An image set whose images from number `first` on are decoded once, as far as `capacity` goes.

    The store is shared, so processes that decode fill it for one another. A source that holds its images in memory
    anyway needs none of this.
    """

    def __init__(self, source: ImageSource, first: int, capacity: int) -> None:
        self.source, self.first, self.side = source, first, source.side
        self.labels, self.masked, self.nouns = source.labels, source.masked, source.nouns
        self.images = torch.empty(
            capacity, 3, self.side, self.side, dtype=torch.uint8
        ).share_memory_()
        self.masks = torch.empty(capacity, self.side, self.side, dtype=torch.bool).share_memory_()
        self.done = torch.zeros(capacity, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        row = index - self.first
        if 0 <= row < len(self.done) and self.done[row]:
            return Item(self.images[row], pack_mask(self.masks[row]), index)
        item = self.source[index]
        if 0 <= row < len(self.done):
            self.images[row] = item.image
            self.masks[row] = unpack_masks([item.mask], self.side)[0]
            self.done[row] = True
        return item


def text_key(weights: str, **settings: object) -> str:
    """The name of stored text features: whatever they depend on, hashed."""
    content = json.dumps({"format": TEXT_FORMAT, "weights": weights, **settings}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def stored_text(
    folder: Path | None, key: str, embed_dim: int, make: Callable[[], Tensor]
) -> Tensor:
    """Text features [E, 2] stored under a key, else `make()`, which is stored. A broken entry is made again."""
    if folder is None:
        return make()
    path = folder / f"{key}.pt"
    with suppress(*LOAD_ERRORS):  # missing or broken: made again
        found = torch.load(path, weights_only=True)
        if found.shape == (embed_dim, 2) and torch.allclose(
            found.norm(dim=0), torch.ones(2), atol=1e-4
        ):
            return found
    features = make().cpu()
    with suppress(OSError):  # a folder that cannot be written only costs time
        write_whole(path, lambda partial: torch.save(features, partial))
    return features
