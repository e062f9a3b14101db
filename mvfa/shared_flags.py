"""Flags that several scripts share: weights, machine, the object, the recipe. No torch."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from CLIP.weight_files import WEIGHTS_SHOWN, known_models
from dataset.catalog import MASK_RULES, object_noun
from dataset.intensity import intensity
from mvfa.defaults import (
    DEFAULT_MODEL,
    PRECISIONS,
)
from mvfa.flags import Flags, Parser, number, truth
from mvfa.recipe import APRIL_GAN, CHOICES, FIELDS, OWN_FLAGS, RECIPES, RECIPES_SHOWN

LARGEST_WEIGHT = 1e6  # of the recipe: no product of a few is infinite
# how a number of the recipe is read
WEIGHT: dict[str, Any] = {
    "type": number(float, -LARGEST_WEIGHT, top=LARGEST_WEIGHT),
    "metavar": "X",
}


def default_cache() -> Path:
    """Return the user's cache folder for this program, by the conventions of the system.

    For a user without a home, as in some containers, and where platformdirs is not installed, it
    is below the current folder.
    """
    # RuntimeError: no home; older versions return a path that begins with ~ instead
    with suppress(RuntimeError, ImportError):
        from platformdirs import user_cache_path

        if (path := user_cache_path("mvfa", appauthor=False)).is_absolute():
            return path
    return Path(".cache", "mvfa")


def add_weights(flags: Flags) -> None:
    """Add which CLIP weights are read."""
    flags.add(
        "model_name",
        f"one of {', '.join(known_models())}",
        shown=f"{DEFAULT_MODEL}, or what --clip_path holds",
    )
    flags.add(
        "clip_path",
        "weights of the backbone: CLIP's, DINOv2's with --method patch_memory",
        shown=f"the model's file in {WEIGHTS_SHOWN}",
        type=Path,
        metavar="FILE",
    )


def add_machine(flags: Flags) -> None:
    """Add where and how the network runs."""
    flags.add("device", "cpu, cuda, cuda:1, mps ...", shown="cuda where there is one, else cpu")
    flags.add(
        "precision",
        "number type of the backbone's matrix products",
        shown="fp16 on CUDA, else fp32",
        choices=PRECISIONS,
    )
    flags.add(
        "workers",
        "processes that decode images",
        shown="4 on CUDA, else 0",
        type=number(int, 0),
        metavar="N",
    )
    flags.add(
        "cache_dir",
        "folder of cached text features and decoded images",
        default_cache(),
        type=Path,
        metavar="DIR",
    )
    flags.yes_no(
        "cache_images",
        "cache decoded images in --cache_dir, so that later runs need not decode them: at 240 "
        "pixels 58 kB a grey image, 173 kB one in colour",
        None,
        shown="no on a CPU, else yes",
    )


def add_source(parser: Parser) -> None:
    """Add what the object is called and how its files are read."""
    flags = Flags(parser, "the object (for each flag object.toml in its folder has a key)")
    flags.add(
        "noun",
        "stands for the object in the sentences, as in 'damaged Brain'",
        shown="the catalog's, else the object's name",
        type=object_noun,
        metavar="WORDS",
    )
    flags.add(
        "mask_rule",
        "foreground of masks; half: grey values above 127, any: above 0, for masks of 0 and 1",
        shown="half",
        choices=MASK_RULES,
    )
    flags.add(
        "intensity",
        "how values of more than 8 bit become 8 bit: auto (a DICOM file's window, else minmax), "
        "minmax (each image's own range), full (the range of the type) or LOW:HIGH, as -200:250",
        shown="auto",
        type=intensity,
        metavar="RULE",
    )


def add_recipe(parser: Parser) -> None:
    """Add the recipe, and a flag for each of its fields."""
    flags = Flags(parser, "recipe (each flag overrides one choice of the recipe)")
    flags.add(
        "recipe",
        RECIPES_SHOWN,
        "released",
        choices=list(RECIPES),
    )
    for name, field in FIELDS.items():
        if name in OWN_FLAGS:
            continue
        values = {recipe: getattr(value, name) for recipe, value in RECIPES.items()}
        if values[APRIL_GAN] == values["released"]:
            del values[APRIL_GAN]
        if isinstance(field.default, bool):
            more: dict[str, Any] = {"type": truth, "metavar": "yes|no"}
            values = {recipe: "yes" if value else "no" for recipe, value in values.items()}
        else:
            more = {"type": str, "choices": CHOICES[name]} if name in CHOICES else WEIGHT
        shown = ", ".join(f"{recipe} {value}" for recipe, value in values.items())
        flags.add(name, field.metadata["help"], shown=shown, **more)
