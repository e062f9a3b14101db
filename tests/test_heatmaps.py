"""A sheet has a row a run: an abnormal and a normal image with truth and heat map."""

import json

import numpy as np
from PIL import Image

from mvfa.heatmaps import GAP, SIDE, TITLES, TOP, write_heatmaps


def write_run(folder, grey: int) -> None:
    """Write what a test leaves of two images: a grey square, a map and a mask of its upper half."""
    (folder / "pictures").mkdir(parents=True)
    half = np.zeros((24, 24), np.uint8)
    half[:12] = 255
    entries = []
    for index, label in enumerate((0, 1)):
        names = {part: f"pictures/{index:05d}-{part}.png" for part in ("image", "map", "mask")}
        names["panel"] = f"pictures/{index:05d}.jpg"
        for part in ("image", "panel"):
            Image.new("L", (24, 24), grey).save(folder / names[part])
        for part in ("map", "mask"):
            Image.fromarray(half * label).save(folder / names[part])
        entries.append({"file": "a.png", "label": label, "score": 0.5, "rank": "worst", **names})
    metrics = {"image_auroc": 0.5, "pictures": entries}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_rows_are_runs_and_abnormal_images_come_first(tmp_path):
    for name, grey in (("a", 40), ("b", 200)):
        write_run(tmp_path / name, grey)
    write_heatmaps(tmp_path / "new" / "sheet.png", [tmp_path / "a", tmp_path / "b"])
    with Image.open(tmp_path / "new" / "sheet.png") as file:
        sheet = np.asarray(file.convert("RGB")).astype(int)
    step = SIDE + GAP
    assert sheet.shape == (TOP + 2 * step, 2 * len(TITLES) * step + GAP, 3)

    def tile(row: int, column: int) -> np.ndarray:
        top = TOP + row * step
        left = GAP + column * step
        return sheet[top : top + SIDE, left : left + SIDE]

    assert abs(tile(0, 0).mean() - 40) < 5
    assert abs(tile(1, 0).mean() - 200) < 5
    upper, lower = np.split(tile(0, 2), 2)
    assert abs(upper.mean(axis=(0, 1)) - lower.mean(axis=(0, 1))).max() > 50  # the lesion's map
    upper, lower = np.split(tile(0, 5), 2)
    assert abs(upper.mean(axis=(0, 1)) - lower.mean(axis=(0, 1))).max() < 5  # a normal image
