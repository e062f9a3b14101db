"""Which mask file belongs to which image: that of its name, else the only one of its stem."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.layout import check_entry, is_image_name, listable, mask_folder
from errors import UserError


class Pairs(NamedTuple):
    """Masks by image, and what is unclear: several names by each image that they could belong to.

    `several`: masks that could be the image's. `shared`: images that could have the same mask.
    """

    masks: dict[str, str]
    several: dict[str, list[str]]
    shared: dict[str, list[str]]


def by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Group file names by their stems; names keep their order."""
    groups = defaultdict(list)
    for name in names:
        groups[stem_of(name)].append(name)
    return groups


def stem_of(name: str) -> str:
    """Return a file name without its suffix."""
    return os.path.splitext(name)[0]  # noqa: PTH122  # much faster, for thousands of names


def pair_masks(images: Sequence[str], masks: Iterable[str]) -> Pairs:
    """Find the mask of each image: names of the image files of a folder, and of its masks.

    A mask with another image's name is that image's. Of the others with an image's stem there must
    be one, which no other image may have.
    """
    owners = set(images)
    candidates = by_stem(masks)
    pairs = Pairs({}, {}, {})
    for stem, group in by_stem(images).items():
        named = candidates.get(stem, [])
        free = [mask for mask in named if mask not in owners]
        for image in group:
            possible = [image, *free] if image in named else free
            if len(possible) > 1:
                pairs.several[image] = possible
            elif possible:
                pairs.masks[image] = possible[0]
        lonely = [image for image in group if pairs.masks.get(image) in free]
        if len(lonely) > 1:
            for image in lonely:
                del pairs.masks[image]
                pairs.shared[image] = lonely
    return pairs


def image_names(folder: Path) -> dict[str, bool]:
    """Return the names of a folder's images, sorted, and whether each is a file.

    Links that lead nowhere, pipes and the like are not. Hidden files are left out, and subfolders.
    """
    with os.scandir(folder) as entries:
        found = {
            entry.name: entry.is_file()
            for entry in entries
            if is_image_name(entry.name) and entry.name[0] != "." and not entry.is_dir()
        }
    return dict(sorted(found.items()))


def find_masks(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the mask names of some images of a folder `.../<split>/Ungood/img`.

    Raises UserError for the first image whose mask is missing, unclear, or no file.
    """
    masks = mask_folder(folder)
    with listable(masks):
        files = image_names(masks) if masks.is_dir() else {}
        pairs = pair_masks(list(image_names(folder)), files)
    for name in names:
        refuse_unclear(folder, name, pairs)
        mask = pairs.masks.get(name)
        if mask is None:
            raise UserError(
                f"no mask {masks / name} for {folder / name}; a mask has its image's file name"
            )
        if not files[mask]:
            check_entry(masks / mask)
    return [pairs.masks[name] for name in names]


def refuse_unclear(folder: Path, name: str, pairs: Pairs) -> None:
    """Raise UserError if it is unclear which mask an image has."""
    masks = mask_folder(folder)
    if several := pairs.several.get(name):
        raise UserError(
            f"{folder / name} has several masks in {masks} ({' '.join(several)}); keep one"
        )
    if shared := pairs.shared.get(name):
        raise UserError(
            f"{' '.join(shared)} of {folder} have one mask in {masks}; give each image a mask of "
            "its file name"
        )
