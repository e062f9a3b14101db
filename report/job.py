"""A call of a script for a study, and whether its files say that it is done."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mvfa.run_files import METRICS
from report.damage import adapters_damage, other_adapters, results_damage


@dataclass(frozen=True)
class Job:
    """One call of a script: its name, its flags, and the folder of its results.

    `script` is empty where nothing is trained: the authors' adapters are tested, or a method has
    none.
    """

    script: str
    flags: tuple[str, ...]
    out: Path

    @property
    def done(self) -> bool:
        """Whether it has ended, and its files are whole; always true without a script."""
        return not self.script or (self.ended and not self.damage and not self.loss)

    @property
    def ended(self) -> bool:
        """Whether metrics.json, which is written last, exists."""
        return (self.out / METRICS).exists()

    @property
    def damage(self) -> str:
        """Why its results are not whole although it has ended, "" if they are."""
        return results_damage(self.out) if self.ended else ""

    @property
    def loss(self) -> str:
        """Why the checkpoint of a training that has ended is not there; "" if it is."""
        trained = self.script.startswith("train") and self.ended
        return adapters_damage(self.out, self.out.parent) if trained else ""


def to_run(train: Job, tests: Iterable[Job]) -> list[Job]:
    """Return the tests that are not done, or that scored other adapters than the training has."""
    return [test for test in tests if not test.done or other_adapters(train.out, test.out)]
