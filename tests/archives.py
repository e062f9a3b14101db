"""Archives of torch that torch itself would not write: any pickle, any records."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self):
        return self.function, self.arguments


class Storage(tuple):
    """Pickled as the persistent id of a storage: class, key and number of numbers."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            cls, key, count = value
            return ("storage", cls, key, "cpu", count)
        return None


def pickled(content: Any) -> bytes:
    """Pickle content with Call and Storage as torch does."""
    data = io.BytesIO()
    _Pickler(data, protocol=2).dump(content)
    return data.getvalue()


def tensor(
    count: Any,
    shape: Any,
    *,
    stride: Any = None,
    offset: Any = 0,
    cls: Any = torch.FloatStorage,
    key: str = "0",
) -> Call:
    """Return the call for a tensor of a storage that states `count` numbers."""
    if stride is None:  # rows after one another
        stride = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
    arguments = (Storage((cls, key, count)), offset, shape, stride, False, {})
    return Call(torch._utils._rebuild_tensor_v2, *arguments)


def write_archive(
    path: Path,
    content: Any,
    records: Mapping[str, bytes] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write an archive of torch.save: content, pickled unless it is bytes, and records by key."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        data = content if isinstance(content, bytes) else pickled(content)
        archive.writestr("archive/data.pkl", data)
        for key, numbers in (records or {}).items():
            archive.writestr(f"archive/data/{key}", numbers)
    return path


def rewritten(data: bytes, old: torch.Tensor, new: torch.Tensor) -> bytes:
    """Replace numbers in an archive, and write it again so that its checksums are right."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(result, "w") as target:
        records = {info.filename: source.read(info) for info in source.infolist()}
        for name, content in records.items():
            target.writestr(name, content.replace(old.numpy().tobytes(), new.numpy().tobytes()))
    assert any(old.numpy().tobytes() in content for content in records.values())
    return result.getvalue()
