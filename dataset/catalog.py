"""The objects, by name: the benchmark's six, three more, and any folder (SPEC section 1). No torch.

An object is a folder `<data>/<name>_AD`. What the catalog does not say about it stands in the
file `object.toml` of that folder, or follows from the folder itself.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset.intensity import DEFAULT, Intensity, intensity
from dataset.layout import (
    ABNORMAL,
    SPLITS,
    image_folder,
    mask_folder,
    object_folder,
    object_names,
    visible,
)
from dataset.patterns import case_pattern
from dataset.texts import read_text
from dataset.wording import shortened
from errors import UserError

# columns of the paper's tables
PAPER_ORDER = ("Histopathology", "Chest", "Retina_OCT2017", "Brain", "Liver", "Retina_RESC")

HALF = "half"
ANY = "any"
MASK_RULES = (HALF, ANY)  # see dataset/masks.py
SETTINGS = "object.toml"
MOST_TEXT = 1000  # characters of a setting


@dataclass(frozen=True)
class ObjectInfo:
    """One object: a kind of images with a folder `<data>/<name>_AD`.

    Args:
        name: value of `--obj`.
        noun: stands for the object in the sentences.
        masks: whether its abnormal images have anomaly masks.
        test_images: number of test images published with the benchmark; 0: no fixed set.
        valid_images: number of images of `valid` published with the benchmark.
        benchmark: whether it is one of the benchmark's six, which zero-shot models train on.
        mask_rule: which mask pixels are foreground: "half" (grey > 127) or "any" (grey > 0).
        intensity: how values of more than 8 bit become 8 bit.
        cases: regular expression with a group `case` (the patient), and perhaps a group `slice`,
            that matches file names without their suffix; "": those of `names`, else the general
            rule, see dataset/cases.py.
        names: the same of the benchmark's own file names; "": they show no case, or how is unknown.
        notes: lines that a run says about it.

    """

    name: str
    noun: str
    masks: bool
    test_images: int = 0
    valid_images: int = 0
    benchmark: bool = False
    mask_rule: str = HALF
    intensity: Intensity = DEFAULT
    cases: str = ""
    names: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return what decides how its files are read, for checkpoints and results."""
        return {
            "noun": self.noun,
            "masks": self.masks,
            "mask_rule": self.mask_rule,
            "intensity": str(self.intensity),
        }


# Patterns of the authors' file names, as their shot lists have them. Those of Chest (an identifier
# for each image) and Histopathology (a number) show no case.
SLICES = r"(?P<case>\d+)_(?P<slice>\d+)"  # 00003_60, 4_487
OCT_NUMBERS = r"[A-Z]+-(?P<case>\d+)-\d+"  # NORMAL-5171640-1: patient, number of the image

CATALOG = {
    info.name: info
    for info in (
        ObjectInfo("Brain", "Brain", True, 3_715, 83, benchmark=True, names=SLICES),
        ObjectInfo("Liver", "Liver", True, 1_493, 166, benchmark=True, names=SLICES),
        ObjectInfo("Retina_RESC", "retinal OCT", True, 1_805, 115, benchmark=True, names=SLICES),
        ObjectInfo(
            "Retina_OCT2017", "retinal OCT", False, 968, 32, benchmark=True, names=OCT_NUMBERS
        ),
        ObjectInfo("Chest", "Chest X-ray film", False, 17_194, 1_490, benchmark=True),
        ObjectInfo("Histopathology", "histopathological image", False, 1_997, 236, benchmark=True),
        # a modality that the paper does not have
        ObjectInfo("Skin", "skin", masks=False),
        # the reproducibility study's names, which it also puts into the sentences
        ObjectInfo("Skin_HAM10000", "Skin_HAM10000", masks=False),
        ObjectInfo("Skin_ISIC2019", "Skin_ISIC2019", masks=False),
    )
}
BENCHMARK = tuple(info for info in CATALOG.values() if info.benchmark)
ALIASES = {"HAM10000": "Skin_HAM10000", "ISIC2019": "Skin_ISIC2019"}


def known_name(name: str) -> str:
    """Return the catalog's name of an alias; other names unchanged."""
    return ALIASES.get(name, name)


def object_name(text: str) -> str:
    """Convert the name of an object, a flag's value: aliases become the catalog's name.

    Raises argparse.ArgumentTypeError for what cannot be part of a folder's name.
    """
    if not text or text != text.strip() or not text.isprintable() or set(text) & set("/\\:"):
        allowed = "without / \\ : and without space at its ends"
        raise argparse.ArgumentTypeError(f"{text!r} is no object; allowed is a name {allowed}")
    if text.startswith((".", "-")):
        raise argparse.ArgumentTypeError(f"{text!r} is no object; a name starts with no . or -")
    return known_name(text)


def object_noun(text: str) -> str:
    """Convert a noun, a flag's value. Raises argparse.ArgumentTypeError unless it is one line."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no noun; allowed are words on one line")
    return text.strip()


def object_info(name: str) -> ObjectInfo:
    """Return the catalog's entry. Raises UserError for a name that is not in the catalog."""
    if name not in CATALOG:
        raise UserError(f"unknown object {name!r}; known: {', '.join(CATALOG)}")
    return CATALOG[name]


def existing_folder(data_path: Path, name: str) -> Path:
    """Return the folder of an object. Raises UserError if there is none."""
    folder = object_folder(data_path, name)
    if folder.is_dir():
        return folder
    if name in CATALOG:
        remedy = f"run python prepare_data.py convert FOLDER --obj {name}"
        if CATALOG[name].benchmark:
            remedy = f"run python prepare_data.py download {name}"
    else:
        remedy = f"make it (layout: docs/data.md), choose one of the catalog ({', '.join(CATALOG)})"
    there = " ".join(object_names(data_path)) or "none"
    raise UserError(
        f"no folder {folder}; {remedy} or pass --data_path DIR (objects in {data_path}: {there})"
    )


def find_object(
    data_path: Path,
    name: str,
    noun: str | None = None,
    mask_rule: str | None = None,
    intensity: Intensity | None = None,
) -> ObjectInfo:
    """Return what is known of an object that has a folder: the one place that decides it.

    An argument that is not None (a flag) comes first, then `object.toml` of the object's folder,
    then the catalog. An object that is not in the catalog has its name, with spaces for
    underscores, as noun, and masks if a folder of masks holds any file. `notes` of the result say
    what does not come from the catalog.

    Raises:
        UserError: there is no such folder, or its object.toml cannot be used.

    """
    folder = existing_folder(data_path, name)
    known = CATALOG.get(name)
    base = known or ObjectInfo(name, name.replace("_", " "), masks=has_masks(data_path, name))
    settings = read_settings(folder / SETTINGS)
    if known and settings.get("masks", known.masks) != known.masks:
        raise UserError(
            f"{folder / SETTINGS}: masks of {name} is {str(known.masks).lower()} in the catalog; "
            "remove the key, or give the folder another name"
        )
    flags = {"noun": noun, "mask_rule": mask_rule, "intensity": intensity}
    flags = {key: value for key, value in flags.items() if value is not None}
    info = replace(base, **(settings | flags))
    return replace(info, notes=object_notes(info, settings, flags))


def object_notes(
    info: ObjectInfo, settings: Mapping[str, Any], flags: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the line that says what an object is, where the catalog does not say it."""
    if info.name in CATALOG and not settings and not flags:
        return ()
    source = dict.fromkeys(settings, SETTINGS) | {key: f"--{key}" for key in flags}
    parts = []
    if info.name not in CATALOG or "noun" in source:
        parts.append(f"noun {info.noun!r} ({source.get('noun', 'its name; --noun changes it')})")
    if info.name not in CATALOG:
        found = "masks" if info.masks else "no masks"
        parts.append(f"{found} ({source.get('masks', 'by looking')})")
    parts += [
        f"{key} {getattr(info, key)} ({source[key]})"
        for key in ("mask_rule", "intensity", "cases")
        if key in source
    ]
    return (f"{info.name}: {', '.join(parts)}",)


def has_masks(data_path: Path, name: str) -> bool:
    """Return whether a folder of masks of an object holds any file."""
    folders = [mask_folder(image_folder(data_path, name, split, ABNORMAL)) for split in SPLITS]
    return any(folder.is_dir() and visible(folder) for folder in folders)


def read_settings(path: Path) -> dict[str, Any]:
    """Read an object.toml: some of noun, masks, mask_rule, intensity and cases; {} without a file.

    Raises UserError for anything else.
    """
    if not os.path.lexists(path):
        return {}
    text = read_text(path, "fix it or remove it")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # malformed; a number or nesting without end
        raise UserError(
            f"{path} cannot be read as TOML ({shortened(error)}); fix it or remove it"
        ) from error
    return {key: setting(path, key, value) for key, value in content.items()}


def setting(path: Path, key: str, value: Any) -> Any:
    """Return the value of a key of object.toml as ObjectInfo has it. Raises UserError."""
    readers = {
        "noun": object_noun,
        "mask_rule": mask_rule_name,
        "intensity": intensity,
        "cases": case_pattern,
    }
    if key == "masks":
        if not isinstance(value, bool):
            raise UserError(f"{path}: masks = {shown(value)}; allowed are true and false")
        return value
    if key not in readers:
        allowed = ", ".join(("masks", *readers))
        raise UserError(f"{path}: unknown key {shown(key)}; allowed are {allowed}")
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise UserError(
            f"{path}: {key} = {shown(value)}; allowed is text in quotes, of at most {MOST_TEXT} "
            "characters"
        )
    try:
        return readers[key](value)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{path}: {key}: {error}") from error


def shown(value: Any) -> str:
    """Return a value of an object.toml as a part of one line."""
    return shortened(repr(value))


def mask_rule_name(text: str) -> str:
    """Return a mask rule. Raises argparse.ArgumentTypeError for anything else."""
    if text not in MASK_RULES:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed are {' and '.join(MASK_RULES)}")
    return text
