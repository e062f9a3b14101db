"""Unpack a tar or zip archive of a stranger: files and folders only, inside one folder, bounded.

Everything is written to a temporary folder first, so that a target is there whole or not at all.
"""

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from errors import UserError

CHUNK = 2**20  # bytes
MOST_FILES = 1_000_000  # of one archive; the largest published one has about 30,000
MOST_GROWTH = 100  # unpacked bytes per byte of the archive: PNG files hardly shrink
ALLOWANCE = 2**28  # bytes that any archive may unpack to
DEEPEST = 32  # folders of a name: walking them takes time that grows with their square
SKIPPED = ("__MACOSX",)  # folders that an archiver of macOS adds
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a zip's compression
    RuntimeError,  # a zip with a password
    ValueError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive: its name, its size in bytes, what it is, and how it is read."""

    name: str
    size: int
    kind: str  # "file", "folder" or what is refused
    opened: Callable[[], IO[bytes] | None]


def tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    """Yield the entries of a tar archive in its order."""
    for info in archive:
        kind = "file" if info.isreg() else "folder" if info.isdir() else "link or device"
        yield Member(info.name, info.size, kind, partial(archive.extractfile, info))


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    """Yield the entries of a zip archive in its order."""
    for info in archive.infolist():
        unix = info.external_attr >> 28  # the type of a Unix file, 0 where none is recorded
        folder = info.filename.endswith("/")
        kind = "folder" if folder else "file" if unix in (0, 8) else "link or device"
        yield Member(info.filename, info.file_size, kind, partial(archive.open, info))


@contextmanager
def members(path: Path) -> Iterator[Iterator[Member]]:
    """Open an archive and yield its entries. Raises UserError if it is damaged or another file."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield zip_members(archive)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                yield tar_members(archive)
        else:
            raise UserError(f"{path} is neither a tar nor a zip archive")
    except DAMAGED as error:
        said = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or incomplete ({said})") from error


def safe_parts(name: str, path: Path) -> tuple[str, ...]:
    """Return the folders and the file name of an entry.

    Raises UserError for a name that leads elsewhere (empty, absolute, with "..", a drive, a
    backslash or a control character) or too deep.
    """
    plain = PurePosixPath(name)
    parts = plain.parts
    odd = (
        not name
        or plain.is_absolute()
        or ".." in parts
        or any(set(part) & set("\\:") for part in parts)
    )
    if odd or not name.isprintable():
        raise UserError(f"{path} holds {name[:100]!r}, which would be written elsewhere; refused")
    if len(parts) > DEEPEST:
        raise UserError(f"{path} holds {name[:100]!r}, more than {DEEPEST} folders deep; refused")
    return parts


class Budget:
    """What an archive may still write: files, and bytes by its own size and the free space."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.files = MOST_FILES
        self.growth = MOST_GROWTH * path.stat().st_size + ALLOWANCE
        self.free = shutil.disk_usage(folder).free

    def spend(self, files: int, size: int) -> None:
        """Take files and bytes off. Raises UserError where nothing is left."""
        self.files -= files
        self.growth -= size
        self.free -= size
        if self.files < 0 or self.growth < 0:
            raise UserError(
                f"{self.path} unpacks to more than {MOST_FILES:,} files or {MOST_GROWTH} times its "
                "size; refused"
            )
        if self.free < 0:
            raise UserError(f"no space left to unpack {self.path}; make room and try again")


def write_member(member: Member, target: Path, budget: Budget) -> None:
    """Write one file of an archive, counting the bytes that arrive and not those it states."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = member.opened()
    if source is None:
        raise UserError(f"{budget.path}: {member.name[:100]!r} cannot be read")
    with source, target.open("xb") as file:
        while chunk := source.read(CHUNK):
            budget.spend(0, len(chunk))
            file.write(chunk)


def extract(path: Path, folder: Path) -> int:
    """Write the files of an archive below an existing folder; return how many.

    Hidden files are left out. Raises UserError.
    """
    budget = Budget(path, folder)
    count = 0
    with members(path) as entries:
        for member in entries:
            parts = safe_parts(member.name, path)
            if member.kind == "folder" or any(p.startswith(".") or p in SKIPPED for p in parts):
                continue
            if member.kind != "file":
                raise UserError(f"{path} holds {member.name[:100]!r}, a {member.kind}; refused")
            budget.spend(1, 0)
            try:
                write_member(member, folder.joinpath(*parts), budget)
            except FileExistsError as error:
                raise UserError(f"{path} holds {member.name[:100]!r} twice; refused") from error
            count += 1
    return count


@contextmanager
def unpacked(path: Path, beside: Path) -> Iterator[Path]:
    """Unpack an archive into a temporary folder in `beside`, yield that, and remove what is left.

    Raises UserError, also for errors of writing.
    """
    folder = beside / f".{path.name}.unpacked"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        folder.mkdir(parents=True)
        if not extract(path, folder):
            raise UserError(f"{path} holds no files")
        yield folder
    except OSError as error:
        raise UserError(f"{path} cannot be unpacked to {beside} ({error.strerror})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_folder(folder: Path, name: str, path: Path) -> Path:
    """Return the folder `name` of an unpacked archive, at its top or one level below.

    Raises UserError, which names what is there instead.
    """
    found: list[Path] = [p for p in (*folder.glob(name), *folder.glob(f"*/{name}")) if p.is_dir()]
    if len(found) == 1:
        return found[0]
    there: list[Any] = sorted(entry.name for entry in folder.iterdir())
    raise UserError(f"{path} should hold a folder {name}; it holds {', '.join(there[:5])}")
