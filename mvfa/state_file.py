"""The file that an unfinished training goes on from: tensors, and values in its JSON header.

It is a safetensors file. Reading it runs no code, and a digest says that it is what was written.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dataset.layout import refuse_special
from errors import UserError
from mvfa.own_files import content_hash
from utils import write_whole

FORMAT = 1
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # in the texts of safetensors, written in Rust
KEY = "mvfa_state"  # of the values in the header's metadata


@dataclass(frozen=True)
class State:
    """What a training has reached: tensors on the CPU and JSON values, both by name."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def digest(self) -> str:
        """Return the SHA-256 of everything that it holds."""
        return content_hash(self.tensors, self.values)


def grouped(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names `<prefix>.<name>`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def group(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors named `<prefix>.<name>`, by name."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def save(tensors: Mapping[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file. Raises OSError, also where the package has a class of its own."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata=header)
    except SafetensorError as error:
        found = OS_ERROR.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from error


def write_state(path: Path, state: State) -> None:
    """Write a state, whole or not at all. Raises OSError."""
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    about = {"format": FORMAT, "values": state.values, "sha256": state.digest()}
    header = {KEY: json.dumps(about)}
    write_whole(path, lambda part: save(tensors, part, header))


def read_state(path: Path) -> State:
    """Read a state. Raises UserError if it is damaged, of another format or another file."""
    from safetensors import SafetensorError, safe_open

    unusable = f"{path} cannot be continued"
    refuse_special(path)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        written = about["format"]
        values = about["values"]
        digest = about["sha256"]
        state = State(tensors, values)
        changed = not isinstance(values, dict) or state.digest() != digest
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{unusable}: it is damaged, or no state of a training") from error
    if written != FORMAT:
        raise UserError(f"{unusable}: its format is {written}, this program's {FORMAT}")
    if changed:
        raise UserError(f"{unusable}: its content is not what was written")
    return state
