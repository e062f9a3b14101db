"""An invented study for tests of the report: small pictures, missing and failed cells."""

from pathlib import Path

import numpy as np
from PIL import Image

from report.study import DONE, FAILED, MISSING, Cell, Published, Source, Study, TableSpec

SIDE = 24
NASTY = "ValueError: <script>alert('x')</script> | \"quoted\" & more"
REASON = "no shot list dataset/fewshot_seed/Liver/4-shot.txt"
FEW = "MVFA, 4-shot"
RECIPE = {"options": {"recipe": {"select": "test"}}}


def write_pictures(folder: Path, masks: bool) -> list[dict]:
    """Write three test images with a map that rises from left to right; return their entries."""
    (folder / "pictures").mkdir(parents=True)
    rise = np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))
    entries = []
    for index, rank in enumerate(("worst", "best", "random")):
        stem = f"pictures/{index:04d}"
        grey = np.full((SIDE, SIDE, 3), 60 + 40 * index, np.uint8)
        truth = np.zeros((SIDE, SIDE), np.uint8)
        truth[8:16, 12:20] = 255 * (index != 1)
        for name, values in (("image", grey), ("map", rise), ("mask", truth)):
            Image.fromarray(values).save(folder / f"{stem}-{name}.png")
        Image.fromarray(np.concatenate([grey] * 4, axis=1)).resize((8 * SIDE * 4, 8 * SIDE)).save(
            folder / f"{stem}.png"
        )
        paths = {"panel": f"{stem}.png", "image": f"{stem}-image.png", "map": f"{stem}-map.png"}
        paths["mask"] = f"{stem}-mask.png" if masks else None
        entries.append(
            {
                "file": f"X_AD/test/Ungood/img/{index}.png",
                "label": int(index != 1),
                "score": 0.25 * index,
            }
        )
        entries[-1] |= {"rank": rank, **paths}
    return entries


def branch(auroc: float, interval: bool, pixel: bool) -> dict:
    """Make the detailed metrics of one branch."""
    fpr = np.linspace(0, 1, 200)
    roc = np.stack([fpr, fpr ** (1 / auroc - 1)], axis=1).tolist()
    pr = np.stack([fpr, 1 - (1 - auroc) * fpr], axis=1).tolist()
    shared = {
        "auroc": auroc,
        "average_precision": auroc - 0.01,
        "threshold": 0.4,
        "roc": roc,
        "pr": pr,
    }
    if pixel:
        return shared | {"aupro": auroc - 0.05, "dice": auroc - 0.3}
    bounds = {"auroc": [auroc - 0.02, auroc + 0.01], "average_precision": [auroc - 0.03, auroc]}
    return shared | {
        "best_f1": auroc - 0.02,
        "sensitivity": auroc - 0.03,
        "specificity": auroc - 0.04,
        "interval": bounds if interval else None,
    }


def branches(auroc: float, memory: bool, interval: bool = False, pixel: bool = False) -> dict:
    """Make the detailed metrics of all three branches."""
    return {
        "text": branch(auroc - 0.04, interval, pixel),
        "memory": branch(auroc - 0.06, interval, pixel) if memory else None,
        "both": branch(auroc, interval, pixel),
    }


def done(table: str, row: str, obj: str, image: float, pixel: float | None, **more) -> Cell:
    """Make a done cell with the given AUROCs (fractions)."""
    memory = more.pop("memory", True)
    folder = more.pop("folder", None)
    metrics = {
        "image_auroc": image,
        "pixel_auroc": pixel,
        "details": {
            "image": branches(image, memory, interval=True),
            "pixel": None if pixel is None else branches(pixel, memory, pixel=True),
        },
        "threshold": 0.4371,
        "pictures": write_pictures(folder, pixel is not None) if folder else [],
    }
    selections = {
        way: {
            "epoch": epoch,
            "image_auroc": image - loss,
            "pixel_auroc": None if pixel is None else pixel - loss,
        }
        for way, epoch, loss in (("test", 3, 0.0), ("valid", 5, 0.0125), ("last", 49, 0.02))
    }
    run = {"seed": 111, "draw": 0} | more
    training = {"selections": selections} | RECIPE
    return Cell(
        table, row, obj, **run, state=DONE, metrics=metrics, training=training, folder=folder
    )


def paper(
    row: str, table: str, shot: str, method: str = "MVFA", readme: str | None = None
) -> Published:
    """Say where the published results of a row are."""
    implementation = Source(readme, shot, "MVFA (implementation)") if readme else None
    return Published(row, Source(table, shot, method), implementation)


def invented(folder: Path, demo: bool = False) -> Study:
    """Make the study; `folder` gets its pictures."""
    shots = (2, 4, 8)
    curve = tuple(f"K = {k}" for k in shots)
    published = [
        paper(row, "Table 1" if k == 4 else "Figure 3", str(k))
        for row, k in zip(curve, shots, strict=True)
    ]
    specs = (
        TableSpec(
            "table1",
            "Table 1: few-shot",
            "Four normal and four abnormal images of each object.",
            (FEW,),
            published=(paper(FEW, "Table 1", "4", readme="README few-shot"),),
        ),
        TableSpec(
            "figure3",
            "Figure 3: number of shots",
            "AUROC over K.",
            curve,
            ("Chest", "Brain"),
            published=tuple(published),
            shots=shots,
        ),
        TableSpec(
            "skin", "Addition: skin", "An object that the paper has not.", ("zero-shot",), ("Skin",)
        ),
    )
    cells = [
        done("table1", FEW, "Brain", 0.92, 0.97, seed=111, folder=folder / "brain"),
        done("table1", FEW, "Brain", 0.94, 0.96, seed=112),
        Cell("table1", FEW, "Brain", 113, 0, FAILED, NASTY),
        done("table1", FEW, "Chest", 0.8123, None, folder=folder / "chest"),
        Cell("table1", FEW, "Liver", 111, 0, MISSING, REASON),
        Cell("table1", FEW, "Retina_RESC", 111, 0, FAILED, NASTY),
        done("skin", "zero-shot", "Skin", 0.7, None, memory=False),
    ]
    for gain, row in enumerate(curve):
        cells += [
            done("figure3", row, "Chest", 0.70 + 0.05 * gain + 0.01 * seed, None, seed=111 + seed)
            for seed in range(2)
        ]
        cells += [done("figure3", row, "Brain", 0.80 + 0.05 * gain, 0.9 + 0.02 * gain)]
    settings = {
        "options": {"seeds": [111, 112], "recipe": {"keep": 0.8, "note": "<b>"}},
        "versions": {"python": "3.11.0", "torch": "2.6.0"},
        "weights": {"file": "ViT-demo.pt", "sha256": "0" * 64},
    }
    return Study(
        "Invented study", demo, specs, tuple(cells), "python reproduce.py --tables table1", settings
    )
