"""The adapters that a training keeps, until its checkpoint is written at the end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dataset.catalog import ObjectInfo
from dataset.shots import Shots
from mvfa import checkpoint
from mvfa.distributed import World
from mvfa.evaluation import Evaluation
from mvfa.methods.base import Method
from mvfa.options import Options
from mvfa.state_file import group, grouped
from mvfa.versions import versions


class Keeper:
    """The adapters that the checkpoint selection keeps, in memory until `save` writes them.

    `objects` are the target and, in zero-shot, those that are trained on. `evaluation` is the test
    of these adapters, None as long as they have not been tested; `epoch` is the time that they are
    of, in epochs.
    """

    def __init__(
        self,
        method: Method,
        options: Options,
        world: World,
        objects: Sequence[ObjectInfo],
        shots: Shots | None = None,
    ) -> None:
        """Raise UserError if the checkpoint could not be saved or would replace another's file."""
        self.method = method
        self.path = options.checkpoint if options.save_model else None
        if self.path is not None:
            checkpoint.check_replaceable(self.path, method.keys)
        self.first = world.first
        self.about = checkpoint.description(options, method, objects[0]) | objects[0].as_dict()
        self.about["train_objects"] = {info.name: info.as_dict() for info in objects[1:]} or None
        self.about |= {"seed": options.seed, "versions": versions()}
        self.about |= {"shots": shots and shots.names(), "options": options.as_dict()}
        self.adapters: dict[str, dict[str, Tensor]] = {}
        self.evaluation: Evaluation | None = None
        self.epoch = 0.0
        self.saved = False
        self.failure: OSError | None = None  # why the checkpoint could not be written

    def keep(self, epoch: float, evaluation: Evaluation | None = None) -> None:
        """Keep the method's adapters as they are after `epoch` epochs."""
        self.adapters = self.method.state()
        self.evaluation = evaluation
        self.epoch = epoch
        self.saved = False

    def save(self) -> None:
        """Write the checkpoint, at the first rank and only once: the training has ended.

        A full disk is kept in `failure`, since the results that are at hand are to be written, too.
        """
        if self.first and self.path is not None and not self.saved:
            self.failure = None
            about = self.about | {"epoch": self.epoch, "ended": True}
            try:
                checkpoint.save(self.path, self.adapters, about)
            except OSError as error:
                self.failure = error
        self.saved = True

    @property
    def written(self) -> Path | None:
        """Return the file that the kept adapters are in, None if they were not or cannot be."""
        return self.path if self.failure is None else None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what is kept as tensors and JSON values, see `restore_state`."""
        tensors = grouped("adapters", checkpoint.flat_adapters(self.adapters))
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
        kept = checkpoint.split_adapters(group("adapters", tensors))
        # in the method's own order, so that equal adapters are equal files
        order = self.method.state() if kept else {}
        self.adapters = {key: {name: kept[key][name] for name in own} for key, own in order.items()}
        self.epoch = values["epoch"]
        self.evaluation = None
        if values["evaluation"] is not None:
            scores = group("evaluation", tensors)
            self.evaluation = Evaluation(**{**scores, **values["evaluation"]})

    def restore(self) -> None:
        """Put the kept adapters back into the method."""
        self.method.restore(self.adapters)
