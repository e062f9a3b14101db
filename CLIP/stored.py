"""Where a file holds tensors, as data: what the readers of files agree on. Needs no torch."""

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

MOST_SIZES = 8  # of a tensor's shape
LARGEST_SIZE = 2**48  # of a shape or a stride
ITEM_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}


class DamagedError(Exception):
    """A file that is damaged, or of another kind; the message says in a few words what it is."""


class Stored(NamedTuple):
    """A tensor in a file."""

    dtype: str
    start: int  # of its first number, in bytes from the beginning of the file
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in numbers

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]

    @property
    def end(self) -> int:
        """Where its last number ends, in bytes from the beginning of the file."""
        steps = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return self.start + (steps + 1) * ITEM_SIZES[self.dtype] if self.size else self.start


class Record(NamedTuple):
    """Bytes of a file that hold numbers: a storage of torch, or a tensor of safetensors."""

    name: str
    dtype: str
    start: int
    size: int
    crc: int | None  # CRC-32 that the file states


@dataclass(frozen=True)
class Index:
    """What a file holds: dictionaries, lists and plain values, with Stored for each tensor."""

    content: Any
    records: tuple[Record, ...]


def stored(record: Record, dtype: str, offset: Any, shape: Any, stride: Any) -> Stored:
    """Return a tensor of a record, all of whose numbers lie there. Raises DamagedError.

    `offset` is that of its first number, counted in numbers.
    """
    if dtype not in ITEM_SIZES:
        raise DamagedError(f"it holds numbers of the type {dtype[:40]}")
    sizes = (*shape, *stride, offset)
    fits = (
        len(shape) == len(stride) <= MOST_SIZES
        and all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in sizes)
        and prod(shape) * ITEM_SIZES[dtype] <= record.size
    )
    if fits:
        start = record.start + offset * ITEM_SIZES[dtype]
        found = Stored(dtype, start, tuple(shape), tuple(stride))
        if found.end <= record.start + record.size:
            return found
    raise DamagedError(f"a tensor states more numbers than its record {record.name[:80]} has")
