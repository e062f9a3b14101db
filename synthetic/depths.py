"""Cases and slice numbers of synthetic images, with or without a planted shortcut.

The pictures do not show the depth of their slice: only the file name `<case>_<slice>.png` does.

- none: images are numbered, and show no case.
- random: a slice number says nothing about the label. The k-th normal and the k-th abnormal image
  of a split have the same one.
- planted: abnormal slices lie near the middle of the case and normal ones near its ends, as in the
  benchmark's Brain. Some slice numbers have both labels.
"""

import numpy as np

from dataset.cases import Place
from dataset.layout import LABELS, SPLITS
from synthetic.settings import PLAIN, RANDOM

CASES = 12  # both labels and both splits have images of each
SLICES = 24  # of a case, numbered from 1
# distance from the middle, as a share of the largest: abnormal slices up to, normal ones from
ABNORMAL_REACH = 0.5
NORMAL_START = 0.35

SETS = tuple((split, state) for split in SPLITS for state in LABELS)  # of images


def distance(number: int) -> float:
    """Return how far a slice is from the middle of its case: 0 to 1, at its ends."""
    middle = (1 + SLICES) / 2
    return abs(number - middle) / (SLICES - middle)


def slice_numbers(depth: str, state: str) -> list[int]:
    """Return the slice numbers that images of a state may have."""
    numbers = range(1, SLICES + 1)
    if depth == RANDOM:
        return list(numbers)
    if LABELS[state]:
        return [k for k in numbers if distance(k) <= ABNORMAL_REACH]
    return [k for k in numbers if distance(k) >= NORMAL_START]


def all_places(depth: str, split: str, state: str, rng: np.random.Generator) -> list[Place]:
    """Return the places of a split's images of a state, in their order: no two sets share one.

    `rng` must be new and the same for both states of a split: then, with RANDOM, they have the same
    slice numbers. A place is the image's alone because case + slice, divided by the number of sets,
    leaves a remainder that only its set has.
    """
    own = SETS.index((split, state))
    blocks = CASES // len(SETS)
    slots = [(k, block) for k in slice_numbers(depth, state) for block in range(blocks)]
    order = rng.permutation(len(slots))
    return [
        Place(f"{len(SETS) * block + (own - k) % len(SETS) + 1:02d}", k)
        for k, block in (slots[i] for i in order)
    ]


def file_names(
    depth: str, split: str, state: str, count: int, rng: np.random.Generator
) -> list[str]:
    """Return the file names of the first `count` images of a set, see `all_places`.

    More images do not change the names of the others. Raises ValueError if there are not as many.
    """
    if depth == PLAIN:
        return [f"{index:03d}.png" for index in range(count)]
    found = all_places(depth, split, state, rng)
    if count > len(found):
        raise ValueError(f"{count} images of {split}/{state}; there are at most {len(found)}")
    return [f"{place.case}_{place.slice:03d}.png" for place in found[:count]]
