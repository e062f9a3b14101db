"""Find what there is to score: images, DICOM series and volumes, named and in a fixed order."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from dataset.layout import DICOM_SUFFIXES, SUFFIXES, is_marked, refuse_folder
from prediction.run_folder import PROGRAM, RUN, is_run_folder

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

    @property
    def evidence(self) -> tuple[Path, ...]:
        """The files that decide what is scored: the second file of a volume of two, too."""
        seconds = (path.with_suffix(suffix) for path in self.paths for suffix in PARTS)
        return (*self.paths, *(p for p in seconds if self.kind == VOLUME and p.is_file()))

    def belongs(self, shard: int, shards: int) -> bool:
        """Return whether the source falls to one of several jobs: the same in every run."""
        digest = sha256(self.name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % shards == shard


@dataclass
class Found:
    """The sources of a run, and what was left out.

    Args:
        sources: what there is to score.
        others: how many files of other types there are, by suffix.
        results: folders of results of this program.
        repeated: how many sources were given twice.

    """

    sources: list[Source] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    results: list[Path] = field(default_factory=list)
    repeated: int = 0

    def describe_others(self) -> str:
        """Return what was left out, in words; "" if nothing was."""
        said = []
        if self.others:
            kinds = [f"{count} {suffix}" for suffix, count in self.others.most_common(SHOWN)]
            more = " ..." if len(self.others) > SHOWN else ""
            said.append(
                f"{self.others.total()} files of other types left out: {', '.join(kinds)}{more}"
            )
        if self.results:
            said.append(
                f"{len(self.results)} folders with results of {PROGRAM} left out: {self.results[0]}"
                f"{' ...' if len(self.results) > 1 else ''}"
            )
        if self.repeated:
            said.append(f"{self.repeated} of the files and folders are given twice and scored once")
        return "; ".join(said)

    def drop_repeated(self) -> None:
        """Keep each source once, as it is first given."""
        first: dict[tuple[Path, ...], Source] = {}
        for source in self.sources:
            root = source.root.resolve()
            first.setdefault(tuple(root / file for file in source.files), source)
        self.repeated += len(self.sources) - len(first)
        self.sources = list(first.values())


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


def walk(folder: Path, left_out: Path, results: list[Path]) -> Iterator[str]:
    """Yield the files below a folder, relative to it, sorted; hidden ones are skipped.

    So are folders with results of this program, whose pictures are none to score: they are added
    to `results`. Raises UserError for a folder that cannot be read.
    """
    for place, folders, names in os.walk(folder, onerror=refuse_folder):
        here = Path(place)
        if RUN in names and is_run_folder(here):
            results.append(here)
            folders.clear()
            continue
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
    type. What is given twice is found once. Names are relative to the folder that was given;
    `labels` tells several inputs apart.
    """
    given = list(paths)
    first: dict[Path, Path] = {}
    for path in given:
        first.setdefault(
            path.resolve() if path.is_dir() else path.parent.resolve() / path.name, path
        )
    paths = list(first.values())
    found = Found(repeated=len(given) - len(paths))
    left_out = out.resolve()
    for path, label in zip(paths, labels(paths), strict=True):
        folder = path.is_dir()
        root = path if folder else path.parent
        files: Iterable[str] = walk(path, left_out, found.results) if folder else [path.name]
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
    found.drop_repeated()
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
