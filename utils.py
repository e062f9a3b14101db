"""Random seed, device, atomic file writing, upsampling and augmentation.

Letters: B images, K images of a group, C channels, P patches per side, N = P * P, S image side in
pixels.
"""

import math
import os
import pickle
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UserError

# what torch.load raises for a file that is missing, truncated or of another format
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
ROTATIONS = (-math.pi / 8, -math.pi / 16, math.pi / 16, math.pi / 8)  # in radians
# (x, y) in half image sides
SHIFTS = ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))


def set_seed(seed: int) -> torch.Generator:
    """Seed Python's, numpy's and torch's global generators.

    Returns a torch.Generator with the same seed, which this project's own random numbers come from.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries draw from the global state
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def usable_devices() -> list[str]:
    """List the types of devices that torch can use on this machine."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names.append("cuda")
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def choose_device(name: str | None) -> torch.device:
    """Return the device of a name such as "cpu", "cuda:1" or "mps".

    Without a name: CUDA if available, else the CPU; "mps" (Apple) is used only if named. Raises
    UserError if the device cannot be used.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        usable = ", ".join(usable_devices())
        raise UserError(f"--device {name} cannot be used here; usable: {usable}") from error
    return device


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically: call `write` with a temporary path, then rename.

    Readers see either the old file or the new one, never a part. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def writable(folder: Path, flag: str) -> None:
    """Create a folder and check that it is writable, so that a run does not fail at its end.

    `flag` is the command-line flag that the folder came from, for the message. Raises UserError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{flag} {folder} is not a directory and cannot be created; choose another"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{flag} {folder} is not writable; choose another")


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
    from kornia.geometry.transform import hflip, vflip  # slow to import

    rotations = [[[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]] for a in ROTATIONS]
    shifts = [[[1, 0, x], [0, 1, y]] for x, y in SHIFTS]
    warped = [warp(images, matrix) for matrix in rotations + shifts]
    return torch.cat([images, *warped, hflip(images), vflip(images)])
