"""Panels of test images: the image, its true mask, and the anomaly maps (SPEC section 4).

Letters: S image side, H and W of a panel, all in pixels. Images are RGB, uint8.

Colours mean the same in every panel: maps are scaled over the whole test set, and so is their
colour scale. A scale for each image would paint the strongest spot of every normal image like a
lesion; it is there if asked for, and the panel says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]  # [H, W, 3]
Map = npt.NDArray[np.floating[Any]]  # [S, S], in [0, 1]
Mask = npt.NDArray[np.bool_]  # [S, S]
Colour = tuple[int, int, int]  # red, green, blue

SCALE = (0.0, 1.0)  # the values at both ends of the colours, for maps scaled over the test set
LEAST_SIDE = 224  # smaller images are magnified by a whole number to at least this
PALETTE = cv2.COLORMAP_VIRIDIS
OPACITY = (0.2, 0.9)  # of a map's colours over the image, at both ends of the scale
TRUE_COLOUR = (0, 225, 255)  # distinguishable by colour-blind readers too
MARKED_COLOUR = (255, 140, 0)
TICKS = 5  # numbers at the colour bar
LABELS = ("normal", "abnormal")


@dataclass(frozen=True)
class Picture:
    """A test image and its anomaly maps. Raises ValueError if the parts are not of one size.

    `index` is its position in the test set, `rank` the order that it was chosen by. `mask` is None
    where the object has no masks, and empty for its normal images where it has. `text_map` or
    `memory_map` is None where the method does not have that branch.
    """

    index: int
    file: str
    label: int  # 1 abnormal
    score: float
    rank: str
    image: Pixels  # [S, S, 3]
    mask: Mask | None
    text_map: Map | None
    memory_map: Map | None
    final_map: Map

    def __post_init__(self) -> None:
        size = self.final_map.shape
        parts = {"mask": self.mask, "text_map": self.text_map, "memory_map": self.memory_map}
        wrong = [name for name, part in parts.items() if part is not None and part.shape != size]
        if wrong or self.image.shape != (*size, 3) or self.image.dtype != np.uint8:
            got = f"image {self.image.shape} {self.image.dtype}, final map {size}"
            raise ValueError(f"{self.file}: {got}, another size: {', '.join(wrong) or 'none'}")

    def maps(self) -> dict[str, Map]:
        """Return the maps that exist, by name: text, memory, final."""
        maps = {"text": self.text_map, "memory": self.memory_map, "final": self.final_map}
        return {name: values for name, values in maps.items() if values is not None}


def unit_scale(values: Map, scale: tuple[float, float]) -> Map:
    """Return values [S, S] as shares of the scale, in [0, 1]; 0 where the scale has no range."""
    low, high = scale
    if high <= low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1)


def colours(values: Map, scale: tuple[float, float] = SCALE) -> Pixels:
    """Return a map in colours, [S, S] -> [S, S, 3].

    Values beyond the ends of the scale get the colour of the end.
    """
    grey = np.rint(255 * unit_scale(values, scale)).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(grey, PALETTE)[..., ::-1], np.uint8)


def overlay(image: Pixels, values: Map, scale: tuple[float, float] = SCALE) -> Pixels:
    """Return the image [S, S, 3] with a map [S, S] in colours over it.

    The opacity rises with the value (OPACITY), so that the image stays visible where it is low.
    """
    low, high = OPACITY
    opacity = (low + (high - low) * unit_scale(values, scale))[..., None]
    mixed = opacity * colours(values, scale) + (1 - opacity) * image
    return np.rint(mixed).astype(np.uint8)


def border(region: Mask, width: int = 1) -> Mask:
    """Return the outermost pixels of a region, along its holes and the image's edge too: [S, S]."""
    inner = cv2.erode(
        region.astype(np.uint8),
        np.ones((3, 3), np.uint8),
        iterations=width,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0,),
    )
    return region & ~inner.astype(bool)


def magnify(pixels: Any, factor: int) -> Any:
    """Repeat each pixel in both directions: [S, S, ...] -> [factor S, factor S, ...]."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def paint(image: Pixels, region: Mask, colour: Colour, opacity: float) -> Pixels:
    """Return the image with a region in a colour: opacity 1 hides the image."""
    full = np.full_like(image, colour)
    mixed = cv2.addWeighted(full, opacity, image, 1 - opacity, 0)
    return np.where(region[..., None], mixed, image).astype(np.uint8)


def outline(image: Pixels, mask: Mask, width: int = 2) -> Pixels:
    """Return the image with the outline of the true mask, `width` pixels wide."""
    return paint(image, border(mask, width), TRUE_COLOUR, 1.0)


def columns(picture: Picture, threshold: float, scale: tuple[float, float]) -> dict[str, Pixels]:
    """Return the images of a panel by title, each [z S, z S, 3].

    z is the smallest whole number that makes z S at least LEAST_SIDE.
    """
    factor = -(-LEAST_SIDE // len(picture.image))
    image = magnify(picture.image, factor)
    true_mask = image
    contours = image
    if picture.mask is not None:
        mask = magnify(picture.mask, factor)
        true_mask = paint(paint(image, mask, TRUE_COLOUR, 0.4), border(mask), TRUE_COLOUR, 1.0)
        contours = outline(image, mask)
    final = magnify(picture.final_map, factor)
    marked = border(final >= threshold, 2)
    maps = {
        f"{name} map": magnify(colours(values, scale), factor)
        for name, values in picture.maps().items()
    }
    return {
        "image": image,
        "true mask": true_mask,
        **maps,
        "overlay": overlay(image, final, scale),
        "contours": paint(contours, marked, MARKED_COLOUR, 1.0),
    }


def shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return the text, or its end after dots, so that it is at most `width` pixels wide."""
    start = 0
    while font.getlength(text if not start else f"...{text[start:]}") > width and start < len(text):
        start += 1
    return text if not start else f"...{text[start:]}"


class Sheet:
    """A white panel that fills from left to right: titles, images, and three lines of caption.

    Constructed for `count` images of `side` pixels. The font grows with the side, so that the text
    can still be read when the panel is shown at half its size.
    """

    def __init__(self, side: int, count: int) -> None:
        font = ImageFont.load_default(size=max(20, side // 10))
        assert isinstance(font, ImageFont.FreeTypeFont)
        self.font = font
        self.side = side
        self.unit = round(font.size)  # pixels; every distance is measured in it
        self.top = 2 * self.unit
        self.gap = self.unit // 2
        width = self.gap + count * (side + self.gap) + 5 * self.unit
        self.canvas = Image.new("RGB", (width, self.top + side + 6 * self.unit), "white")
        self.draw = ImageDraw.Draw(self.canvas)
        self.left = self.gap
        self.baseline = self.top + side + self.unit  # middle of the next caption line

    def text(self, x: float, y: float, text: str, anchor: str, fill: str = "black") -> None:
        """Draw text at a point; the anchor is Pillow's."""
        self.draw.text((x, y), text, fill=fill, font=self.font, anchor=anchor)

    def column(self, title: str, pixels: Pixels, note: str = "") -> None:
        """Add an image below its title, with a note on it."""
        self.canvas.paste(Image.fromarray(pixels), (self.left, self.top))
        self.text(self.left + self.side / 2, self.top - self.gap, title, "ms")
        if note:
            middle = self.left + self.side / 2, self.top + self.side / 2
            left, top, right, bottom = self.draw.textbbox(middle, note, font=self.font, anchor="mm")
            box = [left - self.gap, top - self.gap, right + self.gap, bottom + self.gap]
            self.draw.rectangle(box, "black")
            self.text(*middle, note, "mm", "white")
        self.left += self.side + self.gap

    def bar(self, scale: tuple[float, float]) -> None:
        """Add the colour bar, largest value on top, with its numbers."""
        ramp = np.linspace(1, 0, self.side)[:, None].repeat(self.unit, axis=1)
        self.canvas.paste(Image.fromarray(colours(ramp, (0, 1))), (self.left, self.top))
        for share in np.linspace(0, 1, TICKS):
            y = self.top + (1 - share) * (self.side - 1)
            value = scale[0] + share * (scale[1] - scale[0])
            self.draw.line([(self.left + self.unit, y), (self.left + 1.3 * self.unit, y)], "black")
            self.text(self.left + 1.6 * self.unit, y, f"{value:.2f}", "lm")

    def caption(self, parts: Sequence[tuple[str, Colour | None]]) -> None:
        """Add a line of texts, each after a square of its colour; long texts are cut at the left.

        The line ends before the colour bar, whose lowest number is at the height of the first line.
        """
        x = float(self.gap)
        y = self.baseline
        for text, colour in parts:
            if colour is not None:
                half = self.unit / 2
                self.draw.rectangle([x, y - half, x + self.unit, y + half], colour, "black")
                x += 1.4 * self.unit
            shown = shorten(text, self.font, int(self.left - self.gap - x))
            self.text(x, y, shown, "lm")
            x += self.font.getlength(shown) + 1.4 * self.unit
        self.baseline += round(1.6 * self.unit)


def panel(picture: Picture, threshold: float, scale: tuple[float, float] | None = SCALE) -> Pixels:
    """Return one image's panel, [H, W, 3].

    From left to right: image, true mask, text, memory (few-shot) and final map, the final map over
    the image, contours, colour bar. The contours outline final_map >= threshold and, over the
    image, the true mask. `scale` holds the values at both ends of the colours; None takes this
    image's own range, which the caption then says.
    """
    used = scale
    if used is None:
        values = np.stack(list(picture.maps().values()))
        used = float(values.min()), float(values.max())
    images = columns(picture, threshold, used)
    sheet = Sheet(len(images["image"]), len(images))
    note = "no mask" if picture.mask is None else "" if picture.mask.any() else "empty mask"
    for title, pixels in images.items():
        sheet.column(title, pixels, note if title == "true mask" else "")
    sheet.bar(used)
    about = f"{LABELS[picture.label]}, score {picture.score:.3f}"
    colouring = "this image's own range, not comparable" if scale is None else "as in every panel"
    sheet.caption([(picture.file, None)])
    sheet.caption([(f"{about}; threshold of the map {threshold:.3f}; colours {colouring}", None)])
    legend: list[tuple[str, Colour | None]] = [("final map >= threshold", MARKED_COLOUR)]
    if picture.mask is not None:
        legend.append(("true mask", TRUE_COLOUR))
    sheet.caption(legend)
    return np.asarray(sheet.canvas)
