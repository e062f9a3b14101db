"""What an image set offers to the loops: items, labels and packed masks."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class Item(NamedTuple):
    """One image: [3, S, S] uint8 or float32 in [0, 1], its packed mask, its index in the set (position)."""

    image: Tensor
    mask: bytes
    position: int


class ImageSource(Protocol):
    """What a set of images offers beside its items: one entry an image, in the order of the indices."""

    side: int
    labels: Tensor  # [n] float32, 1 abnormal
    masked: Tensor  # [n] bool, whether the image's object has masks
    nouns: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


def pack_mask(mask: Tensor) -> bytes:
    """A bool mask [S, S] in a few hundred bytes."""
    return zlib.compress(np.packbits(mask.numpy()).tobytes(), level=1)


def unpack_masks(packed: Sequence[bytes], side: int) -> Tensor:
    """Packed masks -> bool [B, side, side]."""
    bits = [
        np.unpackbits(np.frombuffer(zlib.decompress(mask), np.uint8), count=side * side)
        for mask in packed
    ]
    return torch.from_numpy(np.stack(bits).reshape(len(packed), side, side).view(bool))
