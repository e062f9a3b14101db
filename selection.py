"""From which moment of a training the checkpoint is taken, by three rules side by side.

"test": best on the test set, which the released code does and which is an oracle. "valid": best on the images of
`valid` that are not shots. "last": the end of the training.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from evaluation import Evaluation

Entry = dict[str, float | None]


class Figures(NamedTuple):
    """AUROCs as fractions; pixel_auroc only where there are masks."""

    image_auroc: float
    pixel_auroc: float | None

    @property
    def worth(self) -> float:
        """What checkpoints are compared by: the sum."""
        return self.image_auroc + (self.pixel_auroc or 0.0)


def mean(group: list[Figures]) -> Figures:
    """Means over objects; pixels over those with masks."""
    pixels = [f.pixel_auroc for f in group if f.pixel_auroc is not None]
    return Figures(sum(f.image_auroc for f in group) / len(group), sum(pixels) / len(pixels) if pixels else None)


def figures(evaluation: Evaluation) -> Figures:
    """The two figures of an evaluation."""
    return Figures(evaluation.image_auroc, evaluation.pixel_auroc)


@dataclass
class Selection:
    """The moments of a training, and which of them each rule has chosen so far. The first of equals wins."""

    history: list[Entry] = field(default_factory=list)
    chosen: dict[str, Entry] = field(default_factory=dict)
    worth: dict[str, float] = field(default_factory=dict)

    def note(
        self, epoch: float, test: Figures | None, valid: Figures | None, *, last: bool = False, oracle: bool = True
    ) -> set[str]:
        """Add a moment after `epoch` epochs; the rules that now choose it. `oracle`: the test rule may choose it."""
        entry: Entry = {"epoch": epoch}
        self.history.append(entry)
        if test is not None:
            entry |= test._asdict()
        if valid is not None:
            entry |= {f"valid_{name}": value for name, value in valid._asdict().items()}
        rules = {"last"} if last else set()
        for rule, found, allowed in (("test", test, oracle), ("valid", valid, True)):
            if allowed and found is not None and found.worth > self.worth.get(rule, -1.0):
                self.worth[rule] = found.worth
                rules.add(rule)
        self.chosen |= dict.fromkeys(rules, entry)
        return rules

    def complete(self, rule: str, test: Figures) -> None:
        """Test figures of the moment that a rule chose, found later."""
        self.chosen[rule] |= test._asdict()

    def table(self, rules: tuple[str, ...]) -> dict[str, Entry]:
        """What was chosen by those of the rules that have chosen and whose moment was tested."""
        return {rule: self.chosen[rule] for rule in rules if "image_auroc" in self.chosen.get(rule, {})}
