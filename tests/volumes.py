"""Volumes made up for tests: any order of axes, any direction, a rotation."""

from itertools import permutations, product
from pathlib import Path

import numpy as np

from scans.volume import Volume

Axes = tuple[int, ...]
Flips = tuple[bool, ...]

ORIENTATIONS: list[tuple[Axes, Flips]] = list(
    product(permutations(range(3)), product((False, True), repeat=3))
)  # all 48: which old axis each new one is, and which new ones run backwards


def volume_of(values: np.ndarray, affine: np.ndarray, **more: object) -> Volume:
    """Return a volume; affine: [4, 4] to millimetres in LPS."""
    more = {"kind": "nifti", "paths": (Path("scan.nii.gz"),), **more}
    return Volume(values=np.asarray(values, np.float32), affine=np.asarray(affine, float), **more)


def reordered(volume: Volume, axes: Axes, flips: Flips) -> Volume:
    """Return the same volume stored with its axes swapped, and some of them reversed."""
    values = volume.values.transpose(axes)
    matrix = np.zeros((4, 4))  # from new to old indices
    matrix[3, 3] = 1
    for new, old in enumerate(axes):
        matrix[old, new] = -1 if flips[new] else 1
        if flips[new]:
            matrix[old, 3] = values.shape[new] - 1
    values = values[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return volume_of(values, volume.affine @ matrix, modality=volume.modality)


def reordered_place(place: tuple[int, ...], shape: tuple[int, ...], axes: Axes, flips: Flips):
    """Return where a voxel of a volume of a shape is after `reordered`."""
    return tuple(
        shape[old] - 1 - place[old] if flip else place[old]
        for old, flip in zip(axes, flips, strict=True)
    )


def rotation(degrees: float) -> np.ndarray:
    """Return the affine [4, 4] of a turn about an oblique axis."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.radians(degrees)
    turned = np.eye(4)
    turned[:3, :3] = (
        np.cos(angle) * np.eye(3)
        + np.sin(angle) * cross
        + (1 - np.cos(angle)) * np.outer(axis, axis)
    )
    return turned
