"""Where an object's images are, and which files of a folder are images. Needs no torch.

    <data>/<name>_AD/<split>/<state>/img            images
    <data>/<name>_AD/<split>/Ungood/anomaly_mask    masks, for objects that have them
    <data>/<name>_AD/object.toml                    what differs from the catalog (optional)

A split is valid or test, a state good (normal) or Ungood (abnormal).
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from errors import UserError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SUFFIXES = (".png", ".jpeg", ".jpg", ".bmp", ".tif", ".tiff", *DICOM_SUFFIXES)
DICOM_MARK = b"DICM"
DICOM_MARK_OFFSET = 128
FOLDER = "_AD"  # ends the name of an object's folder
SPLITS = ("valid", "test")
LABELS = {"good": 0, "Ungood": 1}  # by state, in the order of the test set
ABNORMAL = "Ungood"
IMAGES = "img"  # folder of a state's images
MASKS = "anomaly_mask"  # folder of a state's masks
SHOWN = 3  # names of other files that a message lists


def object_folder(data_path: Path, name: str) -> Path:
    """Return the folder of an object, which need not exist."""
    return data_path / f"{name}{FOLDER}"


def object_names(data_path: Path) -> list[str]:
    """List the objects that have a folder, sorted; none if the data folder does not exist."""
    folders = sorted(data_path.glob(f"?*{FOLDER}")) if data_path.is_dir() else []
    return [folder.name.removesuffix(FOLDER) for folder in folders if folder.is_dir()]


def image_folder(data_path: Path, name: str, split: str, state: str) -> Path:
    """Return the folder of the images of an object, a split (valid, test) and a state (LABELS)."""
    return object_folder(data_path, name) / split / state / IMAGES


def mask_folder(folder: Path) -> Path:
    """Return the folder of the masks that belong to a folder of images."""
    return folder.with_name(MASKS)


def is_image(path: Path) -> bool:
    """Return whether a file name has one of SUFFIXES, in upper or lower case."""
    return is_image_name(path.name)


def is_image_name(name: str) -> bool:
    """Return whether a file name has one of SUFFIXES, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  # for every entry


def is_dicom_name(path: Path) -> bool:
    """Return whether a file name has one of DICOM_SUFFIXES, in upper or lower case."""
    return path.suffix.lower() in DICOM_SUFFIXES


def visible(folder: Path) -> list[Path]:
    """List the entries of a folder that are not hidden, sorted by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder, sorted by name; none if the folder does not exist.

    Hidden files are skipped. Raises UserError for the first image that exists but could not be
    listed: a broken link, an image in a subfolder, a folder that cannot be read.
    """
    with listable(folder):
        if not folder.is_dir():
            if (broken := broken_link(folder)) is not None:
                raise UserError(
                    f"{broken} is a link that leads nowhere; restore what it points to or remove it"
                )
            if folder.exists():
                raise UserError(f"{folder} is a file, not a folder of images; replace it")
            return []
        entries = visible(folder)
        for path in entries:
            check_entry(path)
        return [path for path in entries if is_image(path) and path.is_file()]


@contextmanager
def listable(folder: Path) -> Iterator[None]:
    """Turn errors of listing a folder, or what is in it, into UserError."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or folder
        refuse_folder(error)


def refuse_folder(error: OSError) -> NoReturn:
    """Raise the UserError of a folder that cannot be listed, which os.walk would pass over."""
    raise UserError(
        f"{error.filename} cannot be read ({error.strerror}); change its permissions, or restore it"
    ) from error


def check_entry(path: Path) -> None:
    """Raise UserError if an entry of a folder is, or contains, an image that cannot be listed."""
    if path.is_dir():
        for folder, folders, names in os.walk(path, onerror=refuse_folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            nested = sorted(
                name for name in names if not name.startswith(".") and is_image(Path(name))
            )
            if nested:
                image = Path(folder, nested[0])
                raise UserError(f"{image} is an image in a subfolder; move it into {path.parent}")
    elif is_image(path) and not path.is_file():
        kind = "a link that leads nowhere" if path.is_symlink() else "not a regular file"
        raise UserError(f"{path} is {kind}; restore the image or remove it")


def refuse_special(path: Path, most: int | None = None) -> None:
    """Raise UserError for a pipe, a socket or a device: opening or reading one may never end.

    So for a file of more than `most` bytes.
    """
    try:
        found = path.stat()
    except OSError:
        return  # it is said by who opens it
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise UserError(f"{path} is not a regular file but a pipe, socket or device; leave it out")
    if most is not None and found.st_size > most:
        raise UserError(f"{path} has {found.st_size:,} bytes, of at most {most:,}; leave it out")


def is_marked(path: Path) -> bool:
    """Return whether a file's content is marked as DICOM; False if it cannot be read."""
    try:
        refuse_special(path)
        with path.open("rb") as file:
            file.seek(DICOM_MARK_OFFSET)
            return file.read(len(DICOM_MARK)) == DICOM_MARK
    except (OSError, UserError):
        return False


def broken_link(path: Path) -> Path | None:
    """Return the first of a path and its parents that is a link without a target, else None."""
    return next((p for p in (path, *path.parents) if p.is_symlink() and not p.exists()), None)


def other_files(folders: Iterable[Path]) -> list[Path]:
    """List the files of some folders of images that are no images, by folder and name.

    Hidden files and subfolders are not counted, nor folders that do not exist.
    """
    return [
        path
        for folder in folders
        if folder.is_dir()
        for path in visible(folder)
        if not is_image(path) and not path.is_dir()
    ]


def name_other_files(files: list[Path]) -> str:
    """Say in words how many files are no images, with the first names; "" for none."""
    if not files:
        return ""
    names = " ".join(path.name for path in files[:SHOWN])
    more = " ..." if len(files) > SHOWN else ""
    return f"{len(files)} {'file' if len(files) == 1 else 'files'} of other types ({names}{more})"
