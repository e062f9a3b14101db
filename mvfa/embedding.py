"""Pictures of a run as data URIs, for pages that need no other file.

Letters: H, W height and width of an image, S side of a scored image, in pixels.
"""

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from errors import UserError
from mvfa.panels import Pixels, colours, outline, overlay

MIME_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
QUALITY = 75  # of WebP images; a 240 px image takes about 5 kB
PANEL_QUALITY = 60
PANEL_WIDTH = 1_400  # pixels; a page shows panels at 1080 at most
BAR_WIDTH = 256  # pixels of the colour bar

Entry = Mapping[str, Any]  # of one picture, in metrics.json


def data_uri(content: bytes, mime: str) -> str:
    """Return a file's content as a data URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def unreadable(path: Path) -> UserError:
    """Return the error for a picture that cannot be read."""
    return UserError(f"{path} cannot be read; remove its folder and run the command again")


def inside(folder: Path, name: str) -> Path:
    """Return the file of a picture that metrics.json names. UserError unless it is in the folder.

    It may name any file of the system, and a page with its content may be given away.
    """
    path = folder / name
    plain = name.isprintable() and path.suffix in MIME_TYPES
    if not plain or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        allowed = "allowed are PNG, JPEG and WebP files below that folder"
        raise UserError(f"{folder} names {name!r} as a picture; {allowed}; run the test again")
    return path


def file_uri(path: Path) -> str:
    """Return a picture's file as a data URI. UserError if it cannot be read."""
    try:
        return data_uri(path.read_bytes(), MIME_TYPES[path.suffix])
    except OSError as error:
        raise unreadable(path) from error


def read_image(path: Path, mode: str) -> npt.NDArray[np.uint8]:
    """Read an image file: mode "RGB" [S, S, 3], mode "L" [S, S]. UserError if it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode), np.uint8)
    except OSError as error:
        raise unreadable(path) from error


def webp_uri(pixels: Pixels, quality: int = QUALITY) -> str:
    """Return an RGB image [H, W, 3] as the data URI of a WebP file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", quality=quality)
    return data_uri(file.getvalue(), MIME_TYPES[".webp"])


def panel_uri(path: Path) -> str:
    """Return a panel as a data URI, PANEL_WIDTH wide at most. UserError if it cannot be read."""
    panel = Image.fromarray(read_image(path, "RGB"))
    if panel.width > PANEL_WIDTH:
        height = round(panel.height * PANEL_WIDTH / panel.width)
        panel = panel.resize((PANEL_WIDTH, height), Image.Resampling.LANCZOS)
    return webp_uri(np.asarray(panel), PANEL_QUALITY)


def colour_bar_uri() -> str:
    """Return a colour bar from 0 (left) to 1 as a data URI."""
    ramp = np.linspace(0, 1, BAR_WIDTH)[None].repeat(8, axis=0)
    return webp_uri(colours(ramp))


def image_uri(folder: Path, entry: Entry) -> str:
    """Return a picture's image as a data URI. UserError if it cannot be read."""
    return webp_uri(read_image(inside(folder, entry["image"]), "RGB"))


def embedded(folder: Path, entry: Entry) -> dict[str, Any]:
    """Return a picture's entry with its image, map, mask and panel as data URIs.

    Maps and masks are embedded as they are, since the page computes with them.
    """
    uris = {
        "image_uri": image_uri(folder, entry),
        "map_uri": file_uri(inside(folder, entry["map"])),
        "mask_uri": file_uri(inside(folder, entry["mask"])) if entry["mask"] else None,
        "panel_uri": panel_uri(inside(folder, entry["panel"])),
    }
    return dict(entry) | uris


def truth_uri(folder: Path, entry: Entry) -> tuple[str | None, str]:
    """Return a picture's image with the outline of its true mask as a data URI.

    None and the reason in words where there is nothing to outline.
    """
    if not entry["mask"]:
        return None, "no mask"
    mask = read_image(inside(folder, entry["mask"]), "L") > 0
    if not mask.any():
        return None, "empty mask"
    return webp_uri(outline(read_image(inside(folder, entry["image"]), "RGB"), mask)), ""


def overlay_uri(folder: Path, entry: Entry) -> str:
    """Return a picture's image with its final map in colours over it, as a data URI."""
    image = read_image(inside(folder, entry["image"]), "RGB")
    values = read_image(inside(folder, entry["map"]), "L") / 255
    return webp_uri(overlay(image, values))
