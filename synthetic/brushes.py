"""Building blocks of the synthetic images: soft shapes, noise, vessels, lesion texture, exposure.

Positions are (x, y) pairs from -1 to 1 along both sides of the image, x to the right and y down.
Lengths named `*_px` are pixels of the image scaled to 240 x 240, about the size a detector uses.

Lesions differ from their surroundings by texture, not by brightness: they have the same fine
mottled grain in all objects, and their mean grey value is shifted up or down at random. So what is
learned about lesions of five objects applies to the sixth.

Letters: H, W image height and width in pixels.
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
Twig = tuple[Points, float]  # line [n, 2], thickness in px
Size = tuple[int, int]  # height, width
Span = tuple[float, float]

# optical densities of haematoxylin and eosin in (red, green, blue)
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.10, 0.85, 0.35], np.float32)
FRAME = 240  # side in px
LESION_AREA = (0.04, 0.11)  # fraction of the image
LESION_GRAIN = (0.05, 0.085)  # standard deviation of the lesion texture, grey values from 0 to 1
SHIFT = (-0.06, 0.06)  # of the mean grey value in a lesion


@dataclass
class Scene:
    """An unfinished image."""

    grey: Field  # [H, W] in 0..1
    tissue: Field  # [H, W] in 0..1: where a lesion may be


def blur(field: npt.NDArray[Any], sigma: float) -> Field:
    """Blur a field [H, W] by a Gaussian of `sigma` pixels."""
    blurred = cv2.GaussianBlur(field.astype(np.float32, copy=False), (0, 0), sigma)
    return np.asarray(blurred, np.float32)


def inner_distance(mask: Mask) -> Field:
    """Compute the distance [H, W] in pixels to the mask's edge for pixels inside, 0 outside."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(distance, np.float32)


def clouds(size: Size, rng: Rng, cells: tuple[int, int]) -> Field:
    """Draw smooth noise [H, W] of mean 0 and deviation 1 with `cells` (down, across) bumps."""
    coarse = rng.standard_normal(cells, np.float32)
    field = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def grains(size: Size, rng: Rng) -> Field:
    """Draw the lesion texture [H, W]: mean 0, deviation about 1, grains of 2 to 4 px.

    Its contrast varies over the image.
    """
    fine, coarse = rng.standard_normal((2, FRAME, FRAME), np.float32)
    band = blur(fine, 1.1) - blur(fine, 2.4) + 1.3 * (blur(coarse, 1.8) - blur(coarse, 3.6))
    clipped = np.clip(band / band.std(), -2.2, 2.2)
    field = cv2.resize(clipped, size[::-1], interpolation=cv2.INTER_CUBIC)
    return field / field.std() * np.clip(1 + 0.3 * clouds(size, rng, (12, 12)), 0.5, 1.5)


def curve(x: Sequence[float], y: Sequence[float], rng: Rng, jitter: float) -> Points:
    """Return a smooth closed line [96, 2] through corners given in hundredths.

    Each corner is displaced at random with deviation `jitter`.
    """
    corners = np.array([x, y]) / 100 + jitter * rng.standard_normal((2, len(x)))
    steps = np.arange(96)[None] * len(x) / 96
    line = [map_coordinates(side, steps, order=3, mode="grid-wrap") for side in corners]
    return np.stack(line, 1)  # 2 times [96] -> [96, 2]


def oval(
    at: tuple[float, float], radii: tuple[float, float], rng: Rng, wobble: float, turn: float = 0.0
) -> Points:
    """Return an ellipse-like closed line [96, 2] around `at`, turned by `turn` radians.

    Its radius varies with relative deviation `wobble`.
    """
    angle = np.linspace(0, 2 * np.pi, 11)[:-1]
    reach = 1 + wobble * rng.standard_normal(10)
    x = 100 * radii[0] * reach * np.cos(angle)
    y = 100 * radii[1] * reach * np.sin(angle)
    cos = np.cos(turn)
    sin = np.sin(turn)
    return curve((cos * x - sin * y).tolist(), (sin * x + cos * y).tolist(), rng, 0.0) + at


def to_pixels(size: Size, points: Points) -> npt.NDArray[np.int32]:
    """Convert positions to sixteenths of pixels, for `shift=4` of OpenCV's drawing functions."""
    return np.round((points + 1) / 2 * (np.array(size[::-1]) - 1) * 16).astype(np.int32)


def soften(mask: npt.NDArray[np.uint8], soft_px: float) -> Field:
    """Convert a 0/255 mask to a coverage [H, W] in 0..1 with edges blurred by `soft_px`."""
    down, across = (max(soft_px * side / FRAME, 0.3) for side in mask.shape)
    cover = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), sigmaX=across, sigmaY=down)
    return np.asarray(cover, np.float32)


def area(size: Size, points: Points, soft_px: float) -> Field:
    """Return the coverage [H, W] of the inside of a closed line."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [to_pixels(size, points)], 255, cv2.LINE_AA, 4)
    return soften(mask, soft_px)


def stroke(size: Size, lines: Sequence[Twig], soft_px: float) -> Field:
    """Return the coverage [H, W] of open lines, each with its thickness in px."""
    mask = np.zeros(size, np.uint8)
    for points, thick_px in lines:
        thick = max(1, round(thick_px * size[0] / FRAME))
        cv2.polylines(mask, [to_pixels(size, points)], False, 255, thick, cv2.LINE_AA, 4)
    return soften(mask, soft_px)


def lay(grey: Field, cover: Field, value: float | npt.NDArray[np.floating]) -> None:
    """Blend `value` into `grey` in place, weighted by the coverage `cover`."""
    grey += cover * (value - grey)


def branches(
    at: tuple[float, float], heading: float, rng: Rng, length: float, thick_px: float
) -> list[Twig]:
    """Draw a tree of vessels as (line, thickness) pairs.

    It starts at `at` in direction `heading` (radians) and forks until its twigs are thin.
    """
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
    """Turn, shift, scale and bend both fields of a scene at random, in the same way."""
    size = scene.grey.shape
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j].astype(np.float32)
    angle = turn * rng.uniform(-1, 1)
    zoom = rng.uniform(0.98, 1.04)
    cos = np.cos(angle)
    sin = np.sin(angle)
    bend = 2 * bend_px / FRAME
    shift = rng.uniform(-0.03, 0.03)
    across = zoom * (cos * x - sin * y) + shift + bend * clouds(size, rng, (4, 4))
    shift = rng.uniform(-0.03, 0.03)
    down = zoom * (sin * x + cos * y) + shift + bend * clouds(size, rng, (4, 4))
    column = ((across + 1) / 2 * (size[1] - 1)).astype(np.float32)
    row = ((down + 1) / 2 * (size[0] - 1)).astype(np.float32)
    both = np.dstack([scene.grey, scene.tissue])  # [H, W, 2]
    posed = cv2.remap(both, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    grey, tissue = cv2.split(posed)
    return Scene(np.asarray(grey, np.float32), np.asarray(tissue, np.float32))


def lesion_area(tissue: Field, rng: Rng, stretch: float = 1.0, foci: int = 1) -> Mask:
    """Draw a lesion [H, W]: `foci` ragged blobs in the tissue, `stretch` times as wide as high."""
    inside = tissue > 0.5
    depth = inner_distance(inside)
    rows, columns = np.nonzero(depth >= 0.45 * depth.max())
    y, x = np.indices(tissue.shape, np.float32) / np.array(tissue.shape, np.float32)[:, None, None]
    away = np.full(tissue.shape, np.inf, np.float32)
    for pick in rng.integers(len(rows), size=foci):
        right = x - columns[pick] / tissue.shape[1]
        down = y - rows[pick] / tissue.shape[0]
        angle = rng.uniform(-0.3, 0.3)
        ratio = stretch * rng.uniform(0.75, 1.35)
        along = np.cos(angle) * right + np.sin(angle) * down
        beside = np.cos(angle) * down - np.sin(angle) * right
        away = np.minimum(away, np.hypot(along, ratio * beside))
    coarse = clouds(tissue.shape, rng, (8, 8))
    fine = clouds(tissue.shape, rng, (24, 24))
    away *= np.exp(0.12 * coarse + 0.05 * fine)
    count = min(rng.uniform(*LESION_AREA) * inside.size, 0.8 * inside.sum())
    mask = inside & (away <= np.partition(away[inside], int(count))[int(count)])
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc) > 0  # no thin parts


def infiltrate(
    grey: Field, mask: Mask, rng: Rng, keep: float, shift: Span = SHIFT, strength: float = 1.0
) -> None:
    """Give `grey` the lesion texture in place, with weight `keep` for the structure below.

    The mean grey value is shifted by an amount drawn from `shift`; rim and core differ slightly.
    """
    cover = soften(mask.astype(np.uint8) * 255, 2.2)
    rim = np.exp(-inner_distance(mask) * FRAME / grey.shape[0] / 5)
    level = blur(grey, 12) + rng.uniform(*shift)
    level = level + 0.08 * rng.standard_normal() * (rim - rim[mask].mean())
    texture = strength * rng.uniform(*LESION_GRAIN) * grains(grey.shape, rng)
    lay(grey, cover, keep * grey + (1 - keep) * level + texture)


def expose(grey: Field, rng: Rng, noise: float = 0.012) -> Image:
    """Return the finished image [H, W, 3] uint8 with random lighting, contrast and noise."""
    light = 1 + 0.07 * clouds(grey.shape, rng, (3, 3))
    toned = np.clip(grey * light, 0, 1) ** rng.uniform(0.85, 1.2) * rng.uniform(0.8, 1.08)
    speck = blur(rng.standard_normal(grey.shape, np.float32), 0.7)
    toned += noise * rng.uniform(0.6, 1.4) * speck / speck.std()
    pixels = (np.clip(toned, 0, 1) * 255).round().astype(np.uint8)  # [H, W]
    return np.repeat(pixels[..., None], 3, axis=2)  # [H, W, 3]


def finish(
    scene: Scene, rng: Rng, abnormal: bool, keep: float, foci: int = 1, shift: Span = SHIFT
) -> tuple[Image, Mask]:
    """Pose a scene, add a lesion if abnormal, and expose it: image [H, W, 3] and mask [H, W]."""
    scene = pose(scene, rng)
    mask = np.zeros(scene.grey.shape, bool)
    if abnormal:
        mask = lesion_area(scene.tissue, rng, foci=foci)
        infiltrate(scene.grey, mask, rng, keep, shift)
    return expose(scene.grey, rng), mask


def stain(pink: Field, blue: Field, rng: Rng) -> Image:
    """Return the image [H, W, 3] uint8 of tissue stained with eosin (pink), haematoxylin (blue)."""
    strength = rng.uniform(0.8, 1.25, 2)
    eosin = strength[0] * np.clip(pink, 0, 2)[..., None] * EOSIN  # [H, W, 3]
    haematoxylin = strength[1] * np.clip(blue, 0, 2)[..., None] * HAEMATOXYLIN  # [H, W, 3]
    density = eosin + haematoxylin
    light = rng.uniform(0.9, 1.0) * (1 + 0.02 * clouds(density.shape[:2], rng, (3, 3)))
    noise = 0.008 * rng.standard_normal(density.shape, np.float32)
    seen = np.exp(-1.3 * density) * light[..., None] + noise
    return (np.clip(seen, 0, 1) * 255).round().astype(np.uint8)
