"""Read the tensors of a file, which lie where the file is mapped into memory.

Archives of torch.save and torch.jit.save, and safetensors, by content whatever their names are.
Nothing that a file holds is run (CLIP.tensor_index).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from CLIP.stored import Stored
from CLIP.tensor_index import index_file


def read_tensors(path: Path) -> Any:
    """Return what a file holds: dictionaries, lists and plain values, with tensors on the CPU.

    Of a TorchScript archive it is the state dict. Writing to a tensor does not change the file.
    Raises DamagedError for a file that is damaged or of another kind, OSError if it cannot be read.
    """
    content = index_file(path).content
    try:
        file = map_file(path)
    except RuntimeError as error:
        raise OSError(f"{path} cannot be mapped into memory") from error
    return with_tensors(content, file)


def map_file(path: Path) -> torch.UntypedStorage:
    """Map a file into memory, bytes as they are; writing to them does not change the file."""
    size = path.stat().st_size
    # its declared type names every kind of storage
    return torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)  # type: ignore[return-value]


def with_tensors(content: Any, file: torch.UntypedStorage) -> Any:
    """Return content with the tensors that lie in a mapped file."""
    if isinstance(content, Stored):
        return tensor_at(content, file)
    if isinstance(content, dict):
        return {key: with_tensors(value, file) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(with_tensors(value, file) for value in content)
    return content


def tensor_at(stored: Stored, file: torch.UntypedStorage) -> Tensor:
    """Return a tensor that lies in a mapped file, a copy if its place is not aligned."""
    dtype = getattr(torch, stored.dtype)
    storage = file[stored.start : stored.end]
    if stored.start % dtype.itemsize:
        storage = storage.clone()
    return torch.empty(0, dtype=dtype).set_(storage, 0, stored.shape, stored.stride)
