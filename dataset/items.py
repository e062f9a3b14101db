"""The interface between image sets and loops: items, labels and packed masks.

Letters: n images of a set, B images of a batch, S image side in pixels.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Item(NamedTuple):
    """One image of a set."""

    image: Tensor  # [3, S, S] uint8, or float32 in [0, 1]; some methods keep the own size
    mask: bytes  # of `pack_mask`
    position: int  # index in the set


class ImageSource(Protocol):
    """A set of images, indexed from 0; `labels`, `masked` and `nouns` have one entry per image."""

    side: int  # S
    labels: Tensor  # [n] float32, 1 abnormal
    masked: Tensor  # [n] bool, whether the image's object has masks
    nouns: list[str]

    def __len__(self) -> int: ...  # n

    def __getitem__(self, index: int) -> Item: ...


def pack_mask(mask: Tensor) -> bytes:
    """Compress a mask [S, S] bool, to a few hundred bytes."""
    return zlib.compress(np.packbits(mask.numpy()).tobytes(), level=1)


def unpack_masks(packed: Sequence[bytes], side: int) -> Tensor:
    """Decompress B packed masks to [B, S, S] bool, S = `side`."""
    bits = [
        np.unpackbits(np.frombuffer(zlib.decompress(mask), np.uint8), count=side * side)
        for mask in packed
    ]  # B times [S * S]
    masks = np.stack(bits).reshape(len(packed), side, side)  # [B, S, S]
    return torch.from_numpy(masks.view(bool))


def padded(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return rows of values with zeros behind each, where it is shorter than `shape`."""
    missing = [max(0, size - own) for size, own in zip(shape, values.shape[1:], strict=True)]
    ends = [end for size in reversed(missing) for end in (0, size)]
    return F.pad(values, ends) if any(missing) else values


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return rows [m, ...] of several parts as one tensor, the shorter ones `padded`."""
    longest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    return torch.cat([padded(part, longest) for part in parts])
