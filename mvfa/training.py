"""A training run: epochs, the choice of the checkpoint, and its files."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from CLIP import packed
from CLIP.packed import PackedTower
from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet
from dataset.medical_few import validation_set
from dataset.shots import Shots
from errors import UserError
from loss import Objective
from mvfa import checkpoint, results
from mvfa.caches import installed_memory
from mvfa.engine import Trainer, train
from mvfa.evaluation import Evaluation
from mvfa.features import FeatureLoader
from mvfa.options import FEW, ZERO, Options
from mvfa.runner import Bank, Run, show
from mvfa.selection import Figures, Selection, figures, mean
from utils import writable

PACKING_MEMORY = (
    15e9  # bytes of installed memory a process, from which on weights are packed unasked: "16 GB"
)

Valid = Sequence[
    tuple[ObjectInfo, FeatureLoader]
]  # the objects whose images of `valid` choose, and those images


class TrainingRun(Run):
    """A run that trains the adapters, looks at them at moments of the training, and keeps those that a rule chooses."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.save_model:
            writable(options.save_path, "--save_path")
            checkpoint.check_replaceable(options.checkpoint)
        if options.pack and not self.packable:
            raise UserError(
                f"--pack yes needs a CPU, fp32, a torch with Intel MKL and no --compile; got {self.device}, "
                f"{self.precision}, {'with' if packed.available() else 'without'} MKL; leave the flag out"
            )
        self.rule = options.recipe.select
        self.selection, self.losses = (
            Selection(equal_replaces=options.setting == ZERO),
            list[float](),
        )
        self.shots_used: Shots | None = None
        self.empty_masks = 0  # of the test set
        self.step = 0  # of the epoch at hand, counted from 0
        self.best: Evaluation | None = None
        self.state: dict[str, dict[str, Tensor]]  # the adapters that the rule has chosen
        if options.init is not None:
            checkpoint.apply(self.mvfa, checkpoint.load(options.init))

    @property
    def packable(self) -> bool:
        """Whether this run's frozen weights can be packed for its training steps."""
        plain = self.device.type == "cpu" and self.precision == "fp32" and not self.options.compile
        return plain and packed.available()

    @property
    def packs(self) -> bool:
        """Whether they are.

        Unasked only where a gain was measured: steps of one image on an Intel processor, with memory to spare.
        """
        if self.options.pack is not None:
            return self.options.pack
        roomy = installed_memory() >= PACKING_MEMORY * self.world.size
        return self.packable and roomy and self.options.batch_size == 1 and packed.gains_here()

    @property
    def settled(self) -> dict[str, Any]:
        """Options that the device decided where they were not given."""
        return super().settled | {"pack": self.packs}

    @cached_property
    def trainer(self) -> Trainer:
        """The optimisers, made when training starts."""
        options = self.options
        objective = Objective(options.recipe.bce_pool, options.recipe.bce_input)
        return Trainer(self.mvfa, objective, options.learning_rate, scaled=self.precision == "fp16")

    @cached_property
    def packed_tower(self) -> PackedTower | None:
        """The packed blocks after the first adapter, made when training starts: it takes seconds."""
        visual = self.mvfa.visual
        rows = self.options.batch_size * len(visual.positional_embedding)
        return PackedTower(visual.transformer, self.mvfa.levels[0], rows) if self.packs else None

    def fast_products(self) -> AbstractContextManager[None]:
        """Within, training steps use packed products, if this run has them. Scores are never computed within."""
        return nullcontext() if self.packed_tower is None else self.packed_tower.swapped_in()

    def shuffled(self, count: int) -> list[int]:
        """The order of an epoch's images, drawn anew each time."""
        return torch.randperm(count, generator=self.generator).tolist()

    @property
    def chosen(self) -> Evaluation:
        """The evaluation of the adapters that the rule chose."""
        assert self.best is not None, "a run evaluates at least once"
        return self.best

    def valid(self, objects: Sequence[ObjectInfo], shots: Shots | None = None) -> Valid:
        """FeatureLoader of the images of `valid` that are not shots, none if no rule asks for them or an object has none.

        UserError if the rule needs them.
        """
        options = self.options
        if self.rule == "last":
            return []
        try:
            sets = {
                known: validation_set(options.data_path, known, options.img_size, shots)
                for known in objects
            }
            for known, images in sets.items():
                if images is not None:
                    self.check(images, f"valid images of {known.name}")
        except (
            UserError
        ) as error:  # an image without its mask, say: fatal only where these images decide
            if self.rule == "valid":
                raise
            self.tell(f"note: valid/ chooses no checkpoint, since {error}")
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
        return [
            (known, self.streams(images, size))
            for known, images in sets.items()
            if images is not None
        ]

    def fill(self, streams: FeatureLoader, order: Sequence[int]) -> None:
        """Compute streams ahead, in the batches of a test, as far as they are kept."""
        streams.fill(order, self.test_batch_size)

    def train(self, streams: FeatureLoader, order: Sequence[int], told: str) -> float:
        """Train on the images of `order` under a progress bar; returns the mean loss."""
        text = {noun: self.text(noun) for noun in dict.fromkeys(streams.source.nouns)}
        steps = -(-len(order) // (streams.batch_size * self.world.size))
        with show(steps, told, "step", self.world) as bar:

            def report(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()

            trainer = self.trainer
            with self.fast_products():
                return train(trainer, streams, text, order, report)

    def test(self, streams: FeatureLoader, bank: Bank | None) -> Evaluation:
        """Score the test set and print its AUROCs."""
        evaluation = self.evaluate(self.predict(streams, bank), streams)
        self.print_result(evaluation)
        return evaluation

    def validate(self, valid: Valid, bank: Bank | None) -> Figures:
        """Mean AUROCs over the objects that choose."""
        return mean([figures(self.evaluate(self.predict(s, bank, known), s)) for known, s in valid])

    def assess(
        self,
        epoch: float,
        tests: FeatureLoader,
        valid: Valid,
        memory: FeatureLoader | None = None,
        *,
        last: bool = False,
        oracle: bool = True,
    ) -> None:
        """Look at the adapters after `epoch` epochs, and keep them if the rule chooses them.

        The released rule tests every time, the others once, after the adapters that they chose are saved: a test that
        fails does not cost the training. `oracle`: whether the released rule may choose this moment.
        """
        if self.rule == "last" and not last:
            return
        self.selection.moment(epoch, last=last)
        bank = self.bank(memory)
        better = bool(valid) and self.selection.validated(self.validate(valid, bank))
        chosen = last if self.rule == "last" else better and self.rule == "valid"
        if chosen:
            self.keep(epoch, None)
        if self.rule == "test" or last:
            tested = self.test(tests, bank)
            best = self.selection.tested(figures(tested), oracle=oracle and self.rule == "test")
            if self.rule == "test" and best:
                self.keep(epoch, tested)
                self.print(self.best_line(epoch))
            elif chosen:
                self.best = tested
        if last and self.best is None:  # the rule chose a moment that was not tested
            checkpoint.restore(self.mvfa, self.state)
            self.best = self.test(tests, self.bank(memory))
            self.selection.complete(self.rule, figures(self.best))

    def best_line(self, epoch: float) -> str:
        """The line of the released code for a new best moment. It counts epochs from 0."""
        if self.options.setting == FEW:
            return "Best result\n"
        return f"best epoch found: epoch {int(epoch)} batch {self.step}\n"

    def keep(self, epoch: float, tested: Evaluation | None) -> None:
        """Hold and save the adapters as they are now; `tested`: their evaluation, if there is one yet."""
        self.best, self.state = tested, checkpoint.adapter_state(self.mvfa)
        self.save(epoch)

    def save(self, epoch: float) -> None:
        """Write the checkpoint of the chosen adapters."""
        options = self.options
        if options.save_model and self.world.first:
            shots = self.shots_used and self.shots_used.names()
            details: dict[str, Any] = {
                "seed": options.seed,
                "epoch": epoch,
                "versions": results.versions(),
            }
            details |= {"shots": shots, "options": options.as_dict()}
            checkpoint.save(options.checkpoint, self.state, self.about() | details)
            self.adapters = options.checkpoint

    def finish(self, tests: ImageSet) -> Evaluation:
        """Write what the training was and gave."""
        more: dict[str, Any] = {
            "best_epoch": self.selection.chosen[self.rule]["epoch"],
            "selections": self.selection.table(("test", "valid", "last")),
            "train_loss": self.losses,
            "evaluations": self.selection.history,
        }
        more["empty_masks"] = self.empty_masks
        return self.write(
            self.chosen, tests, **more, shots=self.shots_used and self.shots_used.names()
        )
