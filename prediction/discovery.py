"""Find what there is to score: images, DICOM series and volumes, named and in a fixed order."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from dataset.layout import DICOM_SUFFIXES, SUFFIXES, is_marked, refuse_folder

IMAGE = "image"
VOLUME = "volume"  # one file of nibabel's formats
SERIES = "series"  # DICOM files of one series, or one multi-frame file
DICOM = "dicom"  # a file, before it is known whether it is of a series
PART = "part"  # of a volume whose other file is read
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".img.gz", ".mnc", ".par")
PARTS = (".hdr", ".rec")
MOST_PARTS = 8  # of a folder that a name begins with
SHOWN = 5  # kinds of other files that are named


class Source(NamedTuple):
    """One thing to score: its files, relative to a folder that many share."""

    root: Path
    files: tuple[str, ...]
    kind: str
    prefix: str = ""

    @property
    def name(self) -> str:
        """Name of the source in results and, below their folders, of its outputs."""
        first = Path(self.files[0])
        if len(self.files) > 1:
            first = first.parent / f"{first.stem}-series"
        return f"{self.prefix}{first.as_posix()}"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(self.root / file for file in self.files)

    def belongs(self, shard: int, shards: int) -> bool:
        """Return whether the source falls to one of several jobs: the same in every run."""
        digest = sha256(self.name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % shards == shard


@dataclass
class Found:
    """The sources of a run, and how many other files were left out, by suffix."""

    sources: list[Source] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def describe_others(self) -> str:
        """Return which files were left out, in words; "" if there are none."""
        if not self.others:
            return ""
        kinds = [f"{count} {suffix}" for suffix, count in self.others.most_common(SHOWN)]
        more = " ..." if len(self.others) > SHOWN else ""
        return f"{self.others.total()} files of other types left out: {', '.join(kinds)}{more}"


def suffix_of(name: str) -> str:
    """Return a file name's suffix in lower case, `.nii.gz` as one; "" without any."""
    lower = name.lower()
    double = next((s for s in (".nii.gz", ".img.gz") if lower.endswith(s)), "")
    return double or Path(lower).suffix


def kind_of(path: Path) -> str:
    """Return IMAGE, VOLUME, DICOM or PART, or "" for a file of another type."""
    suffix = suffix_of(path.name)
    if suffix in DICOM_SUFFIXES:
        return DICOM
    if suffix in SUFFIXES:
        return IMAGE
    if suffix in VOLUME_SUFFIXES:
        return VOLUME
    if suffix in PARTS:
        return PART
    return DICOM if is_marked(path) else ""


def walk(folder: Path, left_out: Path) -> Iterator[str]:
    """Yield the files below a folder, relative to it, sorted; hidden ones are skipped.

    Raises UserError for a folder that cannot be read.
    """
    for place, folders, names in os.walk(folder, onerror=refuse_folder):
        here = Path(place)
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and (here / f).resolve() != left_out
        )
        relative = here.relative_to(folder)
        for name in sorted(names):
            if not name.startswith("."):
                yield (relative / name).as_posix()


def dicom_sources(root: Path, files: list[str], prefix: str, series: bool) -> Iterator[Source]:
    """Yield the series among DICOM files, or each file alone."""
    if not files:
        return
    from dataset.dicom import is_multiframe
    from scans.series import group_series

    if series:
        groups = group_series([root / file for file in files])
    else:
        groups = [(root / file,) for file in files]
    for group in groups:
        names = tuple(path.relative_to(root).as_posix() for path in group)
        several = len(names) > 1 or is_multiframe(group[0])
        yield Source(root, names, SERIES if several else IMAGE, prefix)


def find(paths: Iterable[Path], out: Path, *, series: bool = True) -> Found:
    """Find what there is to score in files and folders, sorted by path within each.

    `out` is left out, and so are hidden files. A file that is named itself is a source whatever its
    type. Names are relative to the folder that was given; `labels` tells several inputs apart.
    """
    paths = list(paths)
    found = Found()
    left_out = out.resolve()
    for path, label in zip(paths, labels(paths), strict=True):
        folder = path.is_dir()
        root = path if folder else path.parent
        files: Iterable[str] = walk(path, left_out) if folder else [path.name]
        prefix = f"{label}/" if label else ""
        dicom = []
        for file in files:
            kind = kind_of(root / file)
            if kind == DICOM:
                dicom.append(file)
            elif kind in (IMAGE, VOLUME) or not folder:
                found.sources.append(Source(root, (file,), kind or IMAGE, prefix))
            elif kind != PART:
                found.others[suffix_of(file) or "without a suffix"] += 1
        found.sources += dicom_sources(root, dicom, prefix, series)
    return found


def labels(paths: Sequence[Path]) -> list[str]:
    """Return what the names of each input's sources begin with, so that no two names are equal.

    Nothing for one input and for files with names of their own; else the end of the input's folder
    that makes it unlike the others, and a number where an input is given twice.
    """
    if len(paths) == 1:
        return [""]
    folders = [path.resolve() if path.is_dir() else path.resolve().parent for path in paths]
    names = Counter(path.name for path in paths if not path.is_dir())
    depth = 1
    while depth < MOST_PARTS and len(endings(set(folders), depth)) < len(set(folders)):
        depth += 1
    given: Counter[str] = Counter()
    made = []
    for path, folder in zip(paths, folders, strict=True):
        label = "_".join(folder.parts[-depth:])
        if not path.is_dir() and names[path.name] == 1:
            label = ""
        key = label if path.is_dir() else f"{label}/{path.name}"
        given[key] += 1
        again = f"-{given[key]}" if given[key] > 1 else ""
        made.append(f"{label}{again}")
    return made


def endings(folders: Iterable[Path], depth: int) -> set[tuple[str, ...]]:
    """Return the last parts of folders."""
    return {folder.parts[-depth:] for folder in folders}
