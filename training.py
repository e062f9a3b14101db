"""A training run: epochs, the choice of the checkpoint, and its files."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import checkpoint
from caches import installed_memory
from CLIP import packed
from dataset.catalog import Info
from dataset.folder import ImageSet
from dataset.medical_few import validation_set
from dataset.shots import Shots
from engine import Trainer, train
from errors import UserError
from evaluation import Evaluation
from loss import Objective
from options import Options
from report import results
from runner import Bank, Run, show
from selection import Figures, Selection, figures, mean
from streams import Streams
from utils import writable

PACKING_MEMORY = 15e9  # bytes of installed memory a process, from which on weights are laid out unasked: "16 GB"

Valid = Sequence[tuple[Info, Streams]]  # the objects whose images of `valid` choose, and those images


class TrainingRun(Run):
    """A run that trains the adapters, looks at them at moments of the training, and keeps those that a rule chooses."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.save_model:
            writable(options.save_path, "--save_path")
        if options.pack and not self.packable:
            raise UserError(
                f"--pack yes needs a CPU, fp32, a torch with Intel MKL and no --compile; got {self.device}, "
                f"{self.precision}, {'with' if packed.available() else 'without'} MKL; leave the flag out"
            )
        self.rule = options.recipe.select
        self.selection, self.losses = Selection(), list[float]()
        self.shots_used: Shots | None = None
        self.best: Evaluation | None = None
        self.state: dict[str, dict[str, Tensor]]  # the adapters that the rule has chosen
        if options.init is not None:
            checkpoint.apply(self.mvfa, checkpoint.load(options.init))

    @property
    def packable(self) -> bool:
        """Whether this run's frozen weights can be laid out for its training steps."""
        plain = self.device.type == "cpu" and self.precision == "fp32" and not self.options.compile
        return plain and packed.available()

    @property
    def packs(self) -> bool:
        """Whether they are. Steps of several images gain little; a small machine needs its memory for other things."""
        if self.options.pack is not None:
            return self.options.pack
        roomy = installed_memory() >= PACKING_MEMORY * self.world.size
        return self.packable and roomy and self.options.batch_size == 1

    @property
    def settled(self) -> dict[str, Any]:
        """Options that the device decided where they were not given."""
        return super().settled | {"pack": self.packs}

    @cached_property
    def trainer(self) -> Trainer:
        """The optimisers and laid-out weights, made when training starts: they take seconds."""
        options = self.options
        if self.packs:
            self.mvfa.pack(options.batch_size)
        objective = Objective(options.recipe.bce_pool, options.recipe.bce_input)
        return Trainer(self.mvfa, objective, options.learning_rate, scaled=self.precision == "fp16")

    def shuffled(self, count: int) -> list[int]:
        """The order of an epoch's images, drawn anew each time."""
        return torch.randperm(count, generator=self.generator).tolist()

    @property
    def chosen(self) -> Evaluation:
        """The evaluation of the adapters that the rule chose."""
        assert self.best is not None, "a run evaluates at least once"
        return self.best

    def valid(self, objects: Sequence[Info], shots: Shots | None = None) -> Valid:
        """Streams of the images of `valid` that are not shots, none if no rule asks for them or an object has none.

        UserError if the rule needs them.
        """
        options = self.options
        if self.rule == "last":
            return []
        try:
            sets = {known: validation_set(options.data_path, known, options.img_size, shots) for known in objects}
        except UserError:  # an image without its mask, say: fatal only where these images decide
            if self.rule == "valid":
                raise
            return []
        lacking = [known.name for known, images in sets.items() if images is None]
        if lacking and self.rule == "valid":
            raise UserError(
                f"--select valid: valid/ of {lacking[0]} has not both normal and abnormal images that are no shots; "
                f"choose --select last"
            )
        if lacking:
            return []
        size = self.test_batch_size
        return [(known, self.streams(images, size)) for known, images in sets.items() if images is not None]

    def train(self, streams: Streams, order: Sequence[int], told: str) -> float:
        """Train on the images of `order` under a progress bar; returns the mean loss."""
        text = {noun: self.text(noun) for noun in dict.fromkeys(streams.source.nouns)}
        steps = -(-len(order) // (streams.batch_size * self.world.size))
        with show(steps, told, "step", self.world) as bar:

            def report(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()

            return train(self.trainer, streams, text, order, report)

    def test(self, streams: Streams, bank: Bank | None) -> Evaluation:
        """Score the test set and tell."""
        evaluation = self.evaluate(self.predict(streams, bank), streams)
        self.tell(evaluation)
        return evaluation

    def validate(self, valid: Valid, bank: Bank | None) -> Figures:
        """Mean AUROCs over the objects that choose."""
        return mean([figures(self.evaluate(self.predict(s, bank, known), s)) for known, s in valid])

    def assess(
        self,
        epoch: float,
        tests: Streams,
        valid: Valid,
        memory: Streams | None = None,
        *,
        last: bool = False,
        oracle: bool = True,
    ) -> None:
        """Look at the adapters after `epoch` epochs, and keep them if the rule chooses them.

        The released rule tests every time, the others once; `oracle`: whether the released rule may choose this moment.
        """
        if self.rule == "last" and not last:
            return
        bank = self.bank(memory)
        tested = self.test(tests, bank) if self.rule == "test" or last else None
        validated = self.validate(valid, bank) if valid else None
        rules = self.selection.note(
            epoch, figures(tested) if tested else None, validated, last=last, oracle=oracle and self.rule == "test"
        )
        if self.rule in rules:
            self.best, self.state = tested, checkpoint.adapter_state(self.mvfa)
            self.save(epoch)
        if last and self.best is None:  # the rule chose a moment that was not tested
            checkpoint.restore(self.mvfa, self.state)
            self.best = self.test(tests, self.bank(memory))
            self.selection.complete(self.rule, figures(self.best))

    def save(self, epoch: float) -> None:
        """Write the checkpoint of the chosen adapters."""
        options = self.options
        if options.save_model and self.world.first:
            shots = self.shots_used and self.shots_used.names()
            details: dict[str, Any] = {"seed": options.seed, "epoch": epoch, "versions": results.versions()}
            details |= {"shots": shots, "options": options.as_dict()}
            checkpoint.save(options.checkpoint, self.state, self.about() | details)

    def finish(self, tests: ImageSet) -> Evaluation:
        """Write what the training was and gave."""
        more: dict[str, Any] = {
            "best_epoch": self.selection.chosen[self.rule]["epoch"],
            "selections": self.selection.table(("test", "valid", "last")),
            "train_loss": self.losses,
            "evaluations": self.selection.history,
        }
        return self.write(self.chosen, tests, **more, shots=self.shots_used and self.shots_used.names())
