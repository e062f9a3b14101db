"""Choose which images of a dataset become `valid`: balanced by label, a case on one side only.

Letters: G groups of images that stay together, S strata (a label and a class), T kinds of groups.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from errors import UserError
from preparation.convert_sources import TRAIN, Entry

VALID = "valid"
TEST = "test"
LEFT_OUT = ""
LABEL_WORDS = ("normal", "abnormal")
TRIES = 8
MOST_KINDS = 400  # of groups that are tried in exchanges
MISSING = 10**9  # loss of a label that a side lacks


def apportion(counts: Sequence[int], share: float) -> list[int]:
    """Return how many of each stratum of one label go to `valid`, each within one of its share.

    Together they are the rounded share of all, at least 1, and leave at least 1 (of 2 or more).
    """
    total = sum(counts)
    target = min(max(int(share * total + 0.5), 1), max(total - 1, 1))
    exact = [target * count / total for count in counts]
    chosen = [int(value) for value in exact]
    order = sorted(range(len(counts)), key=lambda i: (chosen[i] - exact[i], i))
    for i in order[: target - sum(chosen)]:
        chosen[i] += 1
    return chosen


class Balance:
    """How far a choice of groups is from what it should be.

    Args:
        counts: [G, S] images of each group and stratum.
        targets: [S] images wanted in `valid`; -1: any number.
        labels: [S] label of each stratum.
        have: [2, 2] images of each side (valid, test) and label that are not chosen here.

    """

    def __init__(
        self, counts: np.ndarray, targets: np.ndarray, labels: np.ndarray, have: np.ndarray
    ) -> None:
        self.all = counts.sum(axis=0)
        self.targets = targets
        self.wanted = targets >= 0
        self.of_label = np.stack([labels == 0, labels == 1], axis=1).astype(int)  # [S, 2]
        self.have = have

    def loss(self, total: np.ndarray) -> np.ndarray:
        """Return the loss [...] of choices whose groups have `total` images [..., S]."""
        deviation = np.abs(total - self.targets) * self.wanted
        valid = total @ self.of_label + self.have[0]  # [..., 2]
        test = (self.all - total) @ self.of_label + self.have[1]
        missing = (valid == 0).sum(axis=-1) + (test == 0).sum(axis=-1)
        return deviation.sum(axis=-1) + MISSING * missing


def choose_groups(counts: np.ndarray, balance: Balance, generator: random.Random) -> list[int]:
    """Choose groups [G, S] with a small loss, the best of a few tries. Returns their indices."""
    best: list[int] = []
    least: float = np.inf
    for _ in range(TRIES):
        groups = try_groups(counts, balance, generator)
        loss = float(balance.loss(counts[groups].sum(axis=0)))
        if loss < least:
            best = groups
            least = loss
        if least == 0:
            break
    return best


def try_groups(counts: np.ndarray, balance: Balance, generator: random.Random) -> list[int]:
    """Choose groups [G, S] at random, then improve by exchanges. Returns their indices, sorted."""
    total = np.zeros(counts.shape[1], int)
    rows, kind_of = np.unique(counts, axis=0, return_inverse=True)  # [T, S], [G]
    kind_of = kind_of.reshape(-1)
    members: list[list[int]] = [[] for _ in rows]
    used = np.zeros(len(rows), int)
    for group in generator.sample(range(len(counts)), len(counts)):
        members[kind_of[group]].append(group)
        if balance.loss(total + counts[group]) < balance.loss(total):
            total = total + counts[group]
            used[kind_of[group]] += 1
    sizes = np.array([len(groups) for groups in members])
    while (steps := best_steps(rows, used, sizes, total, balance)) is not None:
        used += steps
        total = total + steps @ rows
    return sorted(
        group for groups, count in zip(members, used, strict=True) for group in groups[:count]
    )


def best_steps(
    rows: np.ndarray, used: np.ndarray, sizes: np.ndarray, total: np.ndarray, balance: Balance
) -> np.ndarray | None:
    """Return the exchange that lowers the loss most; None if none does.

    It adds a group, drops one, or both: steps [T] of -1, 0 and 1 by the kind of group.
    """
    nothing = [-1]
    adds = [*nothing, *np.flatnonzero(used < sizes)]
    drops = [*nothing, *np.flatnonzero(used)]
    if len(rows) > MOST_KINDS:
        adds = adds[:MOST_KINDS]
        drops = drops[:MOST_KINDS]
    padded = np.concatenate([rows, np.zeros_like(rows[:1])])  # the last row: nothing
    totals = total + padded[adds][:, None] - padded[drops][None]  # [adds, drops, S]
    losses = balance.loss(totals)
    add, drop = np.unravel_index(int(losses.argmin()), losses.shape)
    if not losses[add, drop] < balance.loss(total):
        return None
    steps = np.zeros(len(padded), int)
    steps[adds[add]] += 1
    steps[drops[drop]] -= 1
    return steps[:-1]


def split_sides(
    entries: Sequence[Entry], groups: Sequence[Hashable], share: float, seed: int
) -> tuple[list[str], list[str]]:
    """Choose the side of every entry: "valid", "test", or "" for what is left out.

    What the dataset says is kept. Entries without a split are divided. Where `valid` has no normal
    images they come from `train`; labels that it still lacks come from `test`.

    Args:
        entries: the images.
        groups: of each entry, what must not be divided: its case.
        share: of the images of each label that become `valid`.
        seed: another one gives another choice.

    Returns:
        The sides, and lines that say what was done.

    Raises:
        UserError: there are too few cases to divide.

    """
    notes: list[str] = []
    sides = [LEFT_OUT if entry.split == TRAIN else entry.split for entry in entries]
    normal_there = any(e.split == VALID and not e.label for e in entries)
    from_train = [i for i, e in enumerate(entries) if e.split == TRAIN and not normal_there]
    has = {e.label for e in entries if e.split == VALID} | ({0} if from_train else set())
    free = [i for i, entry in enumerate(entries) if not entry.split]
    wanted = {0, 1} if free else {0, 1} - has
    if free or wanted:
        movable = free or [i for i, e in enumerate(entries) if e.split == TEST]
        keys = [(entry.label, entry.kind) for entry in entries]
        divide(keys, groups, sides, movable, wanted, bool(from_train), f"{seed}/convert", share)
        words = " and ".join(LABEL_WORDS[label] for label in sorted(wanted))
        where = "valid is chosen" if free else f"{words} images of valid are taken from test"
        notes.append(f"{where} by label: share {share:g}, seed {seed}, a case on one side only")
    tested = {groups[i] for i, side in enumerate(sides) if side == TEST}
    for i in from_train:
        sides[i] = LEFT_OUT if groups[i] in tested else VALID
    check_sides(entries, sides)
    return sides, notes + train_notes(entries, sides, bool(from_train))


def divide(
    keys: Sequence[tuple[int, str]],
    groups: Sequence[Hashable],
    sides: list[str],
    movable: Sequence[int],
    wanted: set[int],
    normal_there: bool,
    seed: str,
    share: float,
) -> None:
    """Set the sides of the movable entries; a group of which another entry has a side goes there.

    `keys`: label and class of each entry. `wanted`: labels of which `valid` gets its share.
    `normal_there`: whether `valid` will have normal images anyway.
    """
    for i in movable:
        sides[i] = LEFT_OUT
    fixed = {groups[i]: side for i, side in enumerate(sides) if side}
    loose: dict[Hashable, list[int]] = defaultdict(list)
    for i in movable:
        sides[i] = fixed.get(groups[i], LEFT_OUT)
        if not sides[i]:
            loose[groups[i]].append(i)
    if not loose:
        return
    have = np.zeros((2, 2), int)  # [side, label]
    have[0, 0] = normal_there
    for side, (label, _) in zip(sides, keys, strict=True):
        if side:
            have[int(side == TEST), label] += 1
    strata = sorted({keys[i] for members in loose.values() for i in members})
    counts = np.array(
        [
            [sum(keys[i] == stratum for i in inside) for stratum in strata]
            for inside in loose.values()
        ]
    )
    labels = np.array([label for label, _ in strata])
    targets = np.full(len(strata), -1)
    for label in wanted & set(labels.tolist()):
        columns = np.flatnonzero(labels == label)
        targets[columns] = apportion(counts.sum(axis=0)[columns].tolist(), share)
    balance = Balance(counts, targets, labels, have)
    chosen = set(choose_groups(counts, balance, random.Random(seed)))
    for number, inside in enumerate(loose.values()):
        for i in inside:
            sides[i] = VALID if number in chosen else TEST


def check_sides(entries: Sequence[Entry], sides: Sequence[str]) -> None:
    """Raise UserError unless valid and test have normal and abnormal images."""
    there = Counter((side, e.label) for side, e in zip(sides, entries, strict=True))
    for side in (VALID, TEST):
        for label, word in enumerate(LABEL_WORDS):
            if not there[side, label]:
                counts = ", ".join(
                    f"{there[s, i]:,} {w} in {s}"
                    for s in (VALID, TEST)
                    for i, w in enumerate(LABEL_WORDS)
                )
                raise UserError(
                    f"no {word} images for {side} ({counts}); both need both labels: add images, "
                    "or pass --cases no if file names are wrongly taken for cases"
                )


def train_notes(entries: Sequence[Entry], sides: Sequence[str], used: bool) -> list[str]:
    """Return lines about what became of `train`; `used`: whether `valid` needed it."""
    train = [side for side, entry in zip(sides, entries, strict=True) if entry.split == TRAIN]
    taken = train.count(VALID)
    notes = []
    if taken:
        notes.append(f"normal images of valid come from train: {taken:,}")
    if left := len(train) - taken:
        why = "their cases are in test" if used else "valid has normal images of its own"
        notes.append(f"normal images of train are left out, since {why}: {left:,}")
    return notes
