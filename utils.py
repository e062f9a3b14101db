"""Seed, device, whole files and augmentation."""

import ctypes
import math
import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UserError

# whatever a missing, cut or foreign file makes torch.load raise
LOAD_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    pickle.UnpicklingError,
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 2**30  # free memory that is kept
LARGE_BYTES = (2**28, 2**25)  # blocks from here on are given back all the same
RETURNED_BYTES = 2**22
ROTATIONS = (-math.pi / 8, -math.pi / 16, math.pi / 16, math.pi / 8)
SHIFTS = ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))  # in halves of the image side


def tune_process() -> None:
    """Two settings of the process that change its speed; where a system lacks them nothing happens.

    Numbers below 1e-38 become zero, which no figure shows in practice. Processors take far longer over them: a
    training step of ViT-L/14 on a CPU took three times as long. Threads that are there already keep their
    setting, so this comes first in a run.

    Large blocks of memory that are freed are kept for the next of their size. What comes back from the system instead
    is cleared page by page: eight images took 300,000 page faults.
    """
    torch.set_flush_denormal(True)
    keep_memory()


def keep_memory() -> None:
    """Keep large blocks of memory that are freed for the next of their size."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)  # glibc, or something without mallopt
        if any(
            libc.mallopt(M_MMAP_THRESHOLD, size) for size in LARGE_BYTES
        ):  # older ones refuse the first
            libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


@contextmanager
def large_blocks_returned() -> Iterator[None]:
    """Within, blocks from 4 MB on go back to the system as soon as they are free, and what is free by now at once.

    For work in few blocks of some megabytes: kept, they would lie torn between others, and the peak of a run would hang
    on how they happened to lie. Afterwards the settings of `tune_process` hold, since the earlier ones cannot be asked.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(M_MMAP_THRESHOLD, RETURNED_BYTES)
    try:
        yield
    finally:
        keep_memory()


def set_seed(seed: int) -> torch.Generator:
    """Seed every global source of randomness, and return the generator that this project draws from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries draw from the global state
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def choose_device(name: str | None) -> torch.device:
    """The named device, or CUDA where there is one, else the CPU. UserError if it cannot be used."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        usable = "cpu" + (", cuda" if torch.cuda.is_available() else "")
        raise UserError(f"--device {name} cannot be used here; usable: {usable}") from error
    return device


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, then rename: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def writable(folder: Path, flag: str) -> None:
    """Make a folder, so that a run does not fail at its end. UserError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{flag} {folder} is no folder and cannot be made one; choose another"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{flag} {folder} cannot be written; choose another")


def warp(images: Tensor, matrix: list[list[float]]) -> Tensor:
    """Affine map of images [K, C, S, S], normalised coordinates: bilinear, reflection padding, corners not aligned."""
    theta = torch.tensor(matrix, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def augment(images: Tensor) -> Tensor:
    """Eleven versions of a group, transform by transform: [K, C, S, S] -> [11 K, C, S, S] (SPEC section 4).

    As is; four rotations; four shifts; flipped left-right; flipped upside-down.
    """
    from kornia.geometry.transform import (  # slow to import, and not needed before a model is ready
        hflip,
        vflip,
    )

    versions = [images]
    versions += [
        warp(images, [[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]])
        for a in ROTATIONS
    ]
    versions += [warp(images, [[1, 0, a], [0, 1, b]]) for a, b in SHIFTS]
    versions += [hflip(images), vflip(images)]
    return torch.cat(versions)
