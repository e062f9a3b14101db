"""Fewer images at once where the memory of a device is short: scores do not depend on it."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor

from mvfa.accelerator import release_memory
from mvfa.console import note
from mvfa.distributed import World
from mvfa.system_errors import is_device_memory

T = TypeVar("T")
Rows = TypeVar("Rows", Tensor, Tensor | list[Tensor])


class Halving:
    """Runs a step of a test in parts, which are halved when a device's memory is full.

    What was halved once stays so: the next batches come in parts of that size at once.

    Args:
        world: the first process says that the parts are smaller, once.

    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.largest: int | None = None  # images of a part; None: no bound was met

    def __call__(self, run: Callable[[Rows], T], batch: Rows) -> Iterator[tuple[slice, T]]:
        """Yield which rows of a batch of B a part has, and what `run` returns for them.

        The parts cover the batch in order. Raises the device's error where not one row fits.
        """
        start = 0
        while True:
            rows = slice(start, min(len(batch), start + (self.largest or len(batch))))
            done = self._try(run, batch[rows])
            if done is None:
                continue  # in smaller parts
            yield rows, done[0]
            start = rows.stop
            if start >= len(batch):
                return

    def _try(self, run: Callable[[Rows], T], part: Rows) -> tuple[T] | None:
        """Return what `run` returns for a part; None, and halve the parts, if it does not fit."""
        try:
            return (run(part),)
        except RuntimeError as error:
            if len(part) <= 1 or not is_device_memory(error):
                raise
        # here, not within except: the error holds on to what the step had computed
        if self.largest is None:
            note("the memory of the device is full: images are scored in smaller parts", self.world)
        self.largest = -(-len(part) // 2)
        release_memory()
        return None
