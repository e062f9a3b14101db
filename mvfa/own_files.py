"""Own files of tensors and their description: checkpoints, and entries of caches.

They are files of torch.save: groups of tensors by name, and `about`, plain values. Equal content
gives equal bytes. A digest in `about` covers everything else, so that a file that was changed is
refused. Files without one, of older versions and of the authors, are read as they are.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from CLIP.stored import DamagedError
from CLIP.tensor_files import read_tensors
from CLIP.tensor_index import problem
from mvfa.detector_file import tensors_hash

ABOUT = "about"  # key of the description
DIGEST = "sha256"  # key of the digest, in the description
LARGEST = 2**30  # bytes; adapters of CLIP ViT-L/14 have 48 MB
DTYPES = (torch.float32, torch.float16)

Groups = Mapping[str, Mapping[str, Tensor]]


class Content(NamedTuple):
    """What a file holds: tensors on the CPU by group and name, its description and its digest."""

    groups: dict[str, dict[str, Tensor]]
    about: dict[str, Any]
    digest: str | None


def content_hash(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors by name and of JSON values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(f"{tensors_hash(tensors)} {text}".encode()).hexdigest()


def digest_of(groups: Groups, about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors (names, types, shapes and bytes) and plain values.

    Raises TypeError for values that JSON does not have.
    """
    return content_hash(
        {f"{key}.{name}": value for key, group in groups.items() for name, value in group.items()},
        about,
    )


def encode(groups: Groups, about: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file that holds groups of tensors, a description and their digest."""
    described = {**about, DIGEST: digest_of(groups, about)}
    data = io.BytesIO()
    torch.save({**groups, ABOUT: described}, data)  # a file would hold its own temporary name
    return data.getvalue()


def read(path: Path, keys: Sequence[str], largest: int = LARGEST) -> Content:
    """Read some groups, those that are there, and the description of a file.

    The file may have `largest` bytes.

    Raises DamagedError for a file that is damaged, was changed or is of another kind, and for
    tensors that are not finite or not of DTYPES; OSError if it cannot be read.
    """
    if path.stat().st_size > largest:
        raise DamagedError(f"it has more than {largest} bytes")
    if reason := problem(path):
        raise DamagedError(reason)
    content = read_tensors(path)
    if not isinstance(content, dict):
        raise DamagedError("it holds no groups of tensors")
    about = content.get(ABOUT, {})
    if not isinstance(about, dict):
        raise DamagedError("its description is not a dictionary")
    groups = {key: checked(key, content[key]) for key in keys if key in content}
    digest = about.pop(DIGEST, None)
    if digest is not None:
        # it covers the groups of another method, too
        others = [key for key in content if key not in (*keys, ABOUT)]
        written = groups | {key: checked(key, content[key]) for key in others}
        if digest != stated_digest(written, about):
            raise DamagedError("its content is not what was written")
    return Content(groups, about, digest)


def checked(key: str, group: Any) -> dict[str, Tensor]:
    """Return copies of the tensors of a group, for the file may change. Raises DamagedError."""
    if not isinstance(group, dict):
        raise DamagedError(f"its entry {key} is no group of tensors")
    for name, value in group.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise DamagedError(f"its entry {key} is no group of tensors")
        if value.dtype not in DTYPES:
            kind = str(value.dtype).removeprefix("torch.")
            raise DamagedError(f"{name[:80]} is of type {kind}; allowed are float32 and float16")
    return {name: value.contiguous().clone() for name, value in group.items()}


def stated_digest(groups: Groups, about: Mapping[str, Any]) -> str:
    """Return `digest_of` what a file holds. Raises DamagedError if it has none."""
    try:
        return digest_of(groups, about)
    except (TypeError, ValueError, RecursionError) as error:
        raise DamagedError("its description has values of an unknown type") from error
