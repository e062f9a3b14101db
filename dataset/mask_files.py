"""Which mask file belongs to which image: that of its name, else the only one of its stem."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.layout import check_entry, is_image, listable, mask_folder, visible
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
        groups[Path(name).stem].append(name)
    return groups


def pair_masks(images: Sequence[str], masks: Iterable[str]) -> Pairs:
    """Find the mask of each image: names of the image files of a folder, and of its masks.

    A mask with another image's name is that image's. Of the others with an image's stem there must
    be one, which no other image may have.
    """
    owners = set(images)
    candidates = by_stem(masks)
    pairs = Pairs({}, {}, {})
    for group in by_stem(images).values():
        free = [mask for mask in candidates.get(Path(group[0]).stem, []) if mask not in owners]
        for image in group:
            own = [image] if image in candidates.get(Path(image).stem, []) else []
            possible = own + free
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


def find_masks(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the mask names of some images of a folder `.../<split>/Ungood/img`.

    Raises UserError for the first image whose mask is missing, unclear, or no file.
    """
    masks = mask_folder(folder)
    with listable(masks):
        entries = visible(masks) if masks.is_dir() else []
        files = [path.name for path in entries if is_image(path) and not path.is_dir()]
        images = [path.name for path in visible(folder) if is_image(path)]
        pairs = pair_masks(images, files)
        for name in names:
            refuse_unclear(folder, name, pairs)
            if name not in pairs.masks:
                raise UserError(
                    f"no mask {masks / name} for {folder / name}; a mask has its image's file name"
                )
            check_entry(masks / pairs.masks[name])
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
