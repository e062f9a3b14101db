"""A synthetic dataset in the layout of the benchmark, to run the whole program without real images.

    <root>/data/<name>_AD/{valid,test}/{good,Ungood}/img/NNN.png
    <root>/data/<name>_AD/{valid,test}/Ungood/anomaly_mask/NNN.png   masks: 8-bit grey, 0 or 255
    <root>/fewshot_seed/<name>/<K>-shot.txt                          names of K + K valid images
    <root>/data/pictures.png                                         some of each object's images

With a depth, see synthetic/depths.py, `<case>_<slice>.png` stands in place of `NNN.png`, and
<root>/data/depth.txt says which one.

Letters: H, W image height and width in pixels.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image as PILImage

from dataset.catalog import CATALOG
from dataset.draws import TAGS
from dataset.layout import LABELS, image_folder, mask_folder
from synthetic.anatomy import PAINTERS, paint
from synthetic.brushes import Image, Mask
from synthetic.depths import file_names
from synthetic.settings import PLAIN

DEPTH_FILE = "depth.txt"
IMAGE_SEED = 111  # of the images and their shot lists, whatever seed a training has
COVER = 0.5  # a pixel of a scaled mask is set if more than this part of it is covered


def generator(*key: object) -> np.random.Generator:
    """Return a random generator seeded by a key, the same in every run."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, key)).encode()))


def picture(
    name: str, split: str, state: str, index: int, *, seed: int, size: int | None = None
) -> tuple[Image, Mask]:
    """Paint one image [H, W, 3] uint8 RGB and its mask [H, W] bool, True on the lesion.

    Both depend on the arguments alone. `name` is an object of PAINTERS, `state` "good" or "Ungood".
    `size` is the height to scale to, with the same aspect ratio; None: the painted size.
    """
    image, mask = paint(name, generator(seed, name, split, state, index), bool(LABELS[state]))
    if size is None:
        return image, mask
    shape = (round(image.shape[1] * size / image.shape[0]), size)  # width, height
    cover = cv2.resize(mask.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
    scaled = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, np.uint8), np.asarray(cover > COVER)


def names_of(name: str, split: str, state: str, count: int, *, seed: int, depth: str) -> list[str]:
    """Return the file names of the images of an object, a split and a state, in their order."""
    return file_names(depth, split, state, count, generator(seed, name, split, "places"))


def write_images(
    data: Path,
    name: str,
    split: str,
    state: str,
    count: int,
    *,
    seed: int,
    size: int | None,
    depth: str = PLAIN,
) -> None:
    """Write `count` images of one split and state below `data`, and masks if the object has any."""
    folder = image_folder(data, name, split, state)
    folder.mkdir(parents=True, exist_ok=True)
    with_masks = bool(LABELS[state]) and CATALOG[name].masks
    if with_masks:
        mask_folder(folder).mkdir(exist_ok=True)
    files = names_of(name, split, state, count, seed=seed, depth=depth)
    for index, file in enumerate(files):
        image, mask = picture(name, split, state, index, seed=seed, size=size)
        PILImage.fromarray(image).save(folder / file, compress_level=1)
        if with_masks:
            grey = PILImage.fromarray(mask.astype(np.uint8) * 255)
            grey.save(mask_folder(folder) / file, compress_level=1)


def write_shots(
    folder: Path, name: str, valid: int, shots: Sequence[int], *, seed: int, depth: str = PLAIN
) -> None:
    """Write the shot lists of an object with one draw; a longer list starts with the shorter one.

    `valid` is the number of images per state; an entry of `shots` above it is skipped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orders = {}
    for state in LABELS:
        files = names_of(name, "valid", state, valid, seed=seed, depth=depth)
        order = generator(seed, name, "shots", state).permutation(valid)
        orders[state] = [files[index] for index in order]
    for count in shots:
        if count > valid:
            continue
        lines = [f"{TAGS[state]}-0: " + " ".join(files[:count]) for state, files in orders.items()]
        (folder / f"{count}-shot.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_sheet(path: Path, *, seed: int, side: int = 180) -> None:
    """Write an overview image: a row per object with two normal and two abnormal test images.

    Each image is scaled to a square of `side` pixels.
    """
    from torchvision.utils import save_image  # not needed for the images themselves

    pictures = [
        cv2.resize(
            picture(name, "test", state, index, seed=seed)[0],
            (side, side),
            interpolation=cv2.INTER_AREA,
        )
        for name in PAINTERS
        for state in LABELS
        for index in range(2)
    ]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)  # [n, 3, side, side]
    save_image(images / 255, path, nrow=4, padding=4)


def write_demo(
    root: Path,
    *,
    seed: int = IMAGE_SEED,
    valid: int = 16,
    test: int = 24,
    shots: Sequence[int] = (2, 4, 8, 16),
    size: int | None = None,
    depth: str = PLAIN,
) -> None:
    """Write the dataset for all objects below `root`.

    An image depends only on the seed, its object, split, state and number, so asking for more
    images does not change the others. The values of `shots` are the K of the lists. `size` is the
    height of the images in pixels; None: the painted size of each object, 240 to 320. `valid` and
    `test` count normal images; there are as many abnormal ones. `depth`, one of DEPTHS, changes
    file names only. Raises ValueError for more images than a depth has places.
    """
    for name in PAINTERS:
        for split, count in (("valid", valid), ("test", test)):
            for state in LABELS:
                write_images(
                    root / "data", name, split, state, count, seed=seed, size=size, depth=depth
                )
        write_shots(root / "fewshot_seed" / name, name, valid, shots, seed=seed, depth=depth)
    write_sheet(root / "data" / "pictures.png", seed=seed)
    if depth != PLAIN:
        (root / "data" / DEPTH_FILE).write_text(depth + "\n", encoding="utf-8")


def depth_of(data: Path) -> str:
    """Return the depth of a dataset that `write_demo` has written."""
    path = data / DEPTH_FILE
    return path.read_text(encoding="utf-8").strip() if path.exists() else PLAIN
