"""Pictures of a run as data URIs, for pages that need no other file.

`drawn` says which pictures can be shown; the other functions are for these.

Letters: H, W height and width of an image, S side of a scored image, in pixels.
"""

import base64
import io
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.files import opened
from errors import UserError
from mvfa.panels import Pixels, colours, outline, overlay
from mvfa.run_files import PICTURES

MIME_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
QUALITY = 75  # of WebP images; a 240 px image takes about 5 kB
PANEL_QUALITY = 60
PANEL_WIDTH = 1_400  # pixels; a page shows panels at 1080 at most
BAR_WIDTH = 256  # pixels of the colour bar
ENDINGS: Mapping[str, tuple[str, ...]] = {  # of a picture's files that are shown
    "image": ("-image.png",),
    "map": ("-map.png",),
    "mask": ("-mask.png",),
    "panel": (".png", ".jpg"),
}
LARGEST = 2**25  # bytes of a file
WIDEST = 2**14  # pixels of a side; a panel is five images wide

Entry = Mapping[str, Any]  # of one picture, in metrics.json


def data_uri(content: bytes, mime: str) -> str:
    """Return a file's content as a data URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def problem_of(folder: Path, kind: str, name: str) -> str:
    """Return why a picture of a run in a folder cannot be shown, "" if it can.

    The run may be a stranger's: the file must lie in the run's folder of pictures, not behind a
    link, be an image, and not be larger than a page's pictures are.
    """
    path = folder / name
    try:
        if not (name.isprintable() and name.endswith(ENDINGS[kind])):
            return f"{name!a} is no name of its {kind}"
        if path.resolve() != folder.resolve() / PICTURES / path.name:
            return f"{path} is not in the run's folder of pictures"
        if path.stat().st_size > LARGEST:
            return f"{path} has more than {LARGEST} bytes"
        with opened(path) as image:
            if max(image.size) > WIDEST:
                return f"{path} is wider or higher than {WIDEST} pixels"
            image.load()
    except (UserError, OSError, RuntimeError):  # the last: a circle of links
        return f"{path} cannot be read"
    return ""


@cache  # a page asks several times
def tell(problem: str) -> None:
    """Say that a picture cannot be shown."""
    remedy = "remove the folder of this run, and make it again"
    print(f"note: a picture is left out: {problem}; {remedy}", file=sys.stderr)


def drawn(folder: Path, metrics: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of those pictures of a run whose files can be shown.

    A remark on standard error names each one that is left out.
    """
    shown = []
    for entry in metrics.get("pictures") or []:
        found = (
            problem_of(folder, kind, entry[kind]) for kind in ENDINGS if entry[kind] is not None
        )
        problem = next(filter(None, found), "")
        if problem:
            tell(problem)
        else:
            shown.append(entry)
    return shown


def file_uri(path: Path) -> str:
    """Return a picture's file as a data URI."""
    return data_uri(path.read_bytes(), MIME_TYPES[path.suffix])


def read_image(path: Path, mode: str) -> npt.NDArray[np.uint8]:
    """Read an image file that can be shown: mode "RGB" [S, S, 3], mode "L" [S, S]."""
    with opened(path) as image:
        return np.asarray(image.convert(mode), np.uint8)


def webp_uri(pixels: Pixels, quality: int = QUALITY) -> str:
    """Return an RGB image [H, W, 3] as the data URI of a WebP file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", quality=quality)
    return data_uri(file.getvalue(), MIME_TYPES[".webp"])


def panel_uri(path: Path) -> str:
    """Return a panel as a data URI, PANEL_WIDTH wide at most."""
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
    """Return a picture's image as a data URI."""
    return webp_uri(read_image(folder / entry["image"], "RGB"))


def embedded(folder: Path, entry: Entry) -> dict[str, Any]:
    """Return a picture's entry with its image, map, mask and panel as data URIs.

    Maps and masks are embedded as they are, since the page computes with them.
    """
    uris = {
        "image_uri": image_uri(folder, entry),
        "map_uri": file_uri(folder / entry["map"]),
        "mask_uri": file_uri(folder / entry["mask"]) if entry["mask"] else None,
        "panel_uri": panel_uri(folder / entry["panel"]),
    }
    return dict(entry) | uris


def truth_uri(folder: Path, entry: Entry) -> tuple[str | None, str]:
    """Return a picture's image with the outline of its true mask as a data URI.

    None and the reason in words where there is nothing to outline.
    """
    if not entry["mask"]:
        return None, "no mask"
    mask = read_image(folder / entry["mask"], "L") > 0
    if not mask.any():
        return None, "empty mask"
    return webp_uri(outline(read_image(folder / entry["image"], "RGB"), mask)), ""


def overlay_uri(folder: Path, entry: Entry) -> str:
    """Return a picture's image with its final map in colours over it, as a data URI."""
    image = read_image(folder / entry["image"], "RGB")
    values = read_image(folder / entry["map"], "L") / 255
    return webp_uri(overlay(image, values))
