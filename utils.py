"""Random seed, atomic file writing, upsampling and augmentation.

Letters: B images, K images of a group, C channels, P patches per side, N = P * P, S image side in
pixels.
"""

import math
import os
import platform
import random
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UserError

PART = re.compile(r"\.mvfa-(?P<machine>[\w.]+)-(?P<process>\d+)-\d+\.part")  # of `part_path`
FOREIGN_PART_SECONDS = 86_400  # age from which a part of another machine counts as left over
ROTATIONS = (-math.pi / 8, -math.pi / 16, math.pi / 16, math.pi / 8)  # in radians
# (x, y) in half image sides
SHIFTS = ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))

_part_numbers = count()
_own_parts: set[str] = set()  # names of those that this process is writing
_swept: set[Path] = set()  # folders that it has written to


def set_seed(seed: int) -> torch.Generator:
    """Seed Python's, numpy's and torch's global generators.

    Returns a torch.Generator with the same seed, which this project's own random numbers come from.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries draw from the global state
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@cache
def machine() -> str:
    """Return the name of this machine and, on Linux, the number of its process name space.

    Containers have spaces of their own, where the same process number is another process.
    """
    name = re.sub(r"[^\w.]", "_", platform.node()) or "unknown"
    try:
        space = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        return name
    return f"{name}.{space}"


def part_path(target: Path) -> Path:
    """Return a temporary path beside `target`, whose name says which process writes there."""
    return target.with_name(f".mvfa-{machine()}-{os.getpid()}-{next(_part_numbers)}.part")


def is_left_over(path: Path) -> bool:
    """Return whether a path is that of a part whose writer no longer runs.

    Whether a process of another machine runs is not known: its parts count after a day.
    """
    found = PART.fullmatch(path.name)
    if found is None:
        return False
    if found["machine"] != machine():
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > FOREIGN_PART_SECONDS
        return False
    if int(found["process"]) == os.getpid():
        return path.name not in _own_parts
    return not psutil.pid_exists(int(found["process"]))


def sweep(folder: Path, *, below: bool = False) -> None:
    """Remove the parts that killed processes left in a folder and, if asked, in those below it."""
    with suppress(OSError):
        for path in list(folder.rglob("*") if below else folder.iterdir()):
            if is_left_over(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Return when the system has brought a file's content, or a folder's names, to the disk."""
    # Windows flushes only what is open for writing
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def part_of(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; what is still there at the end is removed.

    Missing parent folders are made. Parts that killed processes left there are removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent not in _swept:
        _swept.add(target.parent)
        sweep(target.parent)
    part = part_path(target)
    _own_parts.add(part.name)
    try:
        yield part
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
        _own_parts.discard(part.name)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError from within the name of the file that is written, not of a temporary one.

    An error of another file, one that is read, keeps its name; a full disk names none.
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or PART.search(str(error.filename))
        if error.errno is not None and unnamed:
            error.filename = str(path)
            del error.filename2
        raise


def write_whole(path: Path, write: Callable[[Path], object], *, flush_folder: bool = True) -> None:
    """Write a file atomically: call `write` with a temporary path, flush, rename, flush the folder.

    Readers see either the old file or the new one, never a part, also after a power failure.
    Missing parent folders are made. Of several files in a row only the last needs `flush_folder`:
    file systems keep the order of renames.
    """
    with naming(path), part_of(path) as part:
        write(part)
        flush(part)
        part.replace(path)
    if flush_folder:
        with suppress(OSError):  # some systems cannot open a folder
            flush(path.parent)


def encoded(text: str) -> bytes:
    """Return text in UTF-8, in which bytes of file names that are not UTF-8 are escapes."""
    return text.encode("utf-8", "backslashreplace")


def write_text(path: Path, text: str) -> Path:
    """Write a page or a table, whole or not at all, as `encoded`; return its path."""
    write_whole(path, lambda part: part.write_bytes(encoded(text)))
    return path


def writable(folder: Path, flag: str, files: Iterable[str] = ()) -> None:
    """Create a folder and check that it is writable, so that a run does not fail at its end.

    `files` are the names of those that will be written there: no folder may have one. Parts that
    killed processes left there are removed. `flag` is the command-line flag that the folder came
    from, for the message. Raises UserError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{flag} {folder} is not a directory and cannot be created; choose another"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{flag} {folder} is not writable; choose another")
    for path in (folder / name for name in files):
        if path.is_dir():
            raise UserError(
                f"{path} is a folder, where a file is written; move it, or pass another {flag}"
            )
    sweep(folder)


@cache
def interpolation(patches: int, side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the weights [S, P] of linear interpolation from P to S points, corners aligned."""
    unit = torch.eye(patches, dtype=dtype, device=device)
    weights = F.interpolate(unit[None], size=side, mode="linear", align_corners=True)[0]  # [P, S]
    return weights.T.contiguous()


def upsample(values: Tensor, side: int) -> Tensor:
    """Upsample patch values [B, C, N], N = P * P, to [B, C, S, S]: bilinear, corners aligned.

    Computed as one matrix product per axis, which takes a fifth of the time of F.interpolate on a
    CPU.
    """
    patches = round(values.shape[-1] ** 0.5)
    weights = interpolation(patches, side, values.dtype, values.device)  # [S, P]
    square = values.unflatten(-1, (patches, patches))  # [B, C, P, P]
    return weights @ square @ weights.T


def warp(images: Tensor, matrix: list[list[float]]) -> Tensor:
    """Apply an affine map to images [K, C, S, S] float; same shape.

    `matrix` [2, 3] maps output to input positions in normalised coordinates (-1 to 1). Bilinear,
    reflection padding, corners not aligned (SPEC section 4).
    """
    theta = torch.tensor(matrix, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # [K, S, S, 2]
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def augment(images: Tensor) -> Tensor:
    """Return eleven versions of each image: [K, C, S, S] float -> [11 K, C, S, S].

    The order is transform by transform (SPEC section 4): identity, four rotations, four shifts,
    left-right flip, upside-down flip.
    """
    rotations = [[[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]] for a in ROTATIONS]
    shifts = [[[1, 0, x], [0, 1, y]] for x, y in SHIFTS]
    warped = [warp(images, matrix) for matrix in rotations + shifts]
    return torch.cat([images, *warped, images.flip(-1), images.flip(-2)])
