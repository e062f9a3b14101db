"""Files that were made to do harm, by the target that reads them."""

import builtins
import io
import os
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.archives import Call
from tests.fuzz.seeds import File, nifti_files, zipped
from tests.odd_weights import HUGE, PROJ, archive, entry, evil, lying, saved
from tests.scan_files import write_dicom_file
from tests.wide_images import chunk

MEGABYTE = 2**20


class Writer(torch.nn.Module):
    """A TorchScript module that writes a file of its own choice when it is loaded."""

    path: str

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)
        self.content = torch.tensor(list(b"harm"), dtype=torch.uint8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.content, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
        self.path = state[0]
        self.training = state[2]
        size = state[1].numel()
        self.content = torch.from_file(state[0], True, size, dtype=torch.uint8).copy_(state[1])


def writer(path: Path) -> bytes:
    """Return a TorchScript archive that writes to a path when torch loads it."""
    data = io.BytesIO()
    torch.jit.save(torch.jit.script(Writer(path)), data)
    return data.getvalue()


def pickles(mark: Path) -> dict[str, bytes]:
    """Return pickles that make a file when they are loaded, in the ways that pickles can call."""
    command = f"touch '{mark}'"
    call = pickle.dumps({PROJ: Call(os.system, command)}, protocol=4)
    legacy = io.BytesIO()
    torch.save({PROJ: Call(os.system, command)}, legacy, _use_new_zipfile_serialization=False)
    return {
        "REDUCE": evil(os.system, command),
        "GLOBAL and eval": evil(builtins.eval, f"open({str(mark)!r}, 'w').close()"),
        "INST": archive(f"(S{command!r}\nios\nsystem\n.".encode()),
        "OBJ": archive(f"(cos\nsystem\nS{command!r}\no.".encode()),
        "STACK_GLOBAL": archive(call),
        "a bare pickle": call,
        "torch before 1.6": legacy.getvalue(),
        "an own class": saved({PROJ: Path(mark)}),
    }


def headers() -> dict[str, bytes]:
    """Return safetensors files whose headers lie."""
    return {
        "header of 2^60 bytes": lying({PROJ: entry()}, length=2**60),
        "header longer than the file": lying({PROJ: entry()}, length=2**20),
        "overlapping": lying({PROJ: entry(), "b": entry()}),
        "negative offsets": lying({PROJ: entry(offsets=(-16, 0))}),
        "offsets beyond": lying({PROJ: entry(shape=(HUGE,), offsets=(0, 4 * HUGE))}),
        "huge shape": lying({PROJ: entry(shape=(HUGE, HUGE))}),
        "shape that wraps": lying({PROJ: entry(shape=(2**62, 4))}),
        "deep header": lying(b'{"a":' * 100_000),
        "zip bomb": archive(bytes(16 * MEGABYTE), compression=zipfile.ZIP_DEFLATED),
    }


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """Return a tar archive of one entry."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as target:
        target.addfile(info)
    return data.getvalue()


def zip_link(target: str) -> bytes:
    """Return a ZIP archive of a symbolic link."""
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archived:
        archived.writestr(info, target)
    return data.getvalue()


def gzip_bomb(megabytes: int) -> bytes:
    """Return the beginning of a tar.gz file that states a huge file, and unpacks to megabytes."""
    info = tarfile.TarInfo("a.png")
    info.size = HUGE
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(info.tobuf()) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return data + zeros * megabytes


def archives(mark: Path) -> dict[str, File]:
    """Return archives that lead out of their folder, hold links or devices, or grow."""
    up = "../" * 12 + str(mark).lstrip("/")
    tars = {
        "tar, ..": tar_entry(up),
        "tar, absolute": tar_entry(str(mark)),
        "tar, symbolic link": tar_entry("a", tarfile.SYMTYPE, "/etc/passwd"),
        "tar, hard link": tar_entry("a", tarfile.LNKTYPE, "/etc/passwd"),
        "tar, device": tar_entry("a", tarfile.CHRTYPE),
        "tar, fifo": tar_entry("a", tarfile.FIFOTYPE),
    }
    zips = {
        "zip, ..": zipped({up: b"harm"}),
        "zip, absolute": zipped({str(mark): b"harm"}),
        "zip, backslashes": zipped({"..\\..\\harm": b"harm"}),
        "zip, link": zip_link("/etc/passwd"),
        "zip, many folders": zipped({"x/" * 3000 + "a.png": b"harm"}),
    }
    tars["tar.gz, bomb"] = gzip_bomb(600)
    files = {name: File("a.tar", data) for name, data in tars.items()}
    return files | {name: File("a.zip", data) for name, data in zips.items()}


def png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    """Return a grey PNG file that states a size; `more` are further chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    content = (header, *more, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(content)


def images() -> dict[str, File]:
    """Return images that state absurd sizes, or texts that inflate."""
    text = b"a\0\0" + zlib.compress(bytes(2**27))
    absurd = png(2**31 - 1, 2**31 - 1, zlib.compress(b"\0"))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"
    return {
        "PNG, absurd size": File("a.png", absurd),
        "PNG, text bomb": File("a.png", png(1, 1, zlib.compress(b"\0\0"), chunk(b"zTXt", text))),
        "PNG, long rows missing": File("a.png", png(60_000, 60_000, zlib.compress(b"\0"))),
        "PostScript": File("a.png", postscript),
        "PPM, absurd size": File("a.png", b"P5 99999999 99999999 255\n"),
    }


def scans(folder: Path) -> Iterator[tuple[str, str, File]]:
    """Yield (target, kind, file) of scans that state absurd sizes."""
    absurd = {
        "rows and columns": {"Rows": 65535, "Columns": 65535},
        "frames": {"NumberOfFrames": 2**31 - 1},
        "negative frames": {"NumberOfFrames": -5},
        "all": {"Rows": 65535, "Columns": 65535, "NumberOfFrames": 999, "SamplesPerPixel": 3},
        "bits": {"BitsAllocated": 64, "Rows": 40_000, "Columns": 40_000},
    }
    for kind, attributes in absurd.items():
        path = write_dicom_file(folder / "a.dcm", np.zeros((4, 4), np.uint16), **attributes)
        yield "DICOM", kind, File("a.dcm", path.read_bytes())
    (folder / "nifti").mkdir()
    plain, *_ = nifti_files(folder / "nifti")
    for sizes in (
        (3, 32767, 32767, 32767),
        (3, 12854, 452, 336),
        (3, 1290, 1290, 1290),
        (7, *[99] * 7),
    ):
        data = bytearray(plain.data)
        data[40 : 40 + 2 * len(sizes)] = np.array(sizes, "<i2").tobytes()
        yield "NIfTI", " x ".join(map(str, sizes[1:])), File("a.nii", bytes(data))


def hostile(folder: Path, mark: Path) -> dict[tuple[str, str], File]:
    """Return all of them by target and kind; `mark` is the file that none of them may write."""
    tensors = pickles(mark) | headers() | {"TorchScript that writes": writer(mark)}
    names = {
        "CLIP weights": "clip.pt",
        "checkpoint": "Brain.pth",
        "detector": "Brain.detector",
        "training state": "x.state",
        "text-cache entry": "x.pt",
    }
    found = {
        (target, kind): File(name, data)
        for target, name in names.items()
        for kind, data in tensors.items()
    }
    for kind, file in archives(mark).items():
        found["archive", kind] = file
        if file.name.endswith(".zip"):
            found["upload", kind] = file
    bomb = zipped({"a.png": bytes(140 * MEGABYTE)}, zipfile.ZIP_DEFLATED)
    found["upload", "zip, bomb"] = File("a.zip", bomb)
    found |= {("image", kind): file for kind, file in images().items()}
    found |= {("mask", kind): file for kind, file in images().items()}
    return found | {(target, kind): file for target, kind, file in scans(folder)}
