"""Checkpoint selection: three rules, tracked side by side.

"test": best on the test set, which the released code does and which is an oracle. "valid": best on
the images of `valid` that are not shots. "last": the end of the training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from mvfa.evaluation import Evaluation
from mvfa.keeper import Keeper
from mvfa.recipe import CHOICES

Moment = dict[str, float | None]


class Aurocs(NamedTuple):
    """AUROCs as fractions; pixel_auroc only where there are masks."""

    image_auroc: float
    pixel_auroc: float | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        """Return the AUROCs of an evaluation."""
        return cls(evaluation.image_auroc, evaluation.pixel_auroc)

    @property
    def total(self) -> float:
        """What checkpoints are compared by: the sum."""
        return self.image_auroc + (self.pixel_auroc or 0.0)


def mean(group: list[Aurocs]) -> Aurocs:
    """Return means over objects; of pixels, over those with masks."""
    pixels = [aurocs.pixel_auroc for aurocs in group if aurocs.pixel_auroc is not None]
    image = sum(aurocs.image_auroc for aurocs in group) / len(group)
    return Aurocs(image, sum(pixels) / len(pixels) if pixels else None)


@dataclass
class Selection:
    """The moments of a training, and the one that each rule has chosen so far.

    `rule` decides which adapters are kept. A training starts every moment with `start`, then adds
    what it has measured there; both say whether the rule now keeps that moment's adapters. Only
    the rule "test" needs the test set at every moment; the others are tested at the end. The first
    of equals wins; with `equal_replaces` the rule "test" takes the last of equals, as the released
    zero-shot training does.
    """

    rule: str
    equal_replaces: bool = False
    history: list[Moment] = field(default_factory=list)
    chosen: dict[str, Moment] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)

    def skips(self, *, last: bool) -> bool:
        """Return whether nothing is to be measured now: with "last", before the end."""
        return self.rule == "last" and not last

    def needs_test(self, *, last: bool) -> bool:
        """Return whether the test set is to be scored now."""
        return self.rule == "test" or last

    def start(self, epoch: float, *, last: bool = False) -> bool:
        """Start the moment after `epoch` epochs; "last" chooses the end of the training."""
        self.history.append({"epoch": epoch})
        if last:
            self.chosen["last"] = self.history[-1]
        return last and self.rule == "last"

    def add_valid(self, aurocs: Aurocs) -> bool:
        """Add this moment's AUROCs on `valid`."""
        entries = {f"valid_{name}": value for name, value in aurocs._asdict().items()}
        self.history[-1] |= entries
        better = aurocs.total > self.best.get("valid", -1.0)
        return self._choose("valid", aurocs) if better else False

    def add_test(self, aurocs: Aurocs, *, oracle: bool = True) -> bool:
        """Add this moment's AUROCs on the test set.

        `oracle`: whether the rule "test" may choose this moment.
        """
        self.history[-1] |= aurocs._asdict()
        best = self.best.get("test", -1.0)
        better = aurocs.total > best or (self.equal_replaces and aurocs.total == best)
        may_choose = oracle and self.rule == "test"
        return self._choose("test", aurocs) if may_choose and better else False

    def assess(
        self,
        epoch: float,
        kept: Keeper,
        test: Callable[[], Evaluation],
        valid: Sequence[Callable[[], Evaluation]] = (),
        *,
        last: bool = False,
        oracle: bool = True,
    ) -> Evaluation | None:
        """Measure what the rules need after `epoch` epochs; keep the adapters if the rule says so.

        `test` scores the test set, and `valid` the images of `valid` of each object, if there are
        any. At the end, adapters that are chosen without the test set are saved before it is
        scored, which may fail. Return the evaluation of the test set, None if it was not scored.
        """
        chosen = self.start(epoch, last=last)
        if valid and self.add_valid(mean([Aurocs.of(score()) for score in valid])):
            chosen = True
        if chosen:
            kept.keep(epoch)
        if not self.needs_test(last=last):
            return None
        if last and self.rule != "test":  # else this test may change the choice
            kept.save()
        evaluation = test()
        if self.add_test(Aurocs.of(evaluation), oracle=oracle):
            kept.keep(epoch, evaluation)
        elif chosen:
            kept.evaluation = evaluation
        return evaluation

    def state(self) -> dict[str, Any]:
        """Return what was measured and chosen as JSON values, see `restore_state`."""
        moments = {
            rule: next(i for i, each in enumerate(self.history) if each is moment)
            for rule, moment in self.chosen.items()
        }
        return {"history": self.history, "chosen": moments, "best": self.best}

    def restore_state(self, values: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.history = list(values["history"])
        self.chosen = {rule: self.history[i] for rule, i in values["chosen"].items()}
        self.best = dict(values["best"])

    @property
    def is_best(self) -> bool:
        """Whether the rule "test" has chosen the latest moment."""
        return self.chosen.get("test") is self.history[-1]

    def _choose(self, rule: str, aurocs: Aurocs) -> bool:
        self.best[rule] = aurocs.total
        self.chosen[rule] = self.history[-1]
        return rule == self.rule

    def finish(self, kept: Keeper, test: Callable[[], Evaluation]) -> Evaluation | None:
        """Save the kept adapters, and score the test set if they were chosen earlier without it.

        Return that evaluation, None if the kept adapters have been tested already.
        """
        kept.save()
        if kept.evaluation is not None:
            return None
        kept.restore()
        kept.evaluation = test()
        self.chosen[self.rule] |= Aurocs.of(kept.evaluation)._asdict()
        return kept.evaluation

    def as_dict(self) -> dict[str, Any]:
        """Return what a run writes of its selection.

        `selections` has the moment of each rule that has chosen one which was tested.
        """
        tested = {
            rule: self.chosen[rule]
            for rule in CHOICES["select"]
            if "image_auroc" in self.chosen.get(rule, {})
        }
        return {
            "best_epoch": self.chosen[self.rule]["epoch"],
            "selections": tested,
            "evaluations": self.history,
        }
