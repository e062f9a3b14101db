"""Choose which test images are drawn, and write their files."""

import io
import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mvfa.defaults import MIXED, ORDERS
from mvfa.panels import SCALE, Picture, Pixels, panel
from mvfa.run_files import PICTURES
from utils import sweep, write_whole

JPEG_QUALITY = 75  # a panel of 240 px images is below 100 kB
FILE_NAME = re.compile(r"\d{5}(\.jpg|\.png|-image\.png|-map\.png|-mask\.png|\.npz)")


def misranked(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the share of the other class that each image is ranked on the wrong side of.

    scores [n], labels [n], 1 abnormal -> [n] float64 in [0, 1]. For an abnormal image, the share of
    normal images that score higher; for a normal image, of abnormal images that score lower; equal
    scores count half. Its mean over either class is 1 - AUROC. 0 where there is no other class.
    """
    values = scores.double().cpu()
    abnormal = labels.cpu() > 0
    shares = torch.zeros_like(values)
    for label, own in enumerate((~abnormal, abnormal)):
        rivals = values[~own].sort().values
        if not len(rivals):
            continue
        below = torch.searchsorted(rivals, values[own], right=False)
        up_to = torch.searchsorted(rivals, values[own], right=True)
        # counted in halves, so that equal shares are equal to the last bit
        lower = below + up_to
        pairs = 2 * len(rivals)
        shares[own] = (pairs - lower if label else lower).double() / pairs
    return shares


def choose(
    scores: Tensor, labels: Tensor, count: int, order: str, generator: torch.Generator | None = None
) -> list[int]:
    """Return the indices of up to `count` images; all of them if there are fewer.

    scores [n] in [0, 1], labels [n], 1 abnormal. "worst" and "best" take images of both labels in
    turn, so that two images or more show both labels wherever both exist: the worst (best) image of
    all, then the worst (best) of the other label, then the next of the first label, and so on; when
    one label has no more images, the rest of the other one. Worse is, in this order: a higher
    `misranked`, which needs no threshold; a larger |label - score|. Ties go by index. So each label
    comes by score: "worst" abnormal lowest first, "worst" normal highest first. "random" is a
    permutation that `generator` draws, so a smaller count gives the beginning of a larger one.

    Raises ValueError for another order, a negative count, or "random" without a generator.
    """
    if order not in ORDERS or count < 0 or (order == "random" and generator is None):
        allowed = f"{', '.join(ORDERS)} (random with a generator)"
        raise ValueError(f"{count} images, order {order!r}; allowed: {allowed}")
    if order == "random":
        return torch.randperm(len(scores), generator=generator)[:count].tolist()
    sign = -1 if order == "worst" else 1
    shares = (sign * misranked(scores, labels)).tolist()
    gaps = (sign * (labels.double().cpu() - scores.double().cpu()).abs()).tolist()
    ranked = sorted(range(len(scores)), key=lambda index: (shares[index], gaps[index], index))
    abnormal = (labels.cpu() > 0).tolist()
    return in_turn(ranked, abnormal, abnormal[ranked[0]] if ranked else True)[:count]


def in_turn(ranked: Sequence[int], abnormal: Sequence[bool], first: bool) -> list[int]:
    """Return ranked images with both labels in turn, those where `abnormal` is `first` first.

    When one label has no more images, the rest of the other one follows.
    """
    one = [index for index in ranked if abnormal[index] == first]
    other = [index for index in ranked if abnormal[index] != first]
    turns = chain.from_iterable(zip_longest(one, other))
    return [index for index in turns if index is not None]


def choose_ranked(
    scores: Tensor, labels: Tensor, count: int, order: str, generator: torch.Generator
) -> list[tuple[int, str]]:
    """Return the images to draw, each with the order that it was chosen by.

    As `choose`, and for "mixed": half of them, rounded down, are the worst, and the others random
    ones of both labels in turn, abnormal first. Those are the same for each scoring of a test set
    whose generator is in the same state, so that its maps can stand side by side.
    """
    if order != MIXED:
        chosen = choose(scores, labels, count, order, generator)
        return [(index, order) for index in chosen]
    drawn = choose(scores, labels, len(scores), "random", generator)
    random = in_turn(drawn, (labels.cpu() > 0).tolist(), True)[: count - count // 2]
    worst = choose(scores, labels, count, "worst")
    others = [index for index in worst if index not in random][: count // 2]
    return [*((index, "worst") for index in others), *((index, "random") for index in random)]


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return an RGB [H, W, 3] or grey [H, W] image as a PNG file; equal channels become grey."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return file.getvalue()


def jpeg(pixels: Pixels) -> bytes:
    """Return an RGB image [H, W, 3] as a JPEG file."""
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return file.getvalue()


def npz(arrays: dict[str, npt.NDArray[np.float32]]) -> bytes:
    """Return arrays as an .npz file whose bytes depend on the arrays alone.

    numpy's own writer adds time stamps and depends on the version of the compressor.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.save(member, values, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, member.getvalue())
    return file.getvalue()


def remove_pictures(folder: Path) -> None:
    """Remove the files that `write_pictures` has written to folder/pictures, and no other file."""
    for path in sorted((folder / PICTURES).glob("*")):
        if FILE_NAME.fullmatch(path.name) and path.is_file():
            path.unlink()
    with suppress(OSError):  # absent, or with files of the user's
        (folder / PICTURES).rmdir()


def picture_files(
    picture: Picture, threshold: float, scale: tuple[float, float] | None
) -> dict[str, tuple[str, bytes]]:
    """Return the ending and the content of each file of a picture, by kind."""
    maps = {
        name: np.ascontiguousarray(values, np.float32) for name, values in picture.maps().items()
    }
    grey = np.rint(255 * np.clip(maps["final"], 0, 1)).astype(np.uint8)
    files = {
        "panel": (".jpg", jpeg(panel(picture, threshold, scale))),
        "image": ("-image.png", png(picture.image)),
        "map": ("-map.png", png(grey)),
        "arrays": (".npz", npz(maps)),
    }
    if picture.mask is not None:
        files["mask"] = ("-mask.png", png(picture.mask.astype(np.uint8) * 255))
    return files


def write_pictures(
    folder: Path,
    chosen: Sequence[Picture],
    threshold: float,
    scale: tuple[float, float] | None = SCALE,
) -> list[dict[str, Any]]:
    """Write the files of each picture to folder/pictures; return an entry for each, in order.

    Pictures of an earlier run are removed first. <index> has five digits: <index>.jpg is the panel,
    <index>-image.png the image, <index>-map.png the final map in 8-bit grey (255 is 1),
    <index>-mask.png the mask (0 or 255) where the object has masks, and <index>.npz the maps
    `text`, `memory` (few-shot) and `final`, [S, S] float32. All but the panel are lossless. Paths
    in the entries are relative to `folder`; "mask" is None where there is none.
    """
    remove_pictures(folder)
    sweep(folder / PICTURES)
    entries = []
    for picture in chosen:
        entry: dict[str, Any] = {
            "file": picture.file,
            "label": picture.label,
            "score": picture.score,
            "rank": picture.rank,
            "mask": None,
        }
        for kind, (ending, content) in picture_files(picture, threshold, scale).items():
            path = f"{PICTURES}/{picture.index:05d}{ending}"
            write = partial(Path.write_bytes, data=content)
            write_whole(folder / path, write, flush_folder=False)
            entry[kind] = path
        entries.append(entry)
    return entries
