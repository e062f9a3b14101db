"""Save and load adapters: files that are whole or absent and that describe themselves (SPEC section 3)."""

import io
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from CLIP.adapter import BRANCHES, MVFA
from CLIP.weights import check_state
from errors import UserError
from utils import LOAD_ERRORS, write_whole

FORMAT = 1
KEYS = tuple(f"{branch}_adapters" for branch in BRANCHES)


@dataclass(frozen=True)
class Checkpoint:
    """Adapter matrices by branch, and what the file says of itself: nothing for the authors' own files."""

    adapters: dict[str, dict[str, Tensor]]
    about: dict[str, Any]
    path: Path


def commit() -> str | None:
    """The commit of the working tree that this program runs from, None where that is not known."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def adapter_state(mvfa: MVFA) -> dict[str, dict[str, Tensor]]:
    """Copies of the adapter matrices by branch, on the CPU."""
    copy = {
        b: {k: v.detach().cpu().clone() for k, v in mvfa.adapters(b).state_dict().items()}
        for b in BRANCHES
    }
    return {f"{branch}_adapters": state for branch, state in copy.items()}


def save(
    path: Path, adapters: Mapping[str, Mapping[str, Tensor]], about: Mapping[str, Any]
) -> None:
    """Write a checkpoint: the two keys of the authors' files and `about`, which says what the adapters are for."""
    content, data = (
        {**adapters, "about": {"format": FORMAT, "commit": commit(), **about}},
        io.BytesIO(),
    )
    torch.save(content, data)  # saved straight to a file, it would hold the temporary file's name
    write_whole(path, lambda partial: partial.write_bytes(data.getbuffer()))


def check_replaceable(path: Path) -> None:
    """Raise UserError if there is a file that this program did not write, such as the authors' adapters."""
    if not path.exists():
        return
    try:
        own = "format" in load(path).about
    except UserError:
        own = False
    if not own:
        raise UserError(
            f"{path} was not written by this program and would be lost; move it, or pass another --save_path DIR"
        )


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, own or the authors'. UserError if the file is missing or something else."""
    if not path.is_file():
        raise UserError(f"no checkpoint {path}; train it first, or name another file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise UserError(
            f"{path} is not a readable checkpoint; train it again or copy it again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in KEYS):
        raise UserError(f"{path} is no MVFA checkpoint: it needs the keys {' and '.join(KEYS)}")
    return Checkpoint({key: content[key] for key in KEYS}, content.get("about", {}), path)


def check_about(checkpoint: Checkpoint, expected: Mapping[str, Any]) -> None:
    """Raise UserError if a checkpoint says that it is for something else. The authors' files say nothing."""
    for key, allowed in expected.items():
        got = checkpoint.about.get(key, allowed)
        if got != allowed:
            raise UserError(
                f"{checkpoint.path} was made with {key} = {got}, this run needs {allowed}; "
                f"train again, or pass the file with --ckpt to use it all the same"
            )


def restore(mvfa: MVFA, adapters: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put matrices that `adapter_state` gave back into their model."""
    for branch, key in zip(BRANCHES, KEYS, strict=True):
        mvfa.adapters(branch).load_state_dict(dict(adapters[key]))


def apply(mvfa: MVFA, checkpoint: Checkpoint) -> None:
    """Put the matrices of a checkpoint into a model. UserError unless every name and shape fits."""
    for branch, key in zip(BRANCHES, KEYS, strict=True):
        check_state(
            checkpoint.adapters[key],
            mvfa.adapters(branch).state_dict(),
            f"the {branch} adapters of {checkpoint.path}",
        )
    restore(mvfa, checkpoint.adapters)
