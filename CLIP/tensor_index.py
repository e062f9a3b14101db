"""Where files of torch.save, torch.jit.save and safetensors hold their tensors. Needs no torch.

A file is data from a stranger. Nothing of it is run, and what its header states is compared with
the size of the file before memory is taken for it.

`check_ahead` compares the checksums that an archive has of its records, which torch does not, and
looks for numbers that are not finite, in the background.
"""

import json
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

from CLIP.hashing import mapped, once
from CLIP.stored import ITEM_SIZES, DamagedError, Index, Record, Stored, stored
from CLIP.torch_archive import Archive, read_pickle
from CLIP.torchscript import MODULES, state_dict

MOST_VALUES = 200_000  # of what a file holds
DEEPEST = 20  # of dictionaries and lists within one another
LARGEST_HEADER = 2**24  # bytes, of safetensors
SHARED = 2  # tensors may state so many times the bytes that the file has: tied weights
SLICE = 2**20  # bytes that are checked at once

# bits that are all 1 in a number that is not finite, by dtype
EXPONENTS = {
    "float64": 0x7FF0_0000_0000_0000,
    "float32": 0x7F80_0000,
    "float16": 0x7C00,
    "bfloat16": 0x7F80,
}
SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
# how files begin that are taken for weights by mistake, and what they are
BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (b"<", "a web page or XML"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"\x89HDF", "HDF5"),
    (b"GGUF", "GGUF"),
    (b"\x80", "a bare pickle as of torch before 1.6, to be loaded and saved by a newer one"),
    (b"\x89PNG", "an image"),
)


def index_file(path: Path) -> Index:
    """Return what a file holds and where. Raises DamagedError, OSError."""
    status = path.stat()
    if not S_ISREG(status.st_mode):  # reading another kind might never end
        raise DamagedError("it is not a regular file")
    size = status.st_size
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(b"PK"):
            index = index_archive(file, size)
        elif start[8:9] == b"{":
            index = index_safetensors(file, size)
        else:
            raise DamagedError(f"it is {kind_of(start)}")
    stated = sum(stored.size for stored in tensors_of(index.content))
    if stated > SHARED * size:
        raise DamagedError(f"its tensors state {stated} bytes, the file has {size}")
    return index


def kind_of(start: bytes) -> str:
    """Say what a file is that holds no weights, by how it begins."""
    text = start.lstrip()
    kinds = (kind for beginning, kind in BEGINNINGS if text.startswith(beginning))
    return next(kinds, "neither an archive of torch nor safetensors" if start else "empty")


def tensors_of(content: Any) -> Iterator[Stored]:
    """Yield the tensors of what a file holds, each as often as it occurs.

    Raises DamagedError for content that is nested without end.
    """
    waiting = [(content, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Stored):
            yield value
        elif isinstance(value, (dict, list, tuple)):
            seen += 1 + len(value)
            if seen > MOST_VALUES or depth > DEEPEST:
                raise DamagedError(f"it holds more than {MOST_VALUES} values, or one within itself")
            inner = value.values() if isinstance(value, dict) else value
            waiting.extend((member, depth + 1) for member in inner)


def index_archive(file: BinaryIO, size: int) -> Index:
    """Return what an archive of torch holds; of TorchScript its state dict. Raises DamagedError."""
    archive = Archive(file, size)
    if archive.has("constants.pkl"):
        content = state_dict(read_pickle(archive, MODULES), archive)
    else:
        content = read_pickle(archive)
    return Index(content, tuple(archive.storages.values()))


def index_safetensors(file: BinaryIO, size: int) -> Index:
    """Return the tensors of a safetensors file by name. Raises DamagedError."""
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(LARGEST_HEADER, size - 8):
        raise DamagedError(f"it states a header of {length} bytes, the file has {size}")
    content: dict[str, Stored] = {}
    records = []
    try:
        header = json.loads(file.read(length), object_pairs_hook=unique)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            record = safetensors_record(name, entry, 8 + length, size)
            shape = entry["shape"]
            stride = [prod(shape[i + 1 :]) for i in range(len(shape))]
            content[name] = stored(record, record.dtype, 0, shape, stride)
            if content[name].size != record.size:
                raise DamagedError(f"the shape of {name} does not fit its bytes")
            records.append(record)
    except JSON_ERRORS as error:
        raise DamagedError("its header is damaged") from error
    records.sort(key=lambda record: record.start)
    ends = [8 + length, *(record.start + record.size for record in records)]
    if [record.start for record in records] != ends[:-1] or ends[-1] != size:
        raise DamagedError("its tensors do not fill the file, or overlap")
    return Index(content, tuple(records))


JSON_ERRORS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary of pairs. Raises DamagedError for a name that occurs twice."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise DamagedError("its header has a name twice")
    return dict(pairs)


def safetensors_record(name: str, entry: Mapping[str, Any], start: int, size: int) -> Record:
    """Return the bytes of a tensor of a safetensors file. Raises DamagedError, LookupError."""
    first, end = entry["data_offsets"]
    dtype = SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        raise DamagedError(f"it holds numbers of the type {str(entry['dtype'])[:40]}")
    if not 0 <= first <= end <= size - start or type(first) is not int or type(end) is not int:
        raise DamagedError(f"{name[:80]} states bytes that the file does not have")
    return Record(name, dtype, start + first, end - first, None)


def check_ahead(path: Path) -> Future[str]:
    """Start `problem` of a file in the background, see `CLIP.hashing.once`."""
    return once(path, "numbers", lambda: problem(path))


def problem(path: Path) -> str:
    """Return what is wrong with the numbers of a file, "" if nothing is. Raises OSError.

    The CRC-32 of each record of an archive is compared, and floating point numbers are looked
    through for NaN and infinite ones. Records that no tensor is in are left out.
    """
    try:
        index = index_file(path)
        with mapped(path) as content:
            for record in used_records(index):
                check_record(record, *scan(record, content))
    except DamagedError as error:
        return str(error)
    return ""


def used_records(index: Index) -> list[Record]:
    """Return the records that tensors of a file's content lie in, in their order in the file."""
    records = sorted(index.records, key=lambda record: record.start)
    starts = [record.start for record in records]
    used = {bisect_right(starts, stored.start) - 1 for stored in tensors_of(index.content)}
    return [records[number] for number in sorted(used)]


def scan(record: Record, content: memoryview) -> tuple[int, bool]:
    """Return the CRC-32 of a record of a file, 0 if it states none, and whether it is finite."""
    crc = 0
    finite = True
    end = record.start + record.size
    for start in range(record.start, end, SLICE):
        part = content[start : min(start + SLICE, end)]  # both while the processor has it at hand
        crc = crc if record.crc is None else zlib.crc32(part, crc)
        finite = finite and are_finite(part, record.dtype)
    return crc, finite


def check_record(record: Record, crc: int, finite: bool) -> None:
    """Raise DamagedError unless a record has the CRC-32 that it states, and finite numbers."""
    if record.crc is not None and crc != record.crc:
        raise DamagedError(f"{record.name[:80]} differs from its checksum")
    if not finite:
        raise DamagedError(f"{record.name[:80]} has numbers that are not finite (NaN or infinite)")


def are_finite(part: memoryview, dtype: str) -> bool:
    """Return whether numbers of a dtype are finite; those that are no floating point always are."""
    import numpy as np  # not needed to see where tensors are

    if dtype not in EXPONENTS:
        return True
    size = ITEM_SIZES[dtype]
    numbers = np.frombuffer(part, f"<u{size}", count=len(part) // size)
    mask = numbers.dtype.type(EXPONENTS[dtype])
    return bool((numbers & mask).max(initial=0) < mask)
