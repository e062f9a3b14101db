"""Painters of synthetic images: anatomy-like images of seven objects, with or without a lesion.

Every painter returns an image [H, W, 3] uint8 RGB and a mask [H, W] bool, True on the lesion.
Positions are (x, y) pairs from -1 to 1 along both sides of the image, x to the right and y down;
lengths named `*_px` are pixels of the image scaled to 240 x 240 (see synthetic/brushes.py).
"""

from collections.abc import Callable

import cv2
import numpy as np

from synthetic.brushes import (
    Field,
    Image,
    Mask,
    Points,
    Rng,
    Scene,
    Size,
    area,
    blur,
    branches,
    clouds,
    curve,
    expose,
    finish,
    grains,
    infiltrate,
    inner_distance,
    lay,
    lesion_area,
    oval,
    stain,
    stroke,
)

Picture = tuple[Image, Mask]

# Grey values over the depth of the retina, both in hundredths: depth 0 is its inner limit, 100 the
# outer end of the pigment epithelium.
# fmt: off
DEPTHS = np.array([
    -30, -1, 2, 10, 14, 31, 35, 43, 46, 52, 56, 79,
    81, 83, 86, 90, 92, 94, 100, 105, 125, 180, 240,
])
GREYS = np.array([
    6, 7, 60, 62, 47, 50, 33, 33, 48, 48, 29, 29,
    40, 32, 68, 68, 50, 86, 86, 55, 45, 22, 8,
])
# fmt: on


def gyri(size: Size, rng: Rng) -> tuple[Field, Field]:
    """Draw the folds of the cortex, two fields [H, W].

    A wave along the rim, 1 in the furrows, and the depth of the furrows, about 1.
    """
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j].astype(np.float32)
    angle = np.arctan2(y, x) / (2 * np.pi)
    reach = np.hypot(x, y)
    turns = (angle + 0.5) * 32 - 0.5
    coarse = [
        np.pad(rng.standard_normal((across, 32), np.float32), ((0, 0), (2, 2)), "wrap")
        for across in (7, 3)
    ]
    swing, deep = (
        cv2.remap(
            c, turns + 2, reach / 1.5 * (len(c) - 1), cv2.INTER_CUBIC, None, cv2.BORDER_REFLECT
        )
        for c in coarse
    )
    return np.cos(2 * np.pi * int(rng.integers(20, 27)) * angle + 2.4 * swing), 1 + 0.35 * deep


def brain(rng: Rng, abnormal: bool) -> Picture:
    """Paint an axial T2-like slice.

    Scalp, dark skull, bright fluid, folded cortex, white matter, nuclei and ventricles.
    """
    size = (240, 240)
    csf = rng.uniform(0.8, 0.95)  # grey value of the fluid
    head = oval((0, 0), (rng.uniform(0.84, 0.89), rng.uniform(0.93, 0.97)), rng, 0.006)
    grey = 0.5 * area(size, head, 1.2)
    lay(grey, area(size, head * 0.955, 1.2), 0.1)
    inner = area(size, head * 0.90, 1.2)
    lay(grey, inner, csf * 0.8)
    brain_cover = area(size, head * 0.875, 1.5)
    depth = inner_distance(brain_cover > 0.5)
    wave, deep = gyri(size, rng)
    white = 1 / (1 + np.exp(-(depth - 10 - 6 * wave * deep) / 1.6))
    lay(grey, brain_cover, 0.6 - rng.uniform(0.14, 0.2) * white)
    furrow = np.clip(wave, 0, 1) ** 7 * np.exp(
        -((depth / (rng.uniform(10, 13) * np.clip(deep, 0.3, 2))) ** 2)
    )
    lay(grey, blur(furrow * brain_cover, 0.7), csf * 0.9)
    nuclei_and_ventricles(grey, rng, csf)
    scene = Scene(grey, area(size, head * 0.84, 1.0))
    return finish(scene, rng, abnormal, keep=0.4, shift=(-0.15, 0.02))


def nuclei_and_ventricles(grey: Field, rng: Rng, csf: float) -> None:
    """Paint the inner parts of the brain in place, nearly symmetric."""
    size = grey.shape
    wide = rng.uniform(0.8, 1.5)
    tall = rng.uniform(0.85, 1.15)
    midline = np.array([[0, -0.82], [0.01, -0.4], [0, 0.3], [-0.01, 0.8]])
    midline = midline + rng.normal(0, 0.006, (4, 2))
    lay(grey, 0.7 * stroke(size, [(midline, 2.0)], 1.0), csf * 0.85)
    for side in (-1, 1):
        nucleus = oval((side * 0.31, -0.06), (0.085, 0.2), rng, 0.06, side * 0.25)
        lay(grey, 0.8 * area(size, nucleus, 2.0), 0.5)
        thalamus = oval((side * 0.14, 0.13), (0.1, 0.13), rng, 0.05)
        lay(grey, 0.8 * area(size, thalamus, 2.0), 0.53)
        front = (
            [3, 5, 13 * wide, 20 * wide, 16 * wide, 9 * wide],
            [-12, -30, -46 * tall, -46 * tall, -28, -5],
        )
        back = (
            [12, 18 * wide, 27 * wide, 30 * wide, 22 * wide, 15],
            [30, 32, 45 * tall, 62 * tall, 55 * tall, 42],
        )
        for x, y in (front, back):
            lay(grey, area(size, curve(x, y, rng, 0.008) * (side, 1), 1.3), csf)
    lay(grey, 0.8 * area(size, oval((0, 0.12), (0.018, 0.12), rng, 0.05), 1.2), csf)


def liver(rng: Rng, abnormal: bool) -> Picture:
    """Paint an axial CT-like slice of the upper abdomen, the liver on the left of the image."""
    size = (256, 256)
    grey = np.full(size, 0.03, np.float32)
    body = oval((0, 0.02), (0.955, 0.93), rng, 0.008)
    lay(grey, area(size, body, 1.3), 0.24)
    lay(grey, area(size, body * rng.uniform(0.91, 0.95), 1.5), 0.42)
    lay(grey, area(size, body * 0.86, 2.0), 0.22)
    torso(grey, body, rng)
    level = rng.uniform(0.41, 0.48)
    x = [-10, 22, 42, 20, -2, -12, -30, -52, -74, -86, -80, -52]
    y = [-62, -58, -42, -20, 0, 22, 42, 62, 46, 10, -28, -58]
    edge = curve(x, y, rng, 0.018)
    organ = area(size, edge, 1.5)
    inner = area(size, edge.mean(0) + 0.93 * (edge - edge.mean(0)), 1.0)
    lay(grey, organ, level + 0.012 * clouds(size, rng, (20, 20)))
    vessels = branches((-0.1, 0.08), np.pi + rng.uniform(-0.1, 0.5), rng, 0.34, 4.5)
    vessels += branches((-0.15, -0.05), -2.2 + rng.uniform(-0.2, 0.2), rng, 0.26, 3.5)
    lay(grey, stroke(size, vessels, 0.9) * organ, level + rng.uniform(0.1, 0.2))
    foci = int(rng.integers(1, 3))
    return finish(Scene(grey, inner), rng, abnormal, keep=0.4, foci=foci, shift=(-0.11, 0.03))


def torso(grey: Field, body: Points, rng: Rng) -> None:
    """Paint what surrounds the liver in place, within the outline `body` [96, 2]."""
    size = (grey.shape[0], grey.shape[1])
    stomach = oval((0.5, -0.25), (0.3, 0.27), rng, 0.06, 0.4)
    lay(grey, area(size, stomach, 1.8), rng.uniform(0.34, 0.5))
    air = oval((0.52, -0.38), (0.18, 0.1), rng, 0.08)
    lay(grey, area(size, air, 1.5), 0.05)
    spleen = oval((0.68, 0.25), (0.13, 0.28), rng, 0.06, 0.2)
    lay(grey, area(size, spleen, 1.5), rng.uniform(0.48, 0.56))
    for side in (-1, 1):
        kidney = oval((side * 0.34, 0.52), (0.13, 0.17), rng, 0.05, side * 0.5)
        lay(grey, area(size, kidney, 1.5), 0.6)
        muscle = oval((side * 0.24, 0.72), (0.18, 0.12), rng, 0.05)
        lay(grey, area(size, muscle, 2.0), 0.42)
    vertebra = oval((0, 0.5), (0.17, 0.15), rng, 0.04)
    lay(grey, area(size, vertebra, 1.5), 0.84)
    process = oval((0, 0.68), (0.06, 0.13), rng, 0.04)
    lay(grey, area(size, process, 1.5), 0.8)
    canal = oval((0, 0.66), (0.05, 0.05), rng, 0.04)
    lay(grey, area(size, canal, 1.2), 0.4)
    aorta = oval((0.1, 0.27), (0.075, 0.075), rng, 0.04)
    lay(grey, area(size, aorta, 1.3), rng.uniform(0.66, 0.86))
    vena_cava = oval((-0.08, 0.2), (0.09, 0.06), rng, 0.04)
    lay(grey, area(size, vena_cava, 1.3), 0.56)
    for k in range(int(rng.integers(0, 6)), 96, 8):  # cross-sections of ribs along the body wall
        x, y = 0.885 * body[k]
        along = body[(k + 3) % 96] - body[k - 3]
        rib = oval((x, y), (0.075, 0.03), rng, 0.05, np.arctan2(along[1], along[0]))
        lay(grey, area(size, rib, 1.2), 0.82)


def retina(size: Size, rng: Rng, abnormal: bool) -> Picture:
    """Paint an OCT scan: dark vitreous, the layered retina with the foveal pit, fading choroid."""
    across = np.linspace(-1, 1, size[1], dtype=np.float32)
    fovea = rng.uniform(-0.25, 0.25)
    focus = rng.uniform(-0.4, 0.4)
    height = rng.uniform(0.2, 0.4)
    slope = rng.uniform(-0.1, 0.1)
    outer = height + slope * across + rng.uniform(-0.12, 0.05) * across**2
    outer = outer + 0.012 * clouds((1, size[1]), rng, (1, 6))[0]
    pit = np.exp(-(((across - fovea) / rng.uniform(0.16, 0.24)) ** 2)) * rng.uniform(0.35, 0.48)
    thick = rng.uniform(0.68, 0.8) * (1 - 0.1 * np.abs(across - fovea))
    drusen = abnormal and rng.random() < 0.4
    if abnormal:
        swell = np.exp(-(((across - focus) / rng.uniform(0.3, 0.5)) ** 2))
        pit = pit * (1 - 0.8 * swell)
        thick = thick * (1 + rng.uniform(0.05, 0.2) * swell)
    if drusen:
        for at in focus + rng.uniform(-0.35, 0.35, 4):
            height = rng.uniform(0.04, 0.1)
            bump = height * np.exp(-(((across - at) / rng.uniform(0.05, 0.09)) ** 2))
            outer = outer - bump
            thick = thick - 0.8 * bump
    down = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    depth = 1 - (outer - down) / (thick * (1 - pit))
    depth = np.where(depth > 0, pit + (1 - pit) * depth, depth)
    # relative depths that may be abnormal: fluid lies between the layers, drusen below them
    middle = 0.7 if drusen else 0.49
    reach = 0.3 if drusen else 0.41
    tissue = (np.abs(depth - middle) < reach * (1 - ((across - focus) / 0.75) ** 4)) & abnormal
    return scan(depth.astype(np.float32), tissue.astype(np.float32), rng)


def scan(depth: Field, tissue: Field, rng: Rng) -> Picture:
    """Paint a retina from each pixel's relative depth [H, W]; `tissue` [H, W] is 0 if normal."""
    size = (depth.shape[0], depth.shape[1])
    grey = np.interp(100 * depth, DEPTHS, GREYS / 100).astype(np.float32)
    choroid = np.clip((depth - 1.05) * 8, 0, 1) * np.clip(2 - depth, 0, 1)
    grey += 0.07 * choroid * clouds(size, rng, (30, 30))
    across = np.linspace(-1, 1, size[1])
    for at in rng.uniform(-0.95, 0.95, int(rng.integers(2, 5))):  # shadows of vessels
        shade = np.exp(-(((across - at) / rng.uniform(0.02, 0.04)) ** 2)).astype(np.float32)
        grey *= 1 - rng.uniform(0.1, 0.3) * shade * np.clip(8 * depth, 0, 1)
    grey *= 1 + 0.05 * clouds(size, rng, (90, 90))
    grey = blur(grey, 0.8)
    mask = np.zeros(size, bool)
    if tissue.any():
        mask = lesion_area(tissue, rng, stretch=2.4)
        infiltrate(grey, mask, rng, keep=0.3, strength=1.2)
        holes = np.clip(2 * clouds(size, rng, (26, 14)) - 1.4, 0, 1) * blur(mask, 1.5)
        grey *= 1 - rng.uniform(0.1, 0.4) * holes
    return expose(grey, rng, noise=0.018), mask


def chest(rng: Rng, abnormal: bool) -> Picture:
    """Paint a frontal X-ray: dark lungs, ribs, bright heart, spine, diaphragm and shoulders."""
    size = (320, 320)
    grey = np.full(size, 0.04, np.float32)
    x = [-20, -24, -70, -105, -100, -100, 100, 100, 105, 70, 24, 20]
    y = [-130, -90, -72, -50, 20, 130, 130, 20, -50, -72, -90, -130]
    lay(grey, area(size, curve(x, y, rng, 0.012), 4), 0.5)
    lay(grey, stroke(size, [(np.array([[0, -1.1], [0.0, 1.1]]), 34)], 6), rng.uniform(0.64, 0.72))
    level = rng.uniform(0.2, 0.28)
    lungs = np.zeros(size, np.float32)
    x = [34, 20, 17, 20, 46, 80, 80, 70, 54]
    y = [-74, -55, -10, 42, 44, 60, 15, -35, -68]
    for side in (-1, 1):
        lung = area(size, curve(x, y, rng, 0.02) * (side, 1) + (0, 0.03 * side), 3)
        lay(grey, lung, level)
        heading = np.pi / 2 - side * rng.uniform(1.1, 1.5)
        twigs = branches((side * 0.2, -0.05), heading, rng, 0.24, 4.5)
        heading = np.pi / 2 - side * rng.uniform(0.4, 0.8)
        twigs += branches((side * 0.2, 0.02), heading, rng, 0.24, 4.5)
        grey += 0.1 * lung * stroke(size, twigs, 1.8)
        lungs += lung
    x = [-10, 10, 24, 42, 44, 20, -14, -24]
    y = [-20, -16, 0, 24, 42, 52, 48, 22]
    heart = area(size, curve(x, y, rng, 0.02) * rng.uniform(0.95, 1.1), 3.5)
    lay(grey, heart, rng.uniform(0.66, 0.74))
    bones(grey, rng)
    scene = Scene(grey, np.clip(lungs - heart, 0, 1))
    foci = int(rng.integers(1, 3))
    return finish(scene, rng, abnormal, keep=0.5, foci=foci, shift=(-0.02, 0.14))


def bones(grey: Field, rng: Rng) -> None:
    """Paint ribs, collar bones, windpipe and diaphragm of the chest in place."""
    size = (grey.shape[0], grey.shape[1])
    diaphragm = [[-1, 0.75], [-0.4, 0.55], [0, 0.6], [0.4, 0.6], [1, 0.8], [1, 1.2], [-1, 1.2]]
    lay(grey, 0.6 * area(size, np.array(diaphragm), 6), 0.82)
    lay(grey, 0.45 * stroke(size, [(np.array([[0, -1.0], [0.01, -0.25]]), 8)], 3), 0.45)
    ribs = []
    step = rng.uniform(0.155, 0.175)
    slope = rng.uniform(0.08, 0.2)
    for side in (-1, 1):
        for start in -0.72 + step * np.arange(8):
            reach = np.linspace(0, 1, 20)
            wide = 0.82 - 0.35 * np.clip(-0.35 - start, 0, 1)
            drop = start - 0.08 * np.sin(np.pi * reach) + slope * reach + 0.25 * reach**4
            ribs.append((np.stack([side * (0.1 + wide * reach**0.9), drop], 1), 6.5))
    grey += 0.13 * stroke(size, ribs, 1.8) * np.clip(0.85 - grey, 0, 1) * (grey > 0.1)
    collars = [
        (np.array([[s * 0.1, -0.54], [s * 0.35, -0.6], [s * 0.72, -0.68]]), 8) for s in (-1, 1)
    ]
    grey += 0.14 * stroke(size, collars, 2.0) * (grey > 0.1)


def cells(
    size: Size, rng: Rng, gap: float, radius: tuple[float, float], within: Mask | None = None
) -> Field:
    """Draw cell nuclei [H, W], 0 to 1 (dark), about `gap` pixels apart.

    `radius` is the range of their radii in pixels; `within` is a mask they lie in (None: anywhere).
    """
    canvas = np.zeros(size, np.float32)
    grid = np.mgrid[0 : size[0] : gap, 0 : size[1] : gap].reshape(2, -1).T
    spots = grid + rng.uniform(-0.55, 0.55, grid.shape) * gap
    shapes = rng.uniform((radius[0], 0.6, 0, 0.55), (radius[1], 1.0, 180, 1.0), (len(spots), 4))
    if within is not None:
        rows, columns = np.clip(spots, 0, np.array(size) - 1).astype(int).T
        spots, shapes = spots[within[rows, columns]], shapes[within[rows, columns]]
    both = np.hstack([spots, shapes])
    for row, column, long, flat, turn, dark in both.tolist():
        place = (int(column * 16), int(row * 16))
        axes = (int(long * 16), int(long * flat * 16))
        cv2.ellipse(canvas, place, axes, turn, 0, 360, dark, -1, cv2.LINE_8, 4)
    return blur(canvas, 0.9)


def histopathology(rng: Rng, abnormal: bool) -> Picture:
    """Paint stained tissue: pink fibres, small nuclei, pale gaps; abnormal: many large nuclei."""
    size = (256, 256)
    fibres = clouds(size, rng, (14, 40) if rng.random() < 0.5 else (40, 14))
    pink = 0.42 + 0.05 * clouds(size, rng, (7, 7)) + 0.03 * fibres
    blue = 0.08 + 0.05 * np.clip(clouds(size, rng, (4, 4)), 0, 2)
    nuclei = cells(size, rng, rng.uniform(15, 19), (2.2, 3.2))
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(-0.9, 0.9, 2).tolist()
        wide, tall = rng.uniform(0.08, 0.22, 2).tolist()
        gap = area(size, oval((x, y), (wide, tall), rng, 0.12), 2.0)
        pink = pink * (1 - 0.85 * gap)
        blue = blue * (1 - gap)
        nuclei = nuclei * (1 - gap)
    blue = blue + 0.75 * nuclei
    mask = np.zeros(size, bool)
    if abnormal:
        mask = lesion_area(np.ones(size, np.float32), rng, foci=int(rng.integers(1, 4)))
        cover = blur(mask, 2)
        crowd = cells(size, rng, 6.5, (2.4, 4.2), within=mask) + 0.12 * grains(size, rng)
        pale = rng.uniform(0.0, 0.1)
        lay(pink, cover, 0.22)
        lay(blue, cover, pale + 0.7 * crowd)
    return stain(pink, blue, rng), mask


def skin(rng: Rng, abnormal: bool) -> Picture:
    """Paint skin: pink with furrows and small moles; abnormal: a ragged dark patch."""
    size = (256, 256)
    pink = 0.30 + 0.03 * clouds(size, rng, (6, 6)) + 0.02 * clouds(size, rng, (60, 60))
    blue = 0.05 + 0.015 * np.clip(clouds(size, rng, (5, 5)), 0, 2)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.8, 0.8, 2).tolist()
        radius = rng.uniform(0.03, 0.07)
        mole = area(size, oval((x, y), (radius, radius), rng, 0.04), 2.5)
        pink = pink + 0.3 * mole
        blue = blue + 0.25 * mole
    mask = np.zeros(size, bool)
    if abnormal:
        mask = lesion_area(np.ones(size, np.float32), rng)
        cover = blur(mask, 2)
        lay(pink, cover, 0.5 + 0.1 * grains(size, rng))
        lay(blue, cover, 0.35 + 0.12 * grains(size, rng))
    return stain(pink, blue, rng), mask


PAINTERS: dict[str, Callable[[Rng, bool], Picture]] = {
    "Brain": brain,
    "Liver": liver,
    "Retina_RESC": lambda rng, abnormal: retina((256, 512), rng, abnormal),
    "Retina_OCT2017": lambda rng, abnormal: retina((248, 256), rng, abnormal),
    "Chest": chest,
    "Histopathology": histopathology,
    "Skin": skin,
}


def paint(name: str, rng: Rng, abnormal: bool) -> Picture:
    """Paint an image [H, W, 3] uint8 RGB of object `name`, and its mask [H, W] bool."""
    return PAINTERS[name](rng, abnormal)
