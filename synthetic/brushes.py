"""Brushes for the synthetic demo pictures: soft shapes, noise, vessels, the lesion texture, and the exposure.

Positions are (x, y) pairs in a frame that runs from -1 to 1 along both sides of the image, x to the right and y down.
Lengths named ``*_px`` are pixels of the image scaled to 240 x 240, because that is about what a detector looks at.

A lesion is recognised by its texture, not by its brightness: in each object it carries the same fine mottled grain,
and its mean level is moved up or down at random. What is learned about it in five objects thus serves in the sixth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

Rng = np.random.Generator
Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Twig = tuple[Points, float]  # line, thickness in px
Size = tuple[int, int]  # height, width
Span = tuple[float, float]

# Optical densities of haematoxylin and eosin in (red, green, blue).
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.10, 0.85, 0.35], np.float32)
FRAME = 240
LESION_AREA = (0.04, 0.11)  # share of the image
LESION_GRAIN = (0.05, 0.085)  # deviation of the lesion texture on a grey scale from 0 to 1
SHIFT = (-0.06, 0.06)  # of the mean level in a lesion


@dataclass
class Scene:
    """A picture under work: ``grey`` [H, W] in 0..1, and ``tissue`` [H, W] in 0..1, where a lesion may grow."""

    grey: Field
    tissue: Field


def blur(field: npt.NDArray[Any], sigma: float) -> Field:
    """``field`` [H, W] blurred by a Gaussian of ``sigma`` pixels, as float32."""
    return np.asarray(
        cv2.GaussianBlur(field.astype(np.float32, copy=False), (0, 0), sigma), np.float32
    )


def inner_distance(mask: Mask) -> Field:
    """For each pixel [H, W] inside the mask, how many pixels away its edge is; 0 outside."""
    return np.asarray(
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5), np.float32
    )


def clouds(size: Size, rng: Rng, cells: tuple[int, int]) -> Field:
    """Smooth noise [H, W] of zero mean and unit deviation with ``cells`` (down, across) bumps."""
    coarse = rng.standard_normal(cells, np.float32)
    field = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def grains(size: Size, rng: Rng) -> Field:
    """The mottled lesion texture [H, W]: zero mean, about unit deviation, grains of 2 to 4 px, denser in places."""
    fine, coarse = rng.standard_normal((2, FRAME, FRAME), np.float32)
    band = blur(fine, 1.1) - blur(fine, 2.4) + 1.3 * (blur(coarse, 1.8) - blur(coarse, 3.6))
    field = cv2.resize(
        np.clip(band / band.std(), -2.2, 2.2), size[::-1], interpolation=cv2.INTER_CUBIC
    )
    return field / field.std() * np.clip(1 + 0.3 * clouds(size, rng, (12, 12)), 0.5, 1.5)


def curve(x: Sequence[float], y: Sequence[float], rng: Rng, jitter: float) -> Points:
    """A closed smooth line [96, 2] through corners given in hundredths, each displaced at random by ``jitter``."""
    corners = np.array([x, y]) / 100 + jitter * rng.standard_normal((2, len(x)))
    steps = np.arange(96)[None] * len(x) / 96
    return np.stack(
        [map_coordinates(side, steps, order=3, mode="grid-wrap") for side in corners], 1
    )


def oval(
    at: tuple[float, float], radii: tuple[float, float], rng: Rng, wobble: float, turn: float = 0.0
) -> Points:
    """An ellipse-like closed line [96, 2], turned by ``turn`` radians, its radius varied by the share ``wobble``."""
    angle = np.linspace(0, 2 * np.pi, 11)[:-1]
    reach = 1 + wobble * rng.standard_normal(10)
    x, y = 100 * radii[0] * reach * np.cos(angle), 100 * radii[1] * reach * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return curve((cos * x - sin * y).tolist(), (sin * x + cos * y).tolist(), rng, 0.0) + at


def to_pixels(size: Size, points: Points) -> npt.NDArray[np.int32]:
    """Pixel positions in sixteenths, for the ``shift=4`` argument of OpenCV's drawing functions."""
    return np.round((points + 1) / 2 * (np.array(size[::-1]) - 1) * 16).astype(np.int32)


def soften(mask: npt.NDArray[np.uint8], soft_px: float) -> Field:
    """Coverage [H, W] in 0..1 of a drawn 0/255 mask, with edges blurred by ``soft_px``."""
    down, across = (max(soft_px * side / FRAME, 0.3) for side in mask.shape)
    return np.asarray(
        cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), sigmaX=across, sigmaY=down),
        np.float32,
    )


def area(size: Size, points: Points, soft_px: float) -> Field:
    """Coverage [H, W] of the inside of a closed line."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [to_pixels(size, points)], 255, cv2.LINE_AA, 4)
    return soften(mask, soft_px)


def stroke(size: Size, lines: Sequence[Twig], soft_px: float) -> Field:
    """Coverage [H, W] of open lines, each given with its thickness in px."""
    mask = np.zeros(size, np.uint8)
    for points, thick_px in lines:
        thick = max(1, round(thick_px * size[0] / FRAME))
        cv2.polylines(mask, [to_pixels(size, points)], False, 255, thick, cv2.LINE_AA, 4)
    return soften(mask, soft_px)


def lay(grey: Field, cover: Field, value: float | npt.NDArray[np.floating]) -> None:
    """Paint ``value`` over ``grey`` in place where ``cover`` is."""
    grey += cover * (value - grey)


def branches(
    at: tuple[float, float], heading: float, rng: Rng, length: float, thick_px: float
) -> list[Twig]:
    """A tree of vessels as (line, thickness) pairs, that starts at ``at`` and forks until its twigs are thin."""
    twigs: list[Twig] = []
    todo = [(np.array(at), heading, length, thick_px)]
    while todo:
        start, angle, reach, thick = todo.pop()
        bends = angle + np.cumsum(0.12 * rng.standard_normal(6))
        steps = reach / 6 * np.stack([np.cos(bends), np.sin(bends)], 1)
        line = np.vstack([start, start + np.cumsum(steps, 0)])
        twigs.append((line, thick))
        if thick > 1.4:
            turns = [side * rng.uniform(0.3, 0.75) for side in (-1, 1)]
            todo += [(line[-1], angle + turn, reach * 0.78, thick * 0.68) for turn in turns]
    return twigs


def pose(scene: Scene, rng: Rng, turn: float = 0.09, bend_px: float = 1.8) -> Scene:
    """Turn, shift, scale and bend a scene at random, the same way for both its fields."""
    size = scene.grey.shape
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j].astype(np.float32)
    angle, zoom = turn * rng.uniform(-1, 1), rng.uniform(0.98, 1.04)
    cos, sin, bend = np.cos(angle), np.sin(angle), 2 * bend_px / FRAME
    across = (
        zoom * (cos * x - sin * y) + rng.uniform(-0.03, 0.03) + bend * clouds(size, rng, (4, 4))
    )
    down = zoom * (sin * x + cos * y) + rng.uniform(-0.03, 0.03) + bend * clouds(size, rng, (4, 4))
    column = ((across + 1) / 2 * (size[1] - 1)).astype(np.float32)
    row = ((down + 1) / 2 * (size[0] - 1)).astype(np.float32)
    both = np.dstack([scene.grey, scene.tissue])
    grey, tissue = cv2.split(
        cv2.remap(both, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )
    return Scene(np.asarray(grey, np.float32), np.asarray(tissue, np.float32))


def lesion_area(tissue: Field, rng: Rng, stretch: float = 1.0, foci: int = 1) -> Mask:
    """Where the lesion lies [H, W]: ragged blobs inside the tissue, ``stretch`` times wider than high."""
    inside = tissue > 0.5
    depth = inner_distance(inside)
    rows, columns = np.nonzero(depth >= 0.45 * depth.max())
    y, x = np.indices(tissue.shape, np.float32) / np.array(tissue.shape, np.float32)[:, None, None]
    away = np.full(tissue.shape, np.inf, np.float32)
    for pick in rng.integers(len(rows), size=foci):
        right, down = x - columns[pick] / tissue.shape[1], y - rows[pick] / tissue.shape[0]
        angle, ratio = rng.uniform(-0.3, 0.3), stretch * rng.uniform(0.75, 1.35)
        along, beside = (
            np.cos(angle) * right + np.sin(angle) * down,
            np.cos(angle) * down - np.sin(angle) * right,
        )
        away = np.minimum(away, np.hypot(along, ratio * beside))
    away *= np.exp(
        0.12 * clouds(tissue.shape, rng, (8, 8)) + 0.05 * clouds(tissue.shape, rng, (24, 24))
    )
    count = min(rng.uniform(*LESION_AREA) * inside.size, 0.8 * inside.sum())
    mask = inside & (away <= np.partition(away[inside], int(count))[int(count)])
    core = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    )
    return core > 0  # without the crumbs and threads


def infiltrate(
    grey: Field, mask: Mask, rng: Rng, keep: float, shift: Span = SHIFT, strength: float = 1.0
) -> None:
    """Give ``grey`` the lesion texture in place; ``keep`` of the structure under it stays.

    The mean level moves by an amount drawn from ``shift``, and rim and core differ a little, either way.
    """
    cover = soften(mask.astype(np.uint8) * 255, 2.2)
    rim = np.exp(-inner_distance(mask) * FRAME / grey.shape[0] / 5)
    level = (
        blur(grey, 12)
        + rng.uniform(*shift)
        + 0.08 * rng.standard_normal() * (rim - rim[mask].mean())
    )
    texture = strength * rng.uniform(*LESION_GRAIN) * grains(grey.shape, rng)
    lay(grey, cover, keep * grey + (1 - keep) * level + texture)


def expose(grey: Field, rng: Rng, noise: float = 0.012) -> Image:
    """The finished image [H, W, 3] uint8: uneven light, contrast, brightness and noise are drawn for each image."""
    light = 1 + 0.07 * clouds(grey.shape, rng, (3, 3))
    toned = np.clip(grey * light, 0, 1) ** rng.uniform(0.85, 1.2) * rng.uniform(0.8, 1.08)
    speck = blur(rng.standard_normal(grey.shape, np.float32), 0.7)
    toned += noise * rng.uniform(0.6, 1.4) * speck / speck.std()
    return np.repeat((np.clip(toned, 0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def finish(
    scene: Scene, rng: Rng, abnormal: bool, keep: float, foci: int = 1, shift: Span = SHIFT
) -> tuple[Image, Mask]:
    """Pose, lesion and exposure, which the objects other than retina and stained tissue share."""
    scene = pose(scene, rng)
    mask = np.zeros(scene.grey.shape, bool)
    if abnormal:
        mask = lesion_area(scene.tissue, rng, foci=foci)
        infiltrate(scene.grey, mask, rng, keep, shift)
    return expose(scene.grey, rng), mask


def stain(pink: Field, blue: Field, rng: Rng) -> Image:
    """The image [H, W, 3] uint8 seen through tissue that holds so much eosin and haematoxylin."""
    strength = rng.uniform(0.8, 1.25, 2)
    pink, blue = np.clip(pink, 0, 2)[..., None], np.clip(blue, 0, 2)[..., None]
    density = strength[0] * pink * EOSIN + strength[1] * blue * HAEMATOXYLIN
    light = rng.uniform(0.9, 1.0) * (1 + 0.02 * clouds(density.shape[:2], rng, (3, 3)))
    seen = np.exp(-1.3 * density) * light[..., None] + 0.008 * rng.standard_normal(
        density.shape, np.float32
    )
    return (np.clip(seen, 0, 1) * 255).round().astype(np.uint8)
