"""Findings of `check` about folders: what is where, how many, and which image has which mask."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dataset.catalog import ObjectInfo
from dataset.layout import ABNORMAL, LABELS, SPLITS, SUFFIXES
from preparation.audit_findings import ERROR, NOTE, WARNING, Contents, Finding, found, plural
from preparation.audit_folders import Group, Listing


class Published(NamedTuple):
    """What was published about an object: images by label (normal, abnormal) and their size."""

    size: tuple[int, int]  # width, height in pixels
    test: tuple[int, int] | None = None
    valid: tuple[int, int] | None = None


PUBLISHED = {
    "Brain": Published((240, 240), test=(640, 3_075), valid=(39, 44)),
    "Liver": Published((512, 512), test=(833, 660), valid=(93, 73)),
    "Retina_RESC": Published((512, 1_024), test=(1_041, 764)),
    "Retina_OCT2017": Published((512, 496), test=(242, 726), valid=(8, 24)),
    "Chest": Published((1_024, 1_024)),
    "Histopathology": Published((256, 256)),
}


def folder_findings(contents: Contents, outside: Iterable[str]) -> Iterator[Finding]:
    """Yield what cannot be listed or is never read; `outside`: entries outside the layout."""
    listings: list[tuple[str, Listing]] = []
    for group in contents.groups:
        listings.append((group.image(""), group.images))
        listings.append((group.mask(""), group.masks))
    problems = [f"{path} {listing.problem}" for path, listing in listings if listing.problem]
    yield from found(
        ERROR, "folder", "folder", "that cannot be listed; replace or remove it", problems
    )
    nested = [path + name for path, listing in listings for name in listing.nested]
    text = "with images in it; move the images up into img"
    yield from found(ERROR, "nested", "subfolder", text, nested)
    broken = [path + name for path, listing in listings for name in listing.broken]
    text = "that leads nowhere or is no regular file; restore or remove it"
    yield from found(ERROR, "broken_link", "entry with an image's name", text, broken)
    others = [path + name for path, listing in listings for name in listing.others]
    text = f"of another type, never read; read are {' '.join(SUFFIXES)}"
    yield from found(WARNING, "other_files", "file", text, others)
    text = "that the layout does not have, never read; prepare_data.py convert brings images to it"
    yield from found(WARNING, "outside", "folder or image", text, outside)
    hidden = sum(listing.hidden for _, listing in listings)
    if hidden:
        yield Finding(NOTE, "hidden", f"hidden files, never read: {hidden}")


def count_findings(contents: Contents) -> Iterator[Finding]:
    """Yield missing labels, and counts that differ from the published ones."""
    for split in SPLITS:
        counts = [len(contents.group(split, state).images.names) for state in LABELS]
        yield from label_findings(split, counts)
        yield from published_findings(contents.info, split, counts)


def label_findings(split: str, counts: list[int]) -> Iterator[Finding]:
    """Yield which labels a split lacks; `counts`: its normal and its abnormal images."""
    empty = [state for state, count in zip(LABELS, counts, strict=True) if not count]
    if not empty:
        return
    folders = " and ".join(f"{split}/{state}/img" for state in empty)
    if split == "test":
        text = f"no images in {folders}; AUROC needs normal and abnormal test images"
        yield Finding(ERROR, "missing_label", text)
    else:
        text = f"no images in {folders}; few-shot training takes normal and abnormal images there"
        yield Finding(WARNING, "missing_label", text)


def published_findings(info: ObjectInfo, split: str, counts: list[int]) -> Iterator[Finding]:
    """Yield a count of a split that is not the published one."""
    published = PUBLISHED.get(info.name)
    total = info.test_images if split == "test" else info.valid_images
    if not total:
        return
    parts = getattr(published, split) if published else None
    if sum(counts) == total and parts in (None, tuple(counts)):
        return
    text = f"{split} has {words(sum(counts), counts)}; published were {words(total, parts)}"
    if (info.name, split) == ("Retina_OCT2017", "valid"):
        text += ", and the authors' archive may have more"
    yield Finding(WARNING, "published_counts", text)


def words(total: int, parts: Iterable[int] | None) -> str:
    """Return a total with its normal and abnormal parts."""
    if parts is None:
        return plural(total, "image")
    normal, abnormal = parts
    return f"{plural(total, 'image')} ({normal:,} normal + {abnormal:,} abnormal)"


def pair_findings(contents: Contents) -> Iterator[Finding]:
    """Yield images without masks, masks without images, and masks that are never read."""
    abnormal = list(contents.abnormal())
    if contents.info.masks:
        yield from unclear_findings(abnormal)
        lonely = [g.image(name) for g in abnormal for name in g.images.names if is_lonely(g, name)]
        text = "without a mask; a mask has its image's file name, in anomaly_mask"
        yield from found(ERROR, "mask_missing", "abnormal image", text, lonely)
        yield from found(WARNING, "mask_orphan", "mask", "without an image", orphans(abnormal))
    else:
        unused = [group.mask(name) for group in abnormal for name in group.masks.names]
        text = f"never read: {contents.info.name} has no masks"
        yield from found(NOTE, "mask_unused", "mask", text, unused)
    yield from normal_mask_findings(contents)


def is_lonely(group: Group, name: str) -> bool:
    """Return whether no mask could be that of an image."""
    return not any(name in found for found in group.pairs)


def unclear_findings(groups: Iterable[Group]) -> Iterator[Finding]:
    """Yield images of which it is unclear which mask they have."""
    several: list[str] = []
    shared: list[str] = []
    for group in groups:
        several += map(group.image, group.pairs.several)
        shared += map(group.image, group.pairs.shared)
    text = "with several masks of its name; keep one"
    yield from found(ERROR, "mask_several", "abnormal image", text, several)
    text = "with one name and one mask for all; give each a mask of its file name"
    yield from found(ERROR, "mask_shared", "abnormal image", text, shared)


def orphans(groups: Iterable[Group]) -> Iterator[str]:
    """Yield the masks that belong to no image."""
    for group in groups:
        used = set(group.pairs.masks.values())
        used |= {mask for masks in group.pairs.several.values() for mask in masks}
        yield from (group.mask(name) for name in group.masks.names if name not in used)


def normal_mask_findings(contents: Contents) -> Iterator[Finding]:
    """Yield masks of normal images, which are never read."""
    paths = [g.mask(name) for g in contents.groups if not g.label for name in g.masks.names]
    marked = [path for path in paths if contents.masks[path].marked]
    text = f"that marks something; move the image to {ABNORMAL}, or remove the mask"
    yield from found(ERROR, "mask_on_normal", "mask of a normal image", text, marked)
    empty = [path for path in paths if path not in set(marked)]
    yield from found(NOTE, "mask_of_normal", "mask", "of normal images, never read", empty)
