"""Flags of methods, and which flags each of them has. No torch."""

from typing import Any

from errors import UserError
from mvfa.flags import Flags, Parser
from mvfa.methods.catalog import MADCLIP, METHODS, MVFA, PATCH_MEMORY, check_script
from mvfa.recipe import APRIL_GAN, FIELDS, LEVELS, OWN_FLAGS

ZERO_TRAINING = "train_zero"


def add_method(parser: Parser) -> None:
    """Add which method runs, and the flags of single methods."""
    flags = Flags(parser, "method (docs/methods.md)")
    names = ", ".join(f"{name} ({info.title})" for name, info in METHODS.items())
    flags.add("method", f"one of {names}", MVFA, choices=list(METHODS), metavar="METHOD")
    flags.yes_no(
        "rotate",
        "patch_memory: also keep seven rotations of each normal image, if images have no upright",
        None,
        shown="yes for Histopathology, else no",
    )
    flags.yes_no(
        "contrast_mood",
        "madclip: compare features with the difference of both texts, not with their own alone",
        True,
    )


def check_method(script: str, values: dict[str, Any]) -> None:
    """Raise UserError for flags that a method does not have, or a script that does not run it."""
    method = values["method"]
    info = METHODS[method]
    check_script(method, script)
    if values.get("abnormal_shot") == 0 and info.keys and ZERO_TRAINING not in info.scripts:
        raise UserError(
            f"--abnormal_shot 0 needs zero-shot adapters, and {info.title} has none; leave it out"
        )
    check_uses(method, values)
    if values["rotate"] is not None and method != PATCH_MEMORY:
        raise UserError(f"--rotate is for --method {PATCH_MEMORY}, not {method}; leave it out")
    if not values["contrast_mood"] and method != MADCLIP:
        raise UserError(f"--contrast_mood is for --method {MADCLIP}, not {method}; leave it out")


def check_uses(method: str, values: dict[str, Any]) -> None:
    """Raise UserError for a flag that would change nothing of a method.

    --select and --recipe paper hold for the runs of all methods.
    """
    uses = METHODS[method].uses
    if uses is None:
        return
    given = [name for name in FIELDS if name != "select" and values.get(name) is not None]
    given = [name for name in given if name not in OWN_FLAGS]
    given += ["score_levels"] if values.get("score_levels") else []
    given += ["features_list"] if tuple(values["features_list"]) != LEVELS else []
    given += [name for name in ("compile", "pack", "cuda_graphs") if values.get(name)]
    given += ["recipe"] if values["recipe"] == APRIL_GAN else []
    given += ["ckpt"] if values.get("ckpt") and not METHODS[method].keys else []
    if unused := [name for name in given if name not in uses]:
        allowed = ", ".join(f"--{name}" for name in uses) or "none of these"
        raise UserError(
            f"--{unused[0]} changes nothing of --method {method}, which uses {allowed}; "
            "leave it out"
        )
