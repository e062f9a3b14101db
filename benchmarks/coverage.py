"""How often the bootstrap's 95 % intervals hold the true AUROC, by image and by case.

    python -m benchmarks.coverage

Scores are drawn for images of patients: score = effect * label + patient + image, where the two
last are independent and normal with variances that sum to 1; the patient's part of it is the
correlation within cases. An abnormal image then scores above a normal one of another patient with
the probability Phi(effect / sqrt(2)), which is the AUROC of ever more patients. Half of the images
are abnormal: of each patient, or with a share that differs from patient to patient.

Letters: C cases, k images of each.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from mvfa.intervals import bootstrap_cases, bootstrap_images
from mvfa.markdown import markdown_table

TRUE_AUROC = 0.8
EFFECT = NormalDist().inv_cdf(TRUE_AUROC) * math.sqrt(2)


@dataclass(frozen=True)
class Population:
    """Patients whose images are scored.

    Args:
        cases: C, the number of patients of a test set.
        images: k, images of each patient.
        correlation: of two scores of one patient and label, 0 to 1.
        mixed: whether each patient has half of its images abnormal; else the share is drawn
            uniformly for each patient.

    """

    cases: int
    images: int
    correlation: float
    mixed: bool = True

    def draw(self, generator: np.random.Generator) -> tuple[Tensor, Tensor, list[str]]:
        """Return scores [C k], labels [C k] bool and cases of a test set."""
        shape = (self.cases, self.images)
        share = np.full(self.cases, 0.5) if self.mixed else generator.random(self.cases)
        # the first images of a patient are abnormal: its share, rounded
        labels = np.arange(self.images) < np.round(share * self.images)[:, None]
        patient = generator.normal(0, math.sqrt(self.correlation), (self.cases, 1))
        image = generator.normal(0, math.sqrt(1 - self.correlation), shape)
        scores = EFFECT * labels + patient + image
        cases = [str(case) for case in range(self.cases) for _ in range(self.images)]
        return torch.from_numpy(scores.ravel()), torch.from_numpy(labels.ravel()), cases


def coverage(population: Population, trials: int, resamples: int, seed: int) -> tuple[float, float]:
    """Return the shares of test sets whose interval holds TRUE_AUROC: by image and by case."""
    generator = np.random.default_rng(seed)
    held = np.zeros(2)
    for trial in range(trials):
        scores, labels, cases = population.draw(generator)
        by_image = bootstrap_images(scores, labels, resamples, trial)
        by_case = bootstrap_cases(scores, labels, cases, resamples, trial)
        assert by_case is not None, "two cases or more"
        for i, (low, high) in enumerate((by_image["auroc"], by_case["auroc"])):
            held[i] += low <= TRUE_AUROC <= high
    by_image_share, by_case_share = held / trials
    return float(by_image_share), float(by_case_share)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of coverages in percent."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=200, help="test sets of each row")
    parser.add_argument("--resamples", type=int, default=200, help="of each interval")
    parser.add_argument("--images", type=int, default=40, help="of each case")
    values = parser.parse_args(argv)
    rows = []
    for cases in (10, 15, 50):
        for correlation in (0.0, 0.2, 0.5):
            for mixed in (True, False):
                population = Population(cases, values.images, correlation, mixed)
                shares = coverage(population, values.trials, values.resamples, seed=0)
                kind = "half" if mixed else "differs"
                texts = [f"{100 * share:.1f}" for share in shares]
                rows.append([str(cases), kind, f"{correlation:g}", *texts])
    titles = ["cases", "abnormal share of a case", "correlation", "by image", "by case"]
    print(markdown_table(titles, rows))


if __name__ == "__main__":
    main()
