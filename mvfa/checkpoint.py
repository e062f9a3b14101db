"""Save and load adapters: files that are whole or absent, and that describe themselves (SPEC 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from CLIP.hashing import file_hash
from CLIP.stored import DamagedError
from dataset.catalog import ObjectInfo
from dataset.shots import Shots
from errors import UserError
from mvfa import own_files
from mvfa.console import note
from mvfa.defaults import FEW, STATE_SUFFIX
from mvfa.distributed import World
from mvfa.methods.base import Method
from mvfa.methods.catalog import METHODS, MVFA
from mvfa.options import Options
from mvfa.recipe import SCORING_FIELDS
from mvfa.versions import commit
from utils import write_whole

FORMAT = 1

Adapters = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by group (of adapters), and the file's description of itself; others' have none."""

    adapters: Adapters
    about: dict[str, Any]
    path: Path


def flat_adapters(adapters: Adapters) -> dict[str, Tensor]:
    """Return matrices by `<key>.<name>` in one dictionary."""
    return {
        f"{key}.{name}": matrix
        for key, matrices in adapters.items()
        for name, matrix in matrices.items()
    }


def split_adapters(flat: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return what `flat_adapters` was given."""
    adapters: dict[str, dict[str, Tensor]] = {}
    for name, matrix in flat.items():
        key, _, rest = name.partition(".")
        adapters.setdefault(key, {})[rest] = matrix
    return adapters


def save(path: Path, adapters: Adapters, about: Mapping[str, Any]) -> None:
    """Write a checkpoint: the groups of the authors' files, and `about`, its description."""
    data = own_files.encode(adapters, {"format": FORMAT, "commit": commit(), **about})
    write_whole(path, lambda partial: partial.write_bytes(data))


def load(path: Path, keys: Sequence[str]) -> Checkpoint:
    """Read a checkpoint, own or the authors', of a method with these groups (`Method.keys`).

    Raises UserError if it is missing, damaged, of another format or another file.
    """
    if not path.is_file():
        remedy = "train it first, or name another file"
        if path.with_suffix(STATE_SUFFIX).is_file():
            remedy = "its training was stopped: give that command again, or name another file"
        raise UserError(f"no checkpoint {path}; {remedy}")
    remedy = "train it again or copy it again"
    try:
        groups, about, digest = own_files.read(path, keys)
    except (DamagedError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is not a readable checkpoint ({reason}); {remedy}") from error
    if digest is None and "ended" in about:  # no older file has this entry
        raise UserError(f"{path} is not a readable checkpoint (it has lost its digest); {remedy}")
    if not all(key in groups for key in keys):
        title = next(info.title for info in METHODS.values() if info.keys == tuple(keys))
        raise UserError(f"{path} is no {title} checkpoint: it needs the keys {' and '.join(keys)}")
    if about.get("format", FORMAT) != FORMAT:
        written = about["format"]
        raise UserError(
            f"{path} is a checkpoint of format {written!r}, this program reads format {FORMAT}; "
            "train it again"
        )
    return Checkpoint({key: groups[key] for key in keys}, about, path)


def readable(path: Path, keys: Sequence[str]) -> bool:
    """Return whether a checkpoint of a method with these groups can be read."""
    try:
        load(path, keys)
    except UserError:
        return False
    return True


def apply(method: Method, checkpoint: Checkpoint) -> None:
    """Put the tensors of a checkpoint into a method. Raises UserError unless all of them fit."""
    method.restore(method.check(checkpoint.adapters, checkpoint.path))


def initialise(method: Method, path: Path | None) -> None:
    """Start from the adapters of a checkpoint, of --init, if there is one. Raises UserError."""
    if path is not None:
        apply(method, load(path, method.keys))


def check_replaceable(path: Path, keys: Sequence[str]) -> None:
    """Raise UserError if a file that this program did not write would be replaced."""
    if not path.exists():
        return
    try:
        own = "format" in load(path, keys).about
    except UserError:
        own = False
    if not own:
        raise UserError(
            f"{path} was not written by this program and would be lost; move it, or pass another "
            f"--save_path DIR"
        )


def description(options: Options, method: Method, target: ObjectInfo) -> dict[str, Any]:
    """Return what a checkpoint must agree with to be used by a run."""
    about: dict[str, Any] = {"method": options.method, "method_settings": method.settings()}
    about["setting"] = options.adapters_setting
    about["object"] = options.obj
    about |= {"noun": target.noun, "intensity": str(target.intensity)}
    if options.adapters_setting == FEW:
        about["shot"] = options.shot
    recipe = options.recipe.as_dict()
    about["features_list"] = list(options.features_list)
    about["img_size"] = options.img_size
    about["weights"] = file_hash(method.weights)
    about["recipe"] = {name: recipe[name] for name in SCORING_FIELDS}
    return about


def entries(key: str, value: Any) -> dict[str, Any]:
    """Return the entries of a description's value by name: "recipe keep", or just the key."""
    if isinstance(value, dict):
        return {f"{key} {name}": entry for name, entry in value.items()}
    return {key: value}


def difference(checkpoint: Checkpoint, expected: Mapping[str, Any]) -> str:
    """Return the first thing that a checkpoint says it is for and a run is not, "" if none.

    What a file does not say at all, as the authors' files, is not compared.
    """
    for key in [key for key in expected if key in checkpoint.about]:
        described = entries(key, checkpoint.about[key])
        needed = entries(key, expected[key])
        different = [name for name in needed | described if described.get(name) != needed.get(name)]
        if different:
            name = different[0]
            made = f"{checkpoint.path} was made with {name} = {described.get(name)}"
            return f"{made}, this run needs {needed.get(name)}"
    return ""


def find_adapters(options: Options, world: World) -> Path:
    """Return the file of the adapters to test: --ckpt, or the first that exists of three names.

    These are the run's own checkpoint and, in few-shot, <obj>.pth, as the authors name theirs, and
    <obj>_<K>.pth, as the reproducibility study does (of MadCLIP <obj>.tar.pth, as one is). Says
    which one is taken if there are several.
    """
    if options.ckpt is not None:
        return options.ckpt
    names = [options.checkpoint.name]
    if options.method != MVFA:
        names += [f"{options.obj}.pth", f"{options.obj}.tar.pth"]
    elif options.adapters_setting == FEW:
        names += [f"{options.obj}.pth", f"{options.obj}_{options.shot}.pth"]
    existing = [options.save_path / name for name in names if (options.save_path / name).is_file()]
    if len(existing) > 1:
        others = ", ".join(map(str, existing[1:]))
        remedy = "pass --ckpt FILE to choose"
        note(f"adapters of {existing[0]}; not taken: {others} ({remedy})", world)
    return existing[0] if existing else options.checkpoint


def load_adapters(
    options: Options,
    method: Method,
    world: World,
    target: ObjectInfo,
    shots: Shots | None = None,
) -> Path | None:
    """Load the adapters to test into a method; return their file, None if it has none.

    A checkpoint of another object, noun, intensity, image size, recipe, backbone or (with `shots`)
    of other shots is refused unless --ckpt names it; then a remark says so, and so for a training
    that did not end. Raises UserError.
    """
    if not method.keys:
        return None
    path = find_adapters(options, world)
    checkpoint = load(path, method.keys)
    expected = description(options, method, target)
    if shots is not None and options.adapters_setting == FEW:
        expected["shots"] = shots.names()
    different = difference(checkpoint, expected)
    if different and options.ckpt is None:
        remedy = "train again, or pass the file with --ckpt to use it anyway"
        raise UserError(f"{different}; {remedy}")
    apply(method, checkpoint)
    if different:
        note(f"{different}; it is used because --ckpt names it", world)
    note_ending(checkpoint, world)
    return path


def note_ending(checkpoint: Checkpoint, world: World) -> None:
    """Say if a checkpoint may be of a training that did not end, or one goes on beside it."""
    path = checkpoint.path
    if "format" in checkpoint.about and not checkpoint.about.get("ended"):
        remark = "it is of an earlier version, which also saved while it trained"
        note(f"{path} does not say that its training ended: {remark}", world)
    state = path.with_suffix(STATE_SUFFIX)
    if state.is_file():
        remedy = "the same command goes on with it"
        note(f"{path} is of an earlier training; the last was stopped ({state}): {remedy}", world)
