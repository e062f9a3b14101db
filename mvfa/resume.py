"""Go on with a training that was stopped, as if it had not been (SPEC section 4).

After every epoch, and in zero-shot before every test within one, what a training has reached is
written to a state file beside its checkpoint. The same command goes on from there: results equal
those of a training that was not stopped, on a CPU to the bit. The file goes when the results are
written; until then the checkpoint and the results of an earlier training stay.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from CLIP.hashing import file_hash
from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet, Record
from errors import UserError
from mvfa import __version__
from mvfa.checkpoint import flat_adapters, split_adapters
from mvfa.console import note
from mvfa.engine import Trainer
from mvfa.environment import Environment
from mvfa.features import FeatureLoader
from mvfa.keeper import Keeper
from mvfa.options import Options
from mvfa.packing import packs
from mvfa.schedule import Part
from mvfa.selection import Selection
from mvfa.state_file import State, group, grouped, read_state, write_state

WRITING_SHARE = 0.02  # of a training's time that writing states may take
# options that change no result, or whose effect is described otherwise
OTHER_OPTIONS = (
    *("out", "save_path", "data_path", "fewshot_path", "cache_dir", "cache_gb", "workers"),
    *("clip_path", "init", "device", "precision", "pack", "test_batch_size"),
    *("cache_images", "resume"),
)


def records_of(sets: Iterable[tuple[ObjectInfo, ImageSet]]) -> list[Record]:
    """Return the records of the image sets of several objects."""
    return [record for _, images in sets for record in images.records]


def data_digest(records: Iterable[Record], data_path: Path) -> str:
    """Return a digest of names and sizes of images and masks, below the data folder."""
    digest = sha256()
    for record in records:
        for path in filter(None, (record.image, record.mask)):
            name = path.relative_to(data_path).as_posix()
            digest.update(f"{name} {path.stat().st_size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def command_of(
    options: Options, env: Environment, weights: Path, records: Iterable[Record]
) -> dict[str, Any]:
    """Return what two trainings must share for one to go on with the other's state."""
    shared = {k: v for k, v in options.as_dict().items() if k not in OTHER_OPTIONS}
    shared |= {
        "weights": file_hash(weights),
        "init": options.init and file_hash(options.init),
        "images": data_digest(records, options.data_path),
        "device": env.device.type,
        "precision": env.precision,
        "pack": packs(options, env),
        "processes": env.world.size,
        "program": __version__,
    }
    return json.loads(json.dumps(shared))  # as it is read back


class Progress:
    """How far a training has come: the epochs that are left, and the state file of those done.

    Args:
        options: the training's options; without a checkpoint there is no state file.
        env: device and processes; the first process writes the file, and all read it.
        kept: the adapters that the selection keeps.
        trainer: model, optimizers and loss scale.
        generator: what the order of an epoch's images is drawn from.
        selection: the moments that were tested.
        records: all images that are trained on or scored.

    Attributes:
        losses: the mean loss of each epoch.
        loss: the part of this epoch's mean loss that was added up so far.
        resumed: whether the training goes on from a state file.
        earlier_seconds: the time that it took until it was stopped.

    """

    def __init__(
        self,
        options: Options,
        env: Environment,
        kept: Keeper,
        trainer: Trainer,
        generator: torch.Generator,
        selection: Selection,
        records: Sequence[Record],
    ) -> None:
        self.path = options.state if options.save_model else None
        self.total = options.epoch
        self.world = env.world
        self.kept = kept
        self.trainer = trainer
        self.generator = generator
        self.selection = selection
        self.losses: list[float] = []
        self.loss = 0.0
        self.epoch = 0  # epochs that are done
        self.parts_done = 0  # of the next one
        self.resumed = False
        self.earlier_seconds = 0.0
        self.started = env.started
        self.first_shuffle = generator.get_state()  # the generator before the first epoch
        self.shuffle = self.first_shuffle  # the same before this epoch
        self.written = time.monotonic()
        self.writing_seconds = 0.0
        if self.path is not None:
            self.command = command_of(options, env, kept.method.weights, records)
            self._start(resume=options.resume)

    def epochs(self) -> Iterator[int]:
        """Yield the epochs that are left, counted from 0; write the state after each."""
        while self.epoch < self.total:
            self.shuffle = self.generator.get_state()
            yield self.epoch
            self.epoch += 1
            self.parts_done = 0
            self.loss = 0.0
            self.shuffle = self.generator.get_state()
            self._save()

    def parts(self, parts: Sequence[Part]) -> Iterator[Part]:
        """Yield the parts of an epoch that are left; write the state after each but the last."""
        for number, part in enumerate(parts[self.parts_done :], self.parts_done + 1):
            yield part
            self.parts_done = number
            if number < len(parts):
                self._save()

    def refill(self, loader: FeatureLoader, images: int) -> None:
        """Cache a training set's features of `images` images as the training that was stopped did.

        That was in the batches of its first epoch. Without such a training nothing is done.
        """
        if self.resumed:
            generator = torch.Generator()
            generator.set_state(self.first_shuffle)
            loader.fill_steps(torch.randperm(images, generator=generator).tolist())

    def remove(self) -> None:
        """Remove the state file: the training has ended and its results are written."""
        if self.path is not None and self.world.first:
            self.path.unlink(missing_ok=True)

    def _start(self, *, resume: bool) -> None:
        """Go on from the state file, if that belongs to this training; else say why not."""
        found = self.world.from_first(lambda: self._read(resume))
        if isinstance(found, State):
            self._restore(found)
            done = f"{self.epoch} of {self.total} epochs"
            done += f" and {self.parts_done} parts of the next" if self.parts_done else ""
            note(f"going on after {done} ({self.path})", self.world)
        elif found:
            kept = f", and this state stays as {self._set_aside()}" if resume else ""
            note(f"{found}; the training starts anew{kept}", self.world)

    def _set_aside(self) -> str:
        """Rename a state that this training does not go on from; return its new name."""
        assert self.path is not None
        aside = self.path.with_name(f"{self.path.name}.old")
        if self.world.first:
            with suppress(OSError):
                self.path.replace(aside)
        return aside.name

    def _read(self, resume: bool) -> State | str:
        """Return the state to go on from, else why there is none; "" if there is no file."""
        assert self.path is not None
        if not self.path.exists():
            return ""
        if not resume:
            return f"{self.path} is not used (--resume no)"
        try:
            state = read_state(self.path)
        except UserError as error:
            return str(error)
        written = state.values.get("command")
        if not isinstance(written, dict):
            return f"{self.path} does not say which command it belongs to"
        for name in {**self.command, **written}:
            if written.get(name) != self.command.get(name):
                return f"{self.path} belongs to another command, with another {name}"
        return state

    def _restore(self, state: State) -> None:
        """Go on from a state. Raises UserError if it was written by another program."""
        tensors = state.tensors
        values = state.values
        try:
            self.trainer.method.restore(split_adapters(group("model", tensors)))
            self.trainer.restore(group("adam", tensors), values["scaler"])
            self.kept.restore_state(group("kept", tensors), values["kept"])
            self.selection.restore_state(values["selection"])
            self.generator.set_state(tensors["generator"])
            torch.set_rng_state(tensors["global_generator"])
            self.losses = list(values["losses"])
            self.loss = values["loss"]
            self.epoch = values["epoch"]
            self.parts_done = values["parts_done"]
            self.earlier_seconds = values["seconds"]
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.path} does not fit this training; pass --resume no") from error
        self.resumed = True

    def _save(self) -> None:
        """Write the state, unless writing would take more than its share of the time."""
        started = time.monotonic()
        if self.path is None or not self.world.first:
            return
        if started - self.written < self.writing_seconds / WRITING_SHARE:
            return
        kept_tensors, kept_values = self.kept.state()
        tensors = {
            **grouped("model", flat_adapters(self.trainer.method.state())),
            **grouped("adam", self.trainer.optimizer_tensors()),
            **grouped("kept", kept_tensors),
            "generator": self.shuffle,
            "global_generator": torch.get_rng_state(),
        }
        values = {
            "command": self.command,
            "epoch": self.epoch,
            "parts_done": self.parts_done,
            "loss": self.loss,
            "losses": self.losses,
            "seconds": self.earlier_seconds + time.perf_counter() - self.started,
            "scaler": self.trainer.scaler.state_dict(),
            "selection": self.selection.state(),
            "kept": kept_values,
        }
        try:
            write_state(self.path, State(tensors, values))
        except OSError as error:  # the training itself needs no state
            reason = f"{self.path} cannot be written ({error.strerror})"
            note(f"{reason}: a stopped training goes on from the last one written", self.world)
        self.written = time.monotonic()
        self.writing_seconds = self.written - started
