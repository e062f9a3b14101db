"""When zero-shot training tests the adapters within an epoch (SPEC section 4)."""

from itertools import pairwise
from typing import NamedTuple

from mvfa.console import note
from mvfa.distributed import World

PARTS = 5  # of an epoch


def moments(steps: int) -> list[int]:
    """Return the steps of an epoch, counted from 0, before which the adapters are tested.

    They are the multiples of steps // 5, or of 1 in epochs of fewer than five steps.
    """
    return list(range(0, steps, max(1, steps // PARTS)))


class Part(NamedTuple):
    """A part of an epoch that a test precedes.

    step: its first step, counted from 0; done: the share of the epoch before it; images: the
    indices of its images.
    """

    step: int
    done: float
    images: list[int]


def split(order: list[int], step_images: int) -> list[Part]:
    """Split an epoch's images, in their order, into parts of steps of `step_images` images."""
    steps = -(-len(order) // step_images)
    bounds = pairwise([*moments(steps), steps])
    return [
        Part(first, first / steps, order[first * step_images : end * step_images])
        for first, end in bounds
    ]


def note_short_epochs(images: int, step_images: int, world: World) -> None:
    """Say how often the adapters are tested where an epoch has fewer steps than parts."""
    steps = -(-images // step_images)
    if steps < PARTS:
        consequence = "the adapters are tested before each of them"
        note(f"an epoch has {steps} steps, fewer than {PARTS}: {consequence}", world)
