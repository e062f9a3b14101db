"""Save and load adapters: files that are whole or absent, and that describe themselves (SPEC 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from CLIP.adapter import HEADS, MVFA
from CLIP.hashing import file_hash
from CLIP.stored import DamagedError
from CLIP.weights import check_state
from dataset.catalog import ObjectInfo
from dataset.shots import Shots
from errors import UserError
from mvfa import own_files
from mvfa.console import note
from mvfa.distributed import World
from mvfa.evaluation import Evaluation
from mvfa.options import FEW, STATE_SUFFIX, Options
from mvfa.recipe import SCORING_FIELDS
from mvfa.state_file import group, grouped
from mvfa.versions import commit, versions
from utils import write_whole

FORMAT = 1
KEYS = tuple(f"{head}_adapters" for head in HEADS)

Adapters = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """Adapter matrices by head, and the file's description of itself; the authors' have none."""

    adapters: Adapters
    about: dict[str, Any]
    path: Path


def adapter_state(model: MVFA) -> dict[str, dict[str, Tensor]]:
    """Return copies of the adapter matrices by head, on the CPU."""
    state = {}
    for head, key in zip(HEADS, KEYS, strict=True):
        matrices = model.adapters(head).state_dict()
        state[key] = {name: value.detach().cpu().clone() for name, value in matrices.items()}
    return state


def restore(model: MVFA, adapters: Adapters) -> None:
    """Put matrices that `adapter_state` returned back into their model."""
    for head, key in zip(HEADS, KEYS, strict=True):
        model.adapters(head).load_state_dict(dict(adapters[key]))


def flat_adapters(adapters: Adapters) -> dict[str, Tensor]:
    """Return matrices by `<key>.<name>` in one dictionary."""
    return {
        f"{key}.{name}": matrix
        for key, matrices in adapters.items()
        for name, matrix in matrices.items()
    }


def split_adapters(flat: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return what `flat_adapters` was given."""
    adapters: dict[str, dict[str, Tensor]] = {key: {} for key in KEYS}
    for name, matrix in flat.items():
        key, _, rest = name.partition(".")
        adapters[key][rest] = matrix
    return adapters


def save(path: Path, adapters: Adapters, about: Mapping[str, Any]) -> None:
    """Write a checkpoint: the two keys of the authors' files, and `about`, its description."""
    data = own_files.encode(adapters, {"format": FORMAT, "commit": commit(), **about})
    write_whole(path, lambda partial: partial.write_bytes(data))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, own or the authors'.

    Raises UserError if it is missing, damaged, of another format or another file.
    """
    if not path.is_file():
        remedy = "train it first, or name another file"
        if path.with_suffix(STATE_SUFFIX).is_file():
            remedy = "its training was stopped: give that command again, or name another file"
        raise UserError(f"no checkpoint {path}; {remedy}")
    remedy = "train it again or copy it again"
    try:
        groups, about, digest = own_files.read(path, KEYS)
    except (DamagedError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is not a readable checkpoint ({reason}); {remedy}") from error
    if digest is None and "ended" in about:  # no older file has this entry
        raise UserError(f"{path} is not a readable checkpoint (it has lost its digest); {remedy}")
    if not all(key in groups for key in KEYS):
        raise UserError(f"{path} is no MVFA checkpoint: it needs the keys {' and '.join(KEYS)}")
    if about.get("format", FORMAT) != FORMAT:
        written = about["format"]
        raise UserError(
            f"{path} is a checkpoint of format {written!r}, this program reads format {FORMAT}; "
            "train it again"
        )
    return Checkpoint({key: groups[key] for key in KEYS}, about, path)


def apply(model: MVFA, checkpoint: Checkpoint) -> None:
    """Put the matrices of a checkpoint into a model. Raises UserError unless all of them fit."""
    for head, key in zip(HEADS, KEYS, strict=True):
        expected = model.adapters(head).state_dict()
        name = f"the {head} adapters of {checkpoint.path}"
        check_state(checkpoint.adapters[key], expected, name)
    restore(model, checkpoint.adapters)


def initialise(model: MVFA, path: Path | None) -> None:
    """Start from the adapters of a checkpoint, of --init, if there is one. Raises UserError."""
    if path is not None:
        apply(model, load(path))


def check_replaceable(path: Path) -> None:
    """Raise UserError if a file that this program did not write would be replaced."""
    if not path.exists():
        return
    try:
        own = "format" in load(path).about
    except UserError:
        own = False
    if not own:
        raise UserError(
            f"{path} was not written by this program and would be lost; move it, or pass another "
            f"--save_path DIR"
        )


def description(options: Options, weights: Path, target: ObjectInfo) -> dict[str, Any]:
    """Return what a checkpoint must agree with to be used by a run."""
    about: dict[str, Any] = {"setting": options.adapters_setting, "object": options.obj}
    about |= {"noun": target.noun, "intensity": str(target.intensity)}
    if options.adapters_setting == FEW:
        about["shot"] = options.shot
    recipe = options.recipe.as_dict()
    about["features_list"] = list(options.features_list)
    about["img_size"] = options.img_size
    about["weights"] = file_hash(weights)
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
    <obj>_<K>.pth, as the reproducibility study does. Says which one is taken if there are several.
    """
    if options.ckpt is not None:
        return options.ckpt
    names = [options.checkpoint.name]
    if options.adapters_setting == FEW:
        names += [f"{options.obj}.pth", f"{options.obj}_{options.shot}.pth"]
    existing = [options.save_path / name for name in names if (options.save_path / name).is_file()]
    if len(existing) > 1:
        others = ", ".join(map(str, existing[1:]))
        remedy = "pass --ckpt FILE to choose"
        note(f"adapters of {existing[0]}; not taken: {others} ({remedy})", world)
    return existing[0] if existing else options.checkpoint


def load_adapters(
    options: Options,
    model: MVFA,
    weights: Path,
    world: World,
    target: ObjectInfo,
    shots: Shots | None = None,
) -> Path:
    """Load the adapters to test into a model; return their file.

    A checkpoint of another object, noun, intensity, image size, recipe, backbone or (with `shots`)
    of other shots is refused unless --ckpt names it; then a remark says so, and so for a training
    that did not end. Raises UserError.
    """
    path = find_adapters(options, world)
    checkpoint = load(path)
    expected = description(options, weights, target)
    if shots is not None and options.adapters_setting == FEW:
        expected["shots"] = shots.names()
    different = difference(checkpoint, expected)
    if different and options.ckpt is None:
        remedy = "train again, or pass the file with --ckpt to use it anyway"
        raise UserError(f"{different}; {remedy}")
    apply(model, checkpoint)
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


class Keeper:
    """The adapters that the checkpoint selection keeps, in memory until `save` writes them.

    `objects` are the target and, in zero-shot, those that are trained on. `evaluation` is the test
    of these adapters, None as long as they have not been tested; `epoch` is the time that they are
    of, in epochs.
    """

    def __init__(
        self,
        model: MVFA,
        options: Options,
        weights: Path,
        world: World,
        objects: Sequence[ObjectInfo],
        shots: Shots | None = None,
    ) -> None:
        """Raise UserError if the checkpoint could not be saved or would replace another's file."""
        self.model = model
        self.weights = weights
        self.path = options.checkpoint if options.save_model else None
        if self.path is not None:
            check_replaceable(self.path)
        self.first = world.first
        self.about = description(options, weights, objects[0]) | objects[0].as_dict()
        self.about["train_objects"] = {info.name: info.as_dict() for info in objects[1:]} or None
        self.about |= {"seed": options.seed, "versions": versions()}
        self.about |= {"shots": shots and shots.names(), "options": options.as_dict()}
        self.adapters: dict[str, dict[str, Tensor]] = {}
        self.evaluation: Evaluation | None = None
        self.epoch = 0.0
        self.saved = False
        self.failure: OSError | None = None  # why the checkpoint could not be written

    def keep(self, epoch: float, evaluation: Evaluation | None = None) -> None:
        """Keep the model's adapters as they are after `epoch` epochs."""
        self.adapters = adapter_state(self.model)
        self.evaluation = evaluation
        self.epoch = epoch
        self.saved = False

    def save(self) -> None:
        """Write the checkpoint, at the first rank and only once: the training has ended.

        A full disk is kept in `failure`, since the results that are at hand are to be written, too.
        """
        if self.first and self.path is not None and not self.saved:
            self.failure = None
            try:
                save(self.path, self.adapters, self.about | {"epoch": self.epoch, "ended": True})
            except OSError as error:
                self.failure = error
        self.saved = True

    @property
    def written(self) -> Path | None:
        """Return the file that the kept adapters are in, None if they were not or cannot be."""
        return self.path if self.failure is None else None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what is kept as tensors and JSON values, see `restore_state`."""
        tensors = grouped("adapters", flat_adapters(self.adapters))
        values: dict[str, Any] = {"epoch": self.epoch, "evaluation": None}
        if self.evaluation is not None:
            entries = vars(self.evaluation)
            # copies, since two of them may be one tensor, which no safetensors file holds twice
            scores = {k: entry.clone() for k, entry in entries.items() if isinstance(entry, Tensor)}
            tensors |= grouped("evaluation", scores)
            values["evaluation"] = {k: v for k, v in entries.items() if k not in scores}
        return tensors, values

    def restore_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Keep again what `state` returned."""
        self.adapters = split_adapters(group("adapters", tensors))
        self.epoch = values["epoch"]
        self.evaluation = None
        if values["evaluation"] is not None:
            scores = group("evaluation", tensors)
            self.evaluation = Evaluation(**{**scores, **values["evaluation"]})

    def restore(self) -> None:
        """Put the kept adapters back into the model."""
        restore(self.model, self.adapters)
