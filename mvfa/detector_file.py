"""The file of a detector: tensors in safetensors, and a description in its JSON header.

Reading it runs no code. What it says is checked as data from a stranger. The description is read
without torch, so that a mistake is told, and the backbone's file is hashed, before torch is
imported.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CLIP.hashing import mapped, once
from CLIP.stored import Record
from CLIP.tensor_index import scan
from errors import UserError
from mvfa.detector_description import FORMAT, check_description, damaged

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".detector"
KEY = "mvfa_detector"  # of the description in the header's metadata
DIGEST = "mvfa_detector_sha256"  # of the description's SHA-256 there; older files have none
LARGEST_HEADER = 2**24  # bytes
UNREADABLE = (  # what reading a file of another kind raises
    OSError,
    ValueError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    RecursionError,
)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the JSON header of a safetensors file, and where its tensors begin, in bytes.

    Raises one of UNREADABLE if there is none; UserError if it is too long.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > LARGEST_HEADER:
            raise damaged(path, "its header is too long")
        return json.loads(file.read(length)), 8 + length


def read_description(path: Path) -> dict[str, Any]:
    """Read the description of a detector from its file's header. Raises UserError."""
    if not path.is_file():
        raise UserError(f"no detector {path}; make it with calibrate.py, or name another file")
    try:
        metadata = read_header(path)[0]["__metadata__"]
        about = json.loads(metadata[KEY])
        changed = not set(metadata) <= {KEY, DIGEST}
        changed |= metadata.get(DIGEST, text_hash(metadata[KEY])) != text_hash(metadata[KEY])
    except UNREADABLE as error:
        raise damaged(path, "it has no description") from error
    if changed:
        raise damaged(path, "its description is not that it was written with")
    check_description(path, about)
    return about


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tensors_hash(tensors: "Mapping[str, Tensor]") -> str:
    """Return the SHA-256 of float32 tensors by name: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.numpy().data if values.numel() else b"")
    return digest.hexdigest()


def file_tensors_hash(path: Path) -> str:
    """Return `tensors_hash` of the tensors in a file, without torch.

    Raises UserError for tensors that are not float32, and numbers that are not finite.
    """
    digest = hashlib.sha256()
    try:
        header, start = read_header(path)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        with mapped(path) as content:
            for name in sorted(entries):
                entry = entries[name]
                if entry["dtype"] != "F32":
                    raise damaged(path, f"{name} is not float32")
                first, end = entry["data_offsets"]
                if not 0 <= first <= end <= len(content) - start:
                    raise damaged(path, f"{name} states bytes that the file does not have")
                digest.update(f"{name} torch.float32 {entry['shape']}".encode())
                digest.update(content[start + first : start + end])
                record = Record(name, "float32", start + first, end - first, None)
                if not scan(record, content)[1]:
                    raise damaged(path, f"{name} has numbers that are not finite")
    except UNREADABLE as error:
        raise damaged(path, "its tensors cannot be read") from error
    return digest.hexdigest()


def hash_tensors_ahead(path: Path) -> Future[str]:
    """Start to compute the hash of a detector's tensors in the background, see `once`."""
    return once(path, "tensors", lambda: file_tensors_hash(path))


def ordered(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in order; the library draws it anew each time."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


class Later(Mapping[str, "Tensor"]):
    """Tensors by name that are read in the background: the first use waits for them."""

    def __init__(self, reading: "Future[dict[str, Tensor]]") -> None:
        self.reading = reading

    def __getitem__(self, name: str) -> "Tensor":
        return self.reading.result()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.reading.result())

    def __len__(self) -> int:
        return len(self.reading.result())


def write_detector(path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]) -> None:
    """Write a detector, whole or not at all. Raises UserError for values that are not finite."""
    from safetensors.torch import save

    from utils import write_whole

    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, values in copies.items():
        if not values.isfinite().all():
            raise UserError(f"{name} of the detector is not finite; train again with fp32")
    description = json.dumps({"format": FORMAT, **about, "tensors_sha256": tensors_hash(copies)})
    check_description(path, json.loads(description))
    data = save(copies, metadata={KEY: description, DIGEST: text_hash(description)})
    write_whole(path, lambda part: part.write_bytes(ordered(data)))


def read_tensors(path: Path, about: Mapping[str, Any]) -> "dict[str, Tensor]":
    """Read the tensors of a detector, float32.

    Raises UserError for damaged ones, and for those that are not what was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if hash_tensors_ahead(path).result() != about["tensors_sha256"]:
        raise damaged(path, "its tensors are not those it was written with")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, "its tensors cannot be read") from error
