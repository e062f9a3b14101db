"""What a page uploads: kept in a private folder, unpacked safely, and bounded before it is read."""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from errors import UserError
from prediction.discovery import DICOM, IMAGE, VOLUME, Source, find, kind_of

MEGABYTE = 2**20
UNPACKED = 5  # a zip file may unpack to so many times the size of an upload
MOST_ENTRIES = 20_000  # of a zip file
DEEPEST = 32  # folders of a name: walking them takes time that grows with their square
MOST_VALUES = 2**28  # of a scan: 1 GiB of float32, such as 1,024 slices of 512 x 512
ENCRYPTED = 1  # of a zip entry's flags
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ZIP_ERRORS = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
)


@dataclass(frozen=True)
class Limits:
    """Bounds of an upload: bytes as uploaded and as unpacked, values of a scan."""

    uploaded: int
    unpacked: int
    values: int = MOST_VALUES

    @classmethod
    def of(cls, megabytes: int) -> "Limits":
        """Return the bounds for uploads of so many megabytes."""
        return cls(megabytes * MEGABYTE, UNPACKED * megabytes * MEGABYTE)


class Uploads:
    """The files that one page has uploaded, until others replace them or the page is closed.

    Attributes:
        sources: what can be scored among them.

    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.sources: list[Source] = []
        self._originals: set[Path] = set()
        self._folder: TemporaryDirectory[str] | None = None

    def replace(self, files: Sequence[Path]) -> None:
        """Forget the files of before and take others. Raises UserError, then there are none."""
        self.forget(keep=files)
        self._originals = set(files)
        if not files:
            return
        self._folder = TemporaryDirectory(prefix="upload-")
        try:
            self.sources = collect(files, Path(self._folder.name), self.limits)
        except UserError as error:
            message = self.readable(str(error))
            self.forget(keep=files)
            raise UserError(message) from error

    def forget(self, keep: Iterable[Path] = ()) -> None:
        """Remove all files, but of the originals those to keep."""
        for path in self._originals - set(keep):
            path.unlink(missing_ok=True)
        self._originals &= set(keep)
        self.sources = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def readable(self, message: str) -> str:
        """Return a message without the folder that the files lie in."""
        if self._folder is None:
            return message
        return message.replace(f"{self._folder.name}{os.sep}", "")


def collect(files: Sequence[Path], folder: Path, limits: Limits) -> list[Source]:
    """Put files into one folder, zip files unpacked; return what can be scored, largest first.

    Raises UserError for more than the limits allow, for a zip file that is not plain, and if
    nothing can be scored.
    """
    size = sum(path.stat().st_size for path in files)
    if size > limits.uploaded:
        raise UserError(
            f"{size / MEGABYTE:.0f} MB were uploaded; at most {limits.uploaded / MEGABYTE:.0f} are "
            "allowed: choose fewer files, or start app.py with a higher --max_mb"
        )
    left = limits.unpacked
    for path in files:
        if path.suffix.lower() == ".zip":
            left -= unpack(path, free_name(folder, path.stem), left)
        else:
            link(path, free_name(folder, path.name))
    found = find([folder], folder / "nothing")
    if not found.sources:
        others = found.describe_others() or "no files of these types"
        raise UserError(
            f"nothing to show ({others}); allowed are PNG, JPEG, BMP, TIFF, DICOM, NIfTI and zip "
            "files of them"
        )
    return sorted(found.sources, key=lambda source: -len(source.files))


def free_name(folder: Path, name: str) -> Path:
    """Return a path in a folder that is not taken: `name`, or it in a numbered subfolder.

    Names that begin with a dot, as hidden ones do, lose it.
    """
    name = name.lstrip(".") or "file"
    path = folder / name
    number = 1
    while path.exists() or path.parent.is_file():
        number += 1
        path = folder / str(number) / name
    path.parent.mkdir(exist_ok=True)
    return path


def link(path: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        target.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, target)


# -------------------------------------------------------------------- zip files


def unpack(archive: Path, folder: Path, most: int) -> int:
    """Unpack a zip file into a new folder; return the size of its files in bytes.

    Raises UserError if that is more than `most`; nothing is written then. The sizes are those that
    the archive states: zipfile reads no more of any file. Links, devices, names that lead out of
    the folder and encrypted files are refused; hidden files are skipped.
    """
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = list(plain_entries(archive.name, opened))
            size = sum(entry.file_size for entry, _ in entries)
            if size > most:
                raise UserError(
                    f"{archive.name} unpacks to {size / MEGABYTE:.1f} MB; at most "
                    f"{most / MEGABYTE:.1f} are allowed: choose fewer files, or start app.py with "
                    "a higher --max_mb"
                )
            for entry, place in entries:
                write_entry(opened, entry, folder / place)
    except ZIP_ERRORS as error:
        reason = str(error).split("\n")[0][:80]
        raise UserError(f"{archive.name} cannot be unpacked ({reason}); zip it again") from error
    return size


def plain_entries(
    name: str, archive: zipfile.ZipFile
) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Yield the files of an archive with their places. Raises UserError."""
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise UserError(f"{name} holds {len(entries)} files; at most {MOST_ENTRIES} are unpacked")
    for entry in entries:
        place = PurePosixPath(entry.filename.replace("\\", "/"))
        if entry.filename.endswith("/") or hidden(place):
            continue
        check_place(name, entry, place)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{name} holds a link or a device, {place}; zip plain files only")
        if entry.flag_bits & ENCRYPTED:
            raise UserError(f"{name} is encrypted; zip it again without a password")
        if entry.compress_type not in METHODS:  # others inflate without a bound of memory
            raise UserError(f"{name} is not compressed by deflate; zip it again, as most do")
        yield entry, place


def check_place(name: str, entry: zipfile.ZipInfo, place: PurePosixPath) -> None:
    """Raise UserError for an entry without a name, one that leads out, and one too deep."""
    if not entry.filename:
        raise UserError(f"{name} holds a file without a name; zip it again")
    if place.is_absolute() or ".." in place.parts or ":" in entry.filename:
        raise UserError(f"{name} holds {place}, which leads out of it; zip it again")
    if len(place.parts) > DEEPEST:
        raise UserError(f"{name} holds a file more than {DEEPEST} folders deep; zip it again")


def hidden(place: PurePosixPath) -> bool:
    """Return whether an entry is hidden, or one that an archiver of macOS adds."""
    return any(
        part == "__MACOSX" or (part.startswith(".") and part != "..") for part in place.parts
    )


def write_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Write a file of an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target)


# -------------------------------------------------------------------- sizes


def check_size(source: Source, limits: Limits) -> None:
    """Raise UserError for a scan of more values than the limits allow; only headers are read.

    Images are bounded by Pillow and the readers of wide files.
    """
    count = sum(map(count_values, source.paths)) if measured(source) else 0
    if count > limits.values:
        raise UserError(
            f"{source.name} has {count} values; at most {limits.values} are shown: cut it up, or "
            "use predict.py"
        )


def measured(source: Source) -> bool:
    """Return whether a source is a scan, whose size its header says."""
    return source.kind != IMAGE or kind_of(source.paths[0]) == DICOM


def count_values(path: Path) -> int:
    """Return how many values a file of a scan has; of four axes, those of one volume. UserError."""
    if kind_of(path) == VOLUME:
        from scans.nifti import open_image

        return prod(int(size) for size in open_image(path).shape[:3])
    from dataset.dicom import read_header, readable

    with readable(path):
        header = read_header(path)
        sizes = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
        return prod(int(header.get(keyword) or 1) for keyword in sizes)
