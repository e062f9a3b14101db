"""Read the state dict of a TorchScript archive, whose code is not run. Needs no torch."""

import re
from typing import Any

from CLIP.pickles import Instance, Name
from CLIP.stored import DamagedError, Stored
from CLIP.torch_archive import Archive

MODULES = "__torch__"  # beginning of the modules of an archive's own classes
MOST_TENSORS = 20_000  # and modules
LONGEST_NAME = 2000  # letters of a tensor's dotted name
# the beginning of a class in an archive's code: its name, then the lists of its tensors' names
CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  __\w+__ = \[.*\]\n)*)", re.MULTILINE)
LIST = re.compile(r"__(parameters|buffers)__ = \[(.*)\]")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Code:
    """The code of an archive, of which only the names of parameters and buffers are read."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.names: dict[str, dict[str, list[str] | None]] = {}  # by file and class

    def tensor_names(self, kind: Name) -> list[str] | None:
        """Return which attributes of a class are parameters or buffers; None: all tensors are."""
        file = f"code/{kind.module.replace('.', '/')}.py"
        if file not in self.names:
            text = self.archive.text(file) if self.archive.has(file) else ""
            self.names[file] = dict(map(self.class_names, CLASS.finditer(text)))
        return self.names[file].get(kind.name)

    @staticmethod
    def class_names(found: re.Match[str]) -> tuple[str, list[str] | None]:
        """Return the name of a class that was found, and the names of its tensors."""
        lists = {kind: QUOTED.findall(names) for kind, names in LIST.findall(found[2])}
        if "buffers" not in lists:  # before torch 1.6
            return found[1], None
        return found[1], [*lists.get("parameters", []), *lists["buffers"]]


def state_dict(module: Any, archive: Archive) -> dict[str, Stored]:
    """Return the parameters and buffers of a module and those below it, by dotted names.

    They are those of torch.jit.load(...).state_dict(). Raises DamagedError.
    """
    code = Code(archive)
    state: dict[str, Stored] = {}
    waiting = [("", module)]
    seen = 0
    while waiting:
        prefix, owner = waiting.pop()
        if not isinstance(owner, Instance) or not isinstance(owner.state, dict):
            kind = owner.kind if isinstance(owner, Instance) else type(owner).__name__
            raise DamagedError(f"the code of its class {str(kind)[:80]} would have to be run")
        tensors, modules = members(owner, code)
        seen += 1 + len(tensors)
        if seen + len(waiting) + len(modules) > MOST_TENSORS or len(prefix) > LONGEST_NAME:
            raise DamagedError(f"it has more than {MOST_TENSORS} modules, or one within itself")
        state |= {prefix + name: value for name, value in tensors.items()}
        waiting += [(f"{prefix}{name}.", value) for name, value in reversed(modules.items())]
    return state


def members(module: Instance, code: Code) -> tuple[dict[str, Stored], dict[str, Instance]]:
    """Return the tensors of a module's own, and the modules directly below it, by name."""
    listed = code.tensor_names(module.kind)
    values = module.state
    names = values if listed is None else listed
    tensors = {n: values[n] for n in names if isinstance(values.get(n), Stored)}
    return tensors, {n: v for n, v in values.items() if isinstance(v, Instance)}
