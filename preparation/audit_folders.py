"""What lies in an object's folder, without a look into its files. The listing of `check`.

Unlike dataset/layout.py, which refuses the first fault, everything is listed.
"""

from dataclasses import dataclass, field
from pathlib import Path

from dataset.layout import (
    IMAGES,
    LABELS,
    MASKS,
    SPLITS,
    broken_link,
    check_entry,
    image_folder,
    is_image,
    mask_folder,
    object_folder,
)
from dataset.mask_files import Pairs, pair_masks
from errors import UserError


@dataclass
class Listing:
    """The entries of one folder of images or masks, sorted by name.

    Args:
        folder: the folder, which need not exist.
        names: files that have the name of an image.
        others: files of other types.
        hidden: number of hidden entries.
        nested: subfolders that hold images.
        broken: names of images that are no files, such as links that lead nowhere.
        problem: why the folder cannot be listed; "" if it can, or does not exist.

    """

    folder: Path
    names: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: int = 0
    nested: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class Group:
    """The images of one split and state, and the files of their mask folder."""

    split: str
    state: str
    images: Listing
    masks: Listing
    pairs: Pairs  # masks by image, where there is one

    @property
    def label(self) -> int:
        """1 for abnormal images."""
        return LABELS[self.state]

    def image(self, name: str) -> str:
        """Return the path of an image below the object's folder."""
        return f"{self.split}/{self.state}/{IMAGES}/{name}"

    def mask(self, name: str) -> str:
        """Return the path of a mask below the object's folder."""
        return f"{self.split}/{self.state}/{MASKS}/{name}"


def list_folder(folder: Path) -> Listing:
    """List a folder of images or masks."""
    listing = Listing(folder)
    try:
        if not folder.is_dir():
            if (broken := broken_link(folder)) is not None:
                listing.problem = f"({broken.name} is a link that leads nowhere)"
            elif folder.exists():
                listing.problem = "(a file, not a folder)"
            return listing
        for path in sorted(folder.iterdir()):
            sort_entry(path, listing)
    except OSError as error:
        listing.problem = f"({error.strerror})"
    return listing


def sort_entry(path: Path, listing: Listing) -> None:
    """Add one entry of a folder to its listing."""
    if path.name.startswith("."):
        listing.hidden += 1
        return
    try:
        check_entry(path)
    except UserError:
        (listing.nested if path.is_dir() else listing.broken).append(path.name)
        return
    if path.is_dir():
        return
    (listing.names if is_image(path) else listing.others).append(path.name)


def list_object(data_path: Path, name: str) -> list[Group]:
    """List the images and masks of an object: valid, then test, each good, then Ungood."""
    groups = []
    for split in SPLITS:
        for state in LABELS:
            folder = image_folder(data_path, name, split, state)
            images = list_folder(folder)
            masks = list_folder(mask_folder(folder))
            groups.append(Group(split, state, images, masks, pair_masks(images.names, masks.names)))
    return groups


def strangers(data_path: Path, name: str) -> list[str]:
    """List what is never read because the layout has no such place: folders and images.

    Paths below the object's folder, those of folders with a slash at the end.
    """
    top = object_folder(data_path, name)
    known = {top: set(SPLITS)}
    for split in SPLITS:
        known[top / split] = set(LABELS)
        known |= {top / split / state: {IMAGES, MASKS} for state in LABELS}
    found = []
    for folder, names in known.items():
        try:
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
        except PermissionError:  # list_folder says so
            continue
        for path in entries:
            if path.name in names or path.name.startswith("."):
                continue
            if path.is_dir() or is_image(path):
                found.append(path.relative_to(top).as_posix() + "/" * path.is_dir())
    return found
