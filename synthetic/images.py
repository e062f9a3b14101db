"""A synthetic demo dataset in the layout of the benchmark, to try the whole program without medical images.

<root>/data/<name>_AD/{valid,test}/{good,Ungood}/img/NNN.png
<root>/data/<name>_AD/{valid,test}/Ungood/anomaly_mask/NNN.png    objects with masks: 8-bit grey, 0 or 255
<root>/fewshot_seed/<name>/<K>-shot.txt                           names of K normal and K abnormal valid images
<root>/data/pictures.png                                          some of each object's images
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image as PILImage
from torchvision.utils import save_image

from dataset.catalog import CATALOG
from synthetic.anatomy import PAINTERS, paint
from synthetic.brushes import Image, Mask

__all__ = ["paint", "picture", "write_demo"]

LABELS = ("good", "Ungood")


def generator(*key: object) -> np.random.Generator:
    """The random numbers that belong to a key, the same in every run and whatever else is drawn."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, key)).encode()))


def picture(
    name: str, split: str, label: str, index: int, *, seed: int, size: int | None = None
) -> tuple[Image, Mask]:
    """One picture of the dataset: image [H, W, 3] uint8 RGB, and mask [H, W] bool, True on the lesion.

    It depends on the arguments alone. ``size`` is the height to scale to, with the shape of the image kept.
    """
    image, mask = paint(name, generator(seed, name, split, label, index), label == "Ungood")
    if size is None:
        return image, mask
    shape = round(image.shape[1] * size / image.shape[0]), size
    cover = cv2.resize(mask.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), np.uint8), np.asarray(
        cover > 0.5
    )


def write_images(
    data: Path, name: str, split: str, label: str, count: int, *, seed: int, size: int | None
) -> None:
    """Write ``count`` images of one split and label, and their masks if the object has masks, below ``data``."""
    folder = data / f"{name}_AD" / split / label
    with_masks = label == "Ungood" and CATALOG[name].masks
    for kind in ("img", "anomaly_mask") if with_masks else ("img",):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image, mask = picture(name, split, label, index, seed=seed, size=size)
        PILImage.fromarray(image).save(folder / "img" / f"{index:03d}.png", compress_level=1)
        if with_masks:
            PILImage.fromarray(mask.astype(np.uint8) * 255).save(
                folder / "anomaly_mask" / f"{index:03d}.png", compress_level=1
            )


def write_shots(folder: Path, name: str, valid: int, shots: Sequence[int], *, seed: int) -> None:
    """Write the lists of the few images to learn from; a longer list starts with the shorter ones."""
    folder.mkdir(parents=True, exist_ok=True)
    orders = [generator(seed, name, "shots", label).permutation(valid) for label in LABELS]
    for count in shots:
        if count > valid:
            continue
        lines = [
            f"{tag}-0: " + " ".join(f"{index:03d}.png" for index in order[:count])
            for tag, order in zip("na", orders, strict=True)
        ]
        (folder / f"{count}-shot.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_sheet(path: Path, *, seed: int, side: int = 180) -> None:
    """Write one picture of the dataset: a row an object, two normal and two abnormal test images, as squares."""
    pictures = [
        cv2.resize(
            picture(name, "test", label, index, seed=seed)[0],
            (side, side),
            interpolation=cv2.INTER_AREA,
        )
        for name in PAINTERS
        for label in LABELS
        for index in range(2)
    ]
    save_image(
        torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255, path, nrow=4, padding=4
    )


def write_demo(
    root: Path,
    *,
    seed: int = 111,
    valid: int = 16,
    test: int = 24,
    shots: Sequence[int] = (2, 4, 8, 16),
    size: int | None = None,
) -> None:
    """Write the demo dataset for all objects below ``root``.

    ``valid`` and ``test`` count the normal and the abnormal images each. ``size`` is the height of the images in
    pixels, or None for the painted size of each object (240 to 320). An image depends only on the seed, its object,
    split, label and number, so asking for more images leaves the others as they are.
    """
    for name in PAINTERS:
        for split, count in (("valid", valid), ("test", test)):
            for label in LABELS:
                write_images(root / "data", name, split, label, count, seed=seed, size=size)
        write_shots(root / "fewshot_seed" / name, name, valid, shots, seed=seed)
    write_sheet(root / "data" / "pictures.png", seed=seed)
