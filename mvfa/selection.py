"""From which moment of a training the checkpoint is taken, by three rules side by side.

"test": best on the test set, which the released code does and which is an oracle. "valid": best on the images of
`valid` that are not shots. "last": the end of the training.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from mvfa.evaluation import Evaluation

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
    return Figures(
        sum(f.image_auroc for f in group) / len(group),
        sum(pixels) / len(pixels) if pixels else None,
    )


def figures(evaluation: Evaluation) -> Figures:
    """The two figures of an evaluation."""
    return Figures(evaluation.image_auroc, evaluation.pixel_auroc)


@dataclass
class Selection:
    """Checkpoint selection: three rules, tracked side by side over the moments of a training.

    The first of equals wins; with `equal_replaces` the test rule takes the last of equals, as the released zero-shot
    training does.
    """

    equal_replaces: bool = False
    history: list[Entry] = field(default_factory=list)
    chosen: dict[str, Entry] = field(default_factory=dict)
    worth: dict[str, float] = field(default_factory=dict)

    def moment(self, epoch: float, *, last: bool = False) -> None:
        """Start the entry of a moment after `epoch` epochs; `last`: the end of the training, which "last" chooses."""
        self.history.append({"epoch": epoch})
        if last:
            self.chosen["last"] = self.history[-1]

    def validated(self, found: Figures) -> bool:
        """Add this moment's figures on `valid`; returns whether "valid" now chooses it."""
        self.history[-1] |= {f"valid_{name}": value for name, value in found._asdict().items()}
        return self._choose("valid", found, found.worth > self.worth.get("valid", -1.0))

    def tested(self, found: Figures, *, oracle: bool = True) -> bool:
        """Add this moment's figures on the test set; returns whether "test" now chooses it.

        `oracle`: whether the test rule may choose this moment.
        """
        self.history[-1] |= found._asdict()
        best = self.worth.get("test", -1.0)
        better = found.worth > best or (self.equal_replaces and found.worth == best)
        return self._choose("test", found, oracle and better)

    def _choose(self, rule: str, found: Figures, better: bool) -> bool:
        if better:
            self.worth[rule], self.chosen[rule] = found.worth, self.history[-1]
        return better

    def complete(self, rule: str, test: Figures) -> None:
        """Add the test figures, found later, of the moment that a rule chose."""
        self.chosen[rule] |= test._asdict()

    def table(self, rules: tuple[str, ...]) -> dict[str, Entry]:
        """What was chosen by those of the rules that have chosen and whose moment was tested."""
        return {
            rule: self.chosen[rule] for rule in rules if "image_auroc" in self.chosen.get(rule, {})
        }
