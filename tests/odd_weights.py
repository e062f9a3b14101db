"""Files that are no CLIP weights, or damaged ones: one maker for each kind.

python -m tests.odd_weights FOLDER    reads each; prints its name, seconds and message as JSON
"""

import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tests.archives import Call, pickled, tensor, write_archive
from tests.conftest import TINY, random_state

PROJ = "visual.proj"


def saved(content: Any, **kwargs: Any) -> bytes:
    """Return what torch.save writes."""
    data = io.BytesIO()
    torch.save(content, data, **kwargs)
    return data.getvalue()


def changed(change: Callable[[torch.Tensor], torch.Tensor], name: str = PROJ) -> bytes:
    """Return a state dict with one tensor changed."""
    state = random_state(TINY)
    return saved(state | {name: change(state[name])})


def with_value(value: float, dtype: torch.dtype = torch.float32) -> bytes:
    """Return weights one number of which is another."""
    state = {name: tensor.to(dtype) for name, tensor in random_state(TINY).items()}
    state[PROJ][3, 3] = value
    return saved(state)


def archive(content: Any, numbers: bytes = b"", **kwargs: Any) -> bytes:
    """Return an archive of odd content with one record."""
    data = io.BytesIO()
    write_archive(data, content, {"0": numbers} if numbers else None, **kwargs)
    return data.getvalue()


def zipped(**members: bytes) -> bytes:
    """Return a ZIP archive of other members."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    return data.getvalue()


def tarred() -> bytes:
    """Return a TAR archive, as torch before 0.1.10 wrote them."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as target:
        target.addfile(tarfile.TarInfo("storages"))
    return data.getvalue()


def lying(header: Any, numbers: bytes = bytes(16), length: int | None = None) -> bytes:
    """Return a safetensors file with any header, and any stated length of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    """Return the header's entry of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def flipped(data: bytes, where: bytes, by: int = 1) -> bytes:
    """Return data one byte of which is changed, where some bytes are."""
    position = data.index(where)
    return data[:position] + bytes([data[position] ^ by]) + data[position + 1 :]


def plain() -> bytes:
    """Return whole weights as torch.save writes them."""
    return saved(random_state(TINY))


def some_numbers() -> bytes:
    """Return a few of the numbers of whole weights."""
    return random_state(TINY)[PROJ].numpy().tobytes()[:32]


def evil(function: Any, *arguments: Any) -> bytes:
    """Return an archive whose pickle calls a function."""
    return archive({PROJ: Call(function, *arguments)})


HUGE = 2**40
KINDS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"P",
    "web page": lambda: b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "XML": lambda: b"\n <?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "LFS pointer": lambda: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 934088680\n"
    ),
    "JSON": lambda: b'{"error": "gone"}',
    "text": lambda: b"not a weight file\n",
    "zeros": lambda: bytes(2**16),
    "gzip": lambda: gzip.compress(plain()),
    "TAR": tarred,
    "PNG": lambda: b"\x89PNG\r\n\x1a\n" + bytes(64),
    "HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(64),
    "GGUF": lambda: b"GGUF" + bytes(64),
    "pickle": lambda: pickle.dumps(random_state(TINY)),
    "torch before 1.6": lambda: saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False),
    "ZIP of images": lambda: zipped(**{"a.png": b"x", "b.png": b"y"}),
    "ZIP of two archives": lambda: zipped(**{"a/data.pkl": b"x", "b/data.pkl": b"y"}),
    "ZIP with ..": lambda: zipped(**{"../../x/data.pkl": pickled({}), "../../y": b"pwn"}),
    "cut off": lambda: plain()[:-30_000],
    "cut off at its beginning": lambda: plain()[:400],
    "end missing": lambda: plain()[:-10],
    "beginning missing": lambda: plain()[100_000:],
    "changed number": lambda: flipped(plain(), some_numbers()),
    "changed pickle": lambda: flipped(plain(), b"_rebuild_tensor_v2"),
    "changed name of a record": lambda: flipped(plain(), b"archive/data/3PK"[:14]),
    "big byte order": lambda: plain().replace(b"little", b"big   "),
    "compressed": lambda: archive(
        {PROJ: tensor(4, (4,))}, bytes(16), compression=zipfile.ZIP_DEFLATED
    ),
    "compressed bomb": lambda: archive(
        {PROJ: tensor(2**26, (2**26,))}, bytes(2**28), compression=zipfile.ZIP_DEFLATED
    ),
    "pickle bomb": lambda: archive(bytes(2**28), compression=zipfile.ZIP_DEFLATED),
    "long pickle": lambda: archive(b"\x80\x02" + b"]" * 2**22 + b"."),
    "huge tensor": lambda: archive({PROJ: tensor(HUGE, (HUGE,))}, bytes(16)),
    "huge tensor without steps": lambda: archive(
        {PROJ: tensor(4, (HUGE,), stride=(0,))}, bytes(16)
    ),
    "huge memory index": lambda: archive(b"\x80\x02Nr\xff\xff\xff\x7f."),
    "huge text": lambda: archive(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa."),
    "list in itself": lambda: archive(b"\x80\x02]q\x00h\x00a."),
    "shared numbers": lambda: archive(
        {str(i): tensor(2**20, (2**20,)) for i in range(2000)}, bytes(2**22)
    ),
    "system call": lambda: evil(os.system, "touch /tmp/odd-weights-were-run"),
    "evaluation": lambda: evil(eval, "1 + 1"),
    "own class": lambda: saved({PROJ: Path("x")}),
    "a module": lambda: saved(torch.nn.Linear(2, 2)),
    "a list": lambda: saved([torch.ones(2)]),
    "a tensor": lambda: saved(torch.ones(2)),
    "a number": lambda: saved(5),
    "words": lambda: saved({"a": "b"}),
    "other weights": lambda: saved({"fc.weight": torch.ones(2, 2)}),
    "nested too deeply": lambda: saved({"state_dict": {"model": {"net": random_state(TINY)}}}),
    "one name with a number as key": lambda: saved({0: torch.ones(2)}),
    "one tensor missing": lambda: saved({n: t for n, t in random_state(TINY).items() if n != PROJ}),
    "one tensor more": lambda: changed(lambda w: w, PROJ).replace(b"logit_scale", b"logit_scalf"),
    "other shape": lambda: changed(lambda w: w[:-1].clone()),
    "no shape": lambda: changed(lambda _: torch.tensor(1.0), "visual.conv1.weight"),
    "empty tensor": lambda: changed(lambda w: w[:0].clone()),
    "many blocks": lambda: saved(
        random_state(TINY)
        | {f"visual.transformer.resblocks.{i}.x": torch.zeros(1) for i in range(5000)}
    ),
    "odd width": lambda: changed(lambda w: w[:32].clone(), "text_projection"),
    "NaN": lambda: with_value(float("nan")),
    "infinite": lambda: with_value(float("-inf")),
    "NaN of half precision": lambda: with_value(float("nan"), torch.float16),
    "NaN of bfloat16": lambda: with_value(float("nan"), torch.bfloat16),
    "int8": lambda: changed(lambda w: w.to(torch.int8)),
    "int64": lambda: changed(lambda w: w.to(torch.int64)),
    "bool": lambda: changed(lambda w: w > 0),
    "complex": lambda: changed(lambda w: w.to(torch.complex64)),
    "float8": lambda: changed(lambda w: w.to(torch.float8_e4m3fn)),
    "sparse": lambda: changed(lambda w: w.to_sparse()),
    "compressed sparse": lambda: changed(lambda w: w.to_sparse_csr()),
    "without numbers": lambda: changed(lambda w: w.to("meta")),
    "quantised": lambda: changed(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)),
    "safetensors, NaN": lambda: save({PROJ: torch.tensor([float("nan")])}),
    "safetensors, cut off": lambda: save(random_state(TINY))[:-4],
    "safetensors, longer": lambda: save(random_state(TINY)) + bytes(4),
    "safetensors, no JSON": lambda: lying(b"{nonsense"),
    "safetensors, a list": lambda: lying(b"{ }"[:1] + b'"a": []}'),
    "safetensors, header of 2^60 bytes": lambda: lying({PROJ: entry()}, length=2**60),
    "safetensors, deep header": lambda: lying(b'{"a":' * 100_000),
    "safetensors, huge tensor": lambda: lying({PROJ: entry(shape=(HUGE,), offsets=(0, 4 * HUGE))}),
    "safetensors, huge shape": lambda: lying({PROJ: entry(shape=(HUGE, HUGE))}),
    "safetensors, negative shape": lambda: lying({PROJ: entry(shape=(-2, -2))}),
    "safetensors, negative bytes": lambda: lying({PROJ: entry(offsets=(-16, 0))}),
    "safetensors, bytes reversed": lambda: lying({PROJ: entry(offsets=(16, 0))}),
    "safetensors, fractions": lambda: lying({PROJ: entry(offsets=(0.0, 16.0))}),
    "safetensors, overlapping": lambda: lying({PROJ: entry(), "b": entry()}),
    "safetensors, a name twice": lambda: lying(
        b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},'
        b' "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'
    ),
    "safetensors, int8": lambda: lying({PROJ: entry("I8", (16,))}),
    "safetensors, float8": lambda: lying({PROJ: entry("F8_E4M3", (16,))}),
    "safetensors, unknown type": lambda: lying({PROJ: entry(["F32"])}),
}


def peak() -> int:
    """Return the most bytes that this process had; getrusage would count those of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_all(folder: Path) -> list[Path]:
    """Write a file of each kind; return them in order."""
    paths = []
    for number, (kind, make) in enumerate(KINDS.items()):
        path = folder / f"{number:02} {kind.replace('/', ' ')}.pt"
        path.write_bytes(make())
        paths.append(path)
    return paths


def main(folder: Path) -> None:
    """Read every file of a folder as weights; print what came of it, and the memory at the end."""
    from CLIP.weights import create_model
    from errors import UserError

    for path in sorted(folder.iterdir()):
        start = time.perf_counter()
        try:
            create_model(None, path, image_size=32)
            message = None
        except UserError as error:
            message = str(error)
        seconds = time.perf_counter() - start
        print(json.dumps({"name": path.name, "seconds": seconds, "message": message}))
    print(json.dumps({"bytes": peak()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
