"""Pictures of the page: the gallery, and heat maps over images. Files are embedded as data URIs."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from errors import UserError
from mvfa.panels import LABELS, Pixels, colours, outline, overlay
from mvfa.pictures import jpeg
from report.study import DONE, Cell, Study, TableSpec, number

MIDDLE = 0.5  # the threshold of a run that recorded none
MIME_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}
BAR_WIDTH = 256  # pixels of the colour bar

Entry = Mapping[str, Any]  # of one picture, in metrics.json


def data_uri(content: bytes, mime: str) -> str:
    """Return a file's content as a data URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def unreadable(path: Path) -> UserError:
    """Return the error for a picture that cannot be read."""
    return UserError(f"{path} cannot be read; remove its folder and run the command again")


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


def jpeg_uri(pixels: Pixels) -> str:
    """Return an RGB image [H, W, 3] as the data URI of a JPEG file."""
    return data_uri(jpeg(pixels), MIME_TYPES[".jpg"])


def colour_bar_uri() -> str:
    """Return a colour bar from 0 (left) to 1 as a data URI."""
    ramp = np.linspace(0, 1, BAR_WIDTH)[None].repeat(8, axis=0)
    return jpeg_uri(colours(ramp))


def has_pictures(cell: Cell) -> bool:
    """Return whether a cell is done and has pictures."""
    return cell.state == DONE and cell.folder is not None and bool(cell.metrics.get("pictures"))


def gallery_cells(study: Study) -> list[Cell]:
    """Return the runs that the gallery shows.

    The first run of each cell of the tables with heat maps; without such tables, of each object.
    """
    chosen: dict[tuple[str, ...], Cell] = {}
    heat_maps = any(spec.heat_maps for spec in study.specs)
    for spec, row, obj, cells in study.groups():
        if heat_maps and not spec.heat_maps:
            continue
        for cell in filter(has_pictures, cells):
            chosen.setdefault((spec.name, row, obj) if heat_maps else (obj,), cell)
    return list(chosen.values())


def gallery_picture(folder: Path, entry: Entry) -> dict[str, Any]:
    """Return a picture's entry with its files as data URIs; the image is embedded as JPEG."""
    uris = {
        "image_uri": jpeg_uri(read_image(folder / entry["image"], "RGB")),
        "map_uri": file_uri(folder / entry["map"]),
        "mask_uri": file_uri(folder / entry["mask"]) if entry["mask"] else None,
        "panel_uri": file_uri(folder / entry["panel"]),
    }
    return dict(entry) | uris


def gallery(study: Study) -> list[dict[str, Any]]:
    """Return for each run shown: its name, its threshold in [0, 1], and its pictures."""
    runs = []
    for cell in gallery_cells(study):
        assert cell.folder is not None
        threshold = number(cell.metrics.get("threshold"))
        pictures = [gallery_picture(cell.folder, entry) for entry in cell.metrics["pictures"]]
        runs.append(
            {
                "label": cell.label,
                "threshold": MIDDLE if threshold is None else threshold,
                "pictures": pictures,
            }
        )
    return runs


def heat_map(folder: Path, entry: Entry) -> dict[str, Any]:
    """Return a picture's entry with the data URIs of image, true mask outline, and map over image.

    "mask_note" says why there is no outline.
    """
    image = read_image(folder / entry["image"], "RGB")
    values = read_image(folder / entry["map"], "L") / 255
    mask = read_image(folder / entry["mask"], "L") > 0 if entry["mask"] else None
    outlined = mask is not None and bool(mask.any())
    return dict(entry) | {
        "image_uri": jpeg_uri(image),
        "mask_uri": jpeg_uri(outline(image, mask)) if mask is not None and outlined else None,
        "mask_note": "" if outlined else "no mask" if mask is None else "empty mask",
        "overlay_uri": jpeg_uri(overlay(image, values)),
    }


def first_pictures(cell: Cell | None) -> dict[str, dict[str, Any]]:
    """Return the heat maps of a run's first abnormal and first normal picture, by label."""
    if cell is None or cell.folder is None:
        return {}
    entries: dict[str, Entry] = {}
    for entry in cell.metrics["pictures"]:
        entries.setdefault(LABELS[entry["label"]], entry)
    return {label: heat_map(cell.folder, entry) for label, entry in entries.items()}


def heat_map_rows(study: Study, spec: TableSpec) -> list[dict[str, Any]]:
    """Return a table of heat maps: for each object and label, one picture for each row of `spec`.

    Abnormal images come first. A picture is None where the run has none; objects without any
    picture are left out. Empty unless the table has heat maps.
    """
    rows = []
    for obj in spec.objects if spec.heat_maps else ():
        runs = [
            first_pictures(next(filter(has_pictures, study.at(spec.name, row, obj)), None))
            for row in spec.rows
        ]
        lines = [
            {"label": label, "pictures": [run.get(label) for run in runs]}
            for label in reversed(LABELS)
            if any(label in run for run in runs)
        ]
        if lines:
            rows.append({"object": obj, "lines": lines})
    return rows
