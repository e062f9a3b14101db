"""One picture of several runs: test images, their true masks, and heat maps over the images.

Letters: S image side in pixels. Images are RGB, uint8.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mvfa.embedding import Entry, drawn, read_image
from mvfa.panels import Pixels, outline, overlay
from mvfa.run_files import load_metrics
from utils import write_whole

TITLES = ("image", "true mask", "heat map")
SIDE = 200  # of a tile
TOP = 30  # pixels above the tiles, for the titles
GAP = 6  # pixels between tiles


def read_tiles(folder: Path, entry: Entry) -> list[Pixels]:
    """Return image, image with the outline of the true mask, and overlay, each [S, S, 3]."""
    image = read_image(folder / entry["image"], "RGB")
    values = read_image(folder / entry["map"], "L") / 255
    mask = read_image(folder / entry["mask"], "L") > 127
    return [image, outline(image, mask, width=1), overlay(image, values)]


def write_heatmaps(path: Path, runs: Sequence[Path]) -> None:
    """Write a sheet with an abnormal and a normal image of each run side by side, a row a run.

    `runs` are output folders of tests that have drawn pictures, of objects with masks.
    """
    rows = []
    for folder in runs:
        entries = drawn(folder, load_metrics(folder) or {})
        chosen = [next(e for e in entries if e["label"] == label) for label in (1, 0)]
        rows.append([tile for entry in chosen for tile in read_tiles(folder, entry)])
    step = SIDE + GAP
    columns = 2 * len(TITLES)
    sheet = Image.new("RGB", (columns * step + GAP, TOP + len(rows) * step), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    for column in range(columns):
        kind = "abnormal" if column < len(TITLES) else "normal"
        title = TITLES[column % len(TITLES)]
        text = f"{kind} {title}" if title == "image" else title
        draw.text((GAP + column * step + SIDE / 2, TOP / 2), text, "black", font, anchor="mm")
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            scaled = Image.fromarray(tile).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(scaled, (GAP + column * step, TOP + row * step))
    reduced = sheet.quantize(256)
    write_whole(path, lambda part: reduced.save(part, "PNG", optimize=True))
