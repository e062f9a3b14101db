"""Panels of test images: what was shown, what is true, what was found (SPEC section 4).

Letters: S image side, H and W of a panel, all in pixels. Images are RGB, uint8.

Colours mean the same in every panel: maps are scaled over the whole test set, and so is their colour scale. A scale for
each image would paint the strongest spot of every normal image like a lesion; it is there if asked for, and says so.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mvfa.options import ORDERS
from utils import write_whole

Pixels = npt.NDArray[np.uint8]  # [H, W, 3]
Map = npt.NDArray[np.floating[Any]]  # [S, S], in [0, 1]
Mask = npt.NDArray[np.bool_]  # [S, S]

SCALE = (0.0, 1.0)  # the values at both ends of the colours, for maps scaled over the test set
LEAST_SIDE = 224  # smaller images are magnified by a whole number to at least this
PALETTE = cv2.COLORMAP_VIRIDIS
TRUE, FOUND = (0, 225, 255), (255, 140, 0)  # told apart by colour-blind readers too
TICKS = 5  # numbers at the colour bar
LABELS = ("normal", "abnormal")


@dataclass(frozen=True)
class Picture:
    """A test image and what was found in it. Raises ValueError if the parts are not of one size.

    `index` is its position in the test set, `rank` why it was chosen. `mask` is None where the object has no masks, and
    empty for its normal images where it has. `memory_map` is None in zero-shot.
    """

    index: int
    file: str
    label: int  # 1 abnormal
    score: float
    rank: str
    image: Pixels  # [S, S, 3]
    mask: Mask | None
    text_map: Map
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
        """The maps there are, by name: text, memory (few-shot only), final."""
        found = {"text": self.text_map, "memory": self.memory_map, "final": self.final_map}
        return {name: values for name, values in found.items() if values is not None}


def misranked(scores: Tensor, labels: Tensor) -> Tensor:
    """The share of the other class's images that each image is on the wrong side of: [n], [n] -> [n] float64 in [0, 1].

    For an abnormal image, the share of normal images that score higher; for a normal image, of abnormal images that
    score lower; equal scores count half. Its mean over either class is 1 - AUROC. 0 where there is no other class.
    """
    values, abnormal = scores.double().cpu(), labels.cpu() > 0
    share = torch.zeros_like(values)
    for label, own in enumerate((~abnormal, abnormal)):
        rivals = values[~own].sort().values
        if len(rivals):
            below, up_to = (
                torch.searchsorted(rivals, values[own], right=right) for right in (False, True)
            )
            lower, pairs = (
                below + up_to,
                2 * len(rivals),
            )  # counted in halves: equal shares are equal to the last bit
            share[own] = (pairs - lower if label else lower).double() / pairs
    return share


def choose(
    scores: Tensor, labels: Tensor, count: int, order: str, generator: torch.Generator | None = None
) -> list[int]:
    """Indices of up to `count` images, in the order asked for; all of them if there are fewer.

    scores [n] in [0, 1], labels [n], 1 abnormal. "worst": by `misranked`, most first, which needs no threshold; where
    that is equal, by |label - score|, largest first; then by index. So each class comes by score (abnormal: lowest
    first, normal: highest first). "best": least first in both, then by index. "random": a permutation that `generator`
    draws, so that a smaller count gives the beginning of a larger one. Raises ValueError for another order, a negative
    count, or "random" without a generator.
    """
    if order not in ORDERS or count < 0 or (order == "random" and generator is None):
        raise ValueError(
            f"{count} images, order {order!r}; allowed: {', '.join(ORDERS)} (random with a generator)"
        )
    if order == "random":
        return torch.randperm(len(scores), generator=generator)[:count].tolist()
    sign = -1 if order == "worst" else 1
    share = (sign * misranked(scores, labels)).tolist()
    gap = (sign * (labels.double().cpu() - scores.double().cpu()).abs()).tolist()
    return sorted(range(len(scores)), key=lambda index: (share[index], gap[index], index))[:count]


def colours(values: Map, scale: tuple[float, float]) -> Pixels:
    """A map in colours, [S, S] -> [S, S, 3]; values beyond the ends of the scale get the colour of the end."""
    low, high = scale
    unit = (values - low) / (high - low) if high > low else np.zeros_like(values)
    grey = np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(grey, PALETTE)[..., ::-1], np.uint8)


def border(region: Mask, width: int = 1) -> Mask:
    """The outermost pixels of a region that belong to it, along its holes and the edge of the image too: [S, S]."""
    inner = cv2.erode(
        region.astype(np.uint8),
        np.ones((3, 3), np.uint8),
        iterations=width,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0,),
    )
    return region & ~inner.astype(bool)


def magnify(pixels: Any, factor: int) -> Any:
    """Each pixel `factor` times in both directions: [S, S, ...] -> [factor S, factor S, ...]."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def paint(image: Pixels, region: Mask, colour: tuple[int, int, int], opacity: float) -> Pixels:
    """The image with a region in a colour: opacity 1 hides the image."""
    full = np.full_like(image, colour)
    mixed = cv2.addWeighted(full, opacity, image, 1 - opacity, 0)
    return np.where(region[..., None], mixed, image).astype(np.uint8)


def columns(picture: Picture, threshold: float, scale: tuple[float, float]) -> dict[str, Pixels]:
    """The images of a panel by title, each [z S, z S, 3], z the factor that brings S to at least LEAST_SIDE."""
    factor = -(-LEAST_SIDE // len(picture.image))
    image = magnify(picture.image, factor)
    true = None if picture.mask is None else magnify(picture.mask, factor)
    marked = image
    shown = {"image": image, "true mask": image}
    if true is not None:
        shown["true mask"] = paint(paint(image, true, TRUE, 0.4), border(true), TRUE, 1.0)
        marked = paint(image, border(true, 2), TRUE, 1.0)
    shown |= {
        f"{name} map": magnify(colours(values, scale), factor)
        for name, values in picture.maps().items()
    }
    found = border(magnify(picture.final_map >= threshold, factor), 2)
    return shown | {"contours": paint(marked, found, FOUND, 1.0)}


def shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its end after dots, so that it is at most `width` pixels wide."""
    start = 0
    while font.getlength(text if not start else f"...{text[start:]}") > width and start < len(text):
        start += 1
    return text if not start else f"...{text[start:]}"


class Sheet:
    """A white panel that fills from left to right: a row of titles, a row of images, two lines of caption."""

    def __init__(self, side: int, count: int) -> None:
        font = ImageFont.load_default(size=max(15, side // 16))
        assert isinstance(font, ImageFont.FreeTypeFont)
        self.font, self.side = font, side
        self.unit = round(font.size)  # pixels; every distance is measured in it
        self.top = 2 * self.unit
        self.gap = self.unit // 2
        width = self.gap + count * (side + self.gap) + 5 * self.unit
        self.canvas = Image.new("RGB", (width, self.top + side + 4 * self.unit), "white")
        self.draw = ImageDraw.Draw(self.canvas)
        self.left = self.gap

    def text(self, x: float, y: float, text: str, anchor: str, fill: str = "black") -> None:
        """Text at a point; the anchor is Pillow's."""
        self.draw.text((x, y), text, fill=fill, font=self.font, anchor=anchor)

    def column(self, title: str, pixels: Pixels, note: str = "") -> None:
        """An image under its title, with a note on it."""
        self.canvas.paste(Image.fromarray(pixels), (self.left, self.top))
        self.text(self.left + self.side / 2, self.top - self.gap, title, "ms")
        if note:
            middle = self.left + self.side / 2, self.top + self.side / 2
            left, top, right, bottom = self.draw.textbbox(middle, note, font=self.font, anchor="mm")
            self.draw.rectangle(
                [left - self.gap, top - self.gap, right + self.gap, bottom + self.gap], "black"
            )
            self.text(*middle, note, "mm", "white")
        self.left += self.side + self.gap

    def bar(self, scale: tuple[float, float]) -> None:
        """The colour bar, largest value on top, with its numbers."""
        ramp = np.linspace(1, 0, self.side)[:, None].repeat(self.unit, axis=1)
        self.canvas.paste(Image.fromarray(colours(ramp, (0, 1))), (self.left, self.top))
        for share in np.linspace(0, 1, TICKS):
            y = self.top + (1 - share) * (self.side - 1)
            value = scale[0] + share * (scale[1] - scale[0])
            self.draw.line([(self.left + self.unit, y), (self.left + 1.3 * self.unit, y)], "black")
            self.text(self.left + 1.6 * self.unit, y, f"{value:.3f}", "lm")

    def caption(
        self, first: str, second: Sequence[tuple[str, tuple[int, int, int] | None]]
    ) -> None:
        """A line that is cut at its left if it is too long, and a line of parts, each after a square of its colour."""
        y, x = self.top + self.side + self.unit, float(self.gap)
        self.text(
            x, y, shorten(first, self.font, self.left - 2 * self.gap), "lm"
        )  # not below the bar's lowest number
        y += round(1.6 * self.unit)
        for text, colour in second:
            if colour is not None:
                self.draw.rectangle(
                    [x, y - self.unit / 2, x + self.unit, y + self.unit / 2], colour, "black"
                )
                x += 1.4 * self.unit
            self.text(x, y, text, "lm")
            x += self.font.getlength(text) + 1.4 * self.unit


def panel(picture: Picture, threshold: float, scale: tuple[float, float] | None = SCALE) -> Pixels:
    """One image's panel, [H, W, 3]: image, true mask, text, memory (few-shot) and final map, contours, colour bar.

    The last column outlines final_map >= threshold and, over the image, the true mask. `scale` holds the values at both
    ends of the colours; None takes this image's own range, which the caption then says.
    """
    used = scale
    if used is None:
        values = np.stack(list(picture.maps().values()))
        used = float(values.min()), float(values.max())
    shown = columns(picture, threshold, used)
    sheet = Sheet(len(shown["image"]), len(shown))
    note = "no mask" if picture.mask is None else "" if picture.mask.any() else "empty mask"
    for title, pixels in shown.items():
        sheet.column(title, pixels, note if title == "true mask" else "")
    sheet.bar(used)
    about = (
        f"{LABELS[picture.label]}, score {picture.score:.3f}, threshold of the map {threshold:.3f}"
    )
    colouring = (
        "colours: this image's own range, not comparable"
        if scale is None
        else "colours: as in every panel"
    )
    legend = [
        (about, None),
        ("final map >= threshold", FOUND),
        ("true mask", TRUE),
        (colouring, None),
    ]
    sheet.caption(
        picture.file,
        legend if picture.mask is not None else [part for part in legend if part[1] != TRUE],
    )
    return np.asarray(sheet.canvas)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An RGB or grey image as a PNG file."""
    done, encoded = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    assert done
    return encoded.tobytes()


def npz(arrays: dict[str, npt.NDArray[np.float32]]) -> bytes:
    """Arrays as an .npz file whose bytes depend on the arrays alone: no time stamp, no compressor's version."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.save(member, values, allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue()
            )
    return file.getvalue()


def write_pictures(
    folder: Path,
    chosen: Sequence[Picture],
    threshold: float,
    scale: tuple[float, float] | None = SCALE,
) -> list[dict[str, Any]]:
    """Write the files of each picture to folder/pictures; returns what a page needs of each, in the same order.

    <index> has five digits: <index>.png the panel, <index>-image.png, <index>-map.png the final map in 8-bit grey (255
    is 1), <index>-mask.png (0 or 255) where the object has masks, <index>.npz the maps `text`, `memory` (few-shot) and
    `final` [S, S] float32. Paths in the result are relative to `folder`; "mask" is None where there is none.
    """
    written = []
    for picture in chosen:
        maps = {
            name: np.ascontiguousarray(values, np.float32)
            for name, values in picture.maps().items()
        }
        grey = np.rint(255 * np.clip(maps["final"], 0, 1)).astype(np.uint8)
        files = {
            "panel": (".png", png(panel(picture, threshold, scale))),
            "image": ("-image.png", png(picture.image)),
            "map": ("-map.png", png(grey)),
            "arrays": (".npz", npz(maps)),
        }
        if picture.mask is not None:
            files["mask"] = ("-mask.png", png(picture.mask.astype(np.uint8) * 255))
        about = {
            "file": picture.file,
            "label": picture.label,
            "score": picture.score,
            "rank": picture.rank,
        }
        entry: dict[str, Any] = about | {"mask": None}
        for kind, (ending, content) in files.items():
            path = f"pictures/{picture.index:05d}{ending}"
            write_whole(folder / path, partial(Path.write_bytes, data=content))
            entry[kind] = path
        written.append(entry)
    return written
