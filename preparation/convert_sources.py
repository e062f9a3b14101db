"""Read the images, labels and masks of a dataset in another layout: folders (MVTec's, BMAD's own).

Nothing is written. Names of folders are compared in lower case.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dataset.layout import is_image
from errors import UserError

AUTO = "auto"  # of a layout: the one that a dataset has; of cases: what is known of them
LAYOUTS = ("csv", "mvtec", "bmad", "ham10000", "isic2019")
SHOWN = 3  # names that a message lists
TRAIN = "train"  # normal images beside valid and test
SPLIT_NAMES = {  # by the names that datasets use
    "train": TRAIN,
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
FOLDER_LABELS = {"good": 0, "normal": 0, "ungood": 1, "abnormal": 1}
ABNORMAL_NAMES = {name for name, label in FOLDER_LABELS.items() if label}
IMAGE_NAMES = ("img", "image", "images")
MASK_NAMES = ("label", "labels", "mask", "masks", "anomaly_mask", "ground_truth")
MASK_ENDS = ("_label", "_mask")  # such as test_label
MVTEC_MASKS = "ground_truth"


@dataclass(frozen=True)
class Entry:
    """One image of a dataset.

    Args:
        image: the file.
        label: 1 for abnormal.
        mask: the file of its mask, if there is one.
        case: the patient, "" if the dataset does not say it.
        split: "valid", "test" or "train" where the dataset says it; "": to be chosen.
        kind: class or defect, which splits are balanced by.
        slice: number of its slice, None if the dataset does not say it.

    """

    image: Path
    label: int
    mask: Path | None = None
    case: str = ""
    split: str = ""
    kind: str = ""
    slice: int | None = None


@dataclass
class Source:
    """A dataset that was read: its entries, and what should be said about the reading."""

    layout: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)


def some(names: Iterable[object]) -> str:
    """Return the first few names as text."""
    texts = [str(name) for name in names]
    return " ".join(texts[:SHOWN]) + " ..." * (len(texts) > SHOWN)


def walk(top: Path) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden, sorted; links are followed once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def images_below(top: Path) -> list[Path]:
    """List the image files below a folder, sorted by folder and name."""
    return [path for path in walk(top) if is_image(path)]


def other_notes(top: Path) -> list[str]:
    """Return a line about the files below a folder that are no images, if there are any."""
    names = [path.relative_to(top) for path in walk(top) if not is_image(path)]
    return [f"files of other types are left out: {len(names):,} ({some(names)})"] if names else []


def subfolders(folder: Path) -> dict[str, Path]:
    """Return the subfolders of a folder that are not hidden, by lower-case name."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name.lower(): path for path in paths if path.is_dir()}


def folder_names(top: Path) -> set[str]:
    """Return the lower-case names of all folders below a folder."""
    return {name.lower() for _, folders, _ in os.walk(top) for name in folders}


def read_mvtec(top: Path) -> Source:
    """Read MVTec's layout: train/good, test/<defect>, ground_truth/<defect>/<name>_mask.png.

    Of `train` only normal images count. Raises UserError.
    """
    folders = subfolders(top)
    if "test" not in folders:
        inner = [name for name, path in folders.items() if "test" in subfolders(path)]
        if inner:
            raise UserError(f"{top} holds several objects ({some(inner)}); name the folder of one")
        raise UserError(
            f"{top} has no folder test; MVTec's layout has train/good and test/<defect>"
        )
    masks = mvtec_masks(folders.get(MVTEC_MASKS))
    entries: list[Entry] = []
    ignored = 0
    for name, folder in folders.items():
        split = SPLIT_NAMES.get(name)
        if split is None:
            continue
        for kind, images in sorted(subfolders(folder).items()):
            label = FOLDER_LABELS.get(kind, 1)
            paths = images_below(images)
            if split == TRAIN and label:
                ignored += len(paths)
                continue
            entries += [
                Entry(path, label, masks(kind, path.stem) if label else None, "", split, kind)
                for path in paths
            ]
    notes = [f"abnormal images of train are left out: {ignored:,}"] if ignored else []
    return Source("mvtec", entries, notes + other_notes(top))


def mvtec_masks(folder: Path | None) -> Callable[[str, str], Path | None]:
    """Return a function that finds the mask of an image by its defect and stem."""
    found: dict[tuple[str, str], Path] = {}
    for path in images_below(folder) if folder else ():
        defect = path.relative_to(folder).parts[0].lower() if folder else ""
        if path.parent == folder:  # one folder for all defects
            defect = ""
        found[defect, path.stem.removesuffix("_mask")] = path
    return lambda defect, stem: found.get((defect, stem), found.get(("", stem)))


class Place(NamedTuple):
    """What the folders of a path say; None: nothing."""

    split: str | None
    label: int | None
    is_mask: bool
    rest: tuple[str, ...]  # names that say nothing


def read_bmad(top: Path) -> Source:
    """Read the layout of BMAD's archives, or this project's: folders named by split and state.

    `train`, `valid` (or `val`) and `test`, then `good` and `Ungood`, in any nesting and in upper or
    lower case, with `img` for images and `label` (or `test_label` ...) for masks, which have the
    images' names. The innermost folder that names a split counts: `Test/test`. Raises UserError.
    """
    places = [(path, place(path.relative_to(top).parts[:-1])) for path in images_below(top)]
    nameless = [path.relative_to(top) for path, p in places if p.split is None or p.label is None]
    masks = {(p._replace(is_mask=False), path.stem): path for path, p in places if p.is_mask}
    images = [
        Entry(path, p.label, masks.get((p, path.stem)) if p.label else None, "", p.split)
        for path, p in places
        if p.split is not None and p.label is not None and not p.is_mask
    ]
    if not images:
        raise UserError(f"{top} has no images below folders such as test/good and test/Ungood")
    entries = [entry for entry in images if not (entry.split == TRAIN and entry.label)]
    notes = []
    if nameless:
        notes.append(
            f"images in folders that name no split or no state are left out: {len(nameless):,} "
            f"({some(nameless)})"
        )
    if ignored := len(images) - len(entries):
        notes.append(f"abnormal images of train are left out: {ignored:,}")
    if normal := sum(p.label == 0 for p, _ in masks):
        notes.append(f"masks of normal images are left out: {normal:,}")
    return Source("bmad", entries, notes + other_notes(top))


def place(parts: Sequence[str]) -> Place:
    """Return what the names of a path's folders say, outermost first; the innermost counts."""
    split = None
    label = None
    is_mask = False
    rest = []
    for part in map(str.lower, parts):
        end = next((end for end in MASK_ENDS if part.endswith(end)), "")
        name = part.removesuffix(end)
        if name in SPLIT_NAMES:
            split = SPLIT_NAMES[name]
            is_mask = is_mask or bool(end)
        elif part in FOLDER_LABELS:
            label = FOLDER_LABELS[part]
        elif part in MASK_NAMES:
            is_mask = True
        elif part not in IMAGE_NAMES:
            rest.append(part)
    return Place(split, label, is_mask, tuple(rest))
