"""Several processes: `torchrun --nproc_per_node N script.py ...`. One process is a world of size 1.

Images are shared among the ranks, patch values are gathered at the first rank, gradients are summed
over ranks.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from errors import LostProcessError, UserError
from mvfa.accelerator import group_backend

TIMEOUT = timedelta(minutes=30)  # the first rank evaluates while the others wait
MOST_DIGITS = 9  # of a number of processes, or a port


@contextmanager
def collective() -> Iterator[None]:
    """Raise LostProcessError if another process no longer answers a collective call within."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(str(error).split("\n")[0][:120]) from error


@dataclass(frozen=True)
class World:
    """Rank of this process among the `size` processes of a run."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def share(self, order: Sequence[int], batch_size: int) -> list[tuple[list[int], int]]:
        """Return this rank's images of each step (at most `batch_size`), and the step's total."""
        step_size = self.size * batch_size
        first = self.rank * batch_size
        steps = [order[i : i + step_size] for i in range(0, len(order), step_size)]
        return [(list(step[first : first + batch_size]), len(step)) for step in steps]

    def collect(self, value: Any) -> list[Any] | None:
        """Return every rank's value in rank order at the first rank, None at the others.

        Tensors must be on the CPU.
        """
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.first else None
        with collective():
            dist.gather_object(value, values)
        return values

    def everyone(self, value: Any) -> list[Any]:
        """Return every rank's value in rank order, on every rank. Tensors must be on the CPU."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        with collective():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Return on every rank what `make` returns at the first one, where alone it runs."""
        value = [make() if self.first else None]
        if self.size > 1:
            with collective():
                dist.broadcast_object_list(value)
        return value[0]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks; a missing one counts as zero."""
        if self.size == 1:
            return
        owners = list(parameters)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in owners]
        flat = torch.cat([grad.flatten() for grad in grads])
        with collective():
            dist.all_reduce(flat)
        parts = flat.split([p.numel() for p in owners])
        for owner, part in zip(owners, parts, strict=True):
            owner.grad = part.view_as(owner)

    def total(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Return sums over ranks."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=device)
        with collective():
            dist.all_reduce(summed)
        return summed.tolist()


def environment_number(name: str, default: int | None, low: int, high: float = math.inf) -> int:
    """Return the number from `low` to `high` in an environment variable of torchrun.

    An empty one counts as not set. Raises UserError for other texts, and without a default.
    """
    text = os.environ.get(name, "").strip()
    if not text and default is not None:
        return default
    if not text.isdecimal() or len(text) > MOST_DIGITS or not low <= int(text) <= high:
        allowed = f"a number from {low}" + ("" if high == math.inf else f" to {high}")
        said = f"is {text!r}" if text else "is not set"
        remedy = "start several processes with torchrun, or unset WORLD_SIZE for one"
        raise UserError(f"the environment variable {name} {said}, not {allowed}; {remedy}")
    return int(text)


def join() -> World:
    """Join the processes that torchrun started, if any. Raises UserError if that fails."""
    size = environment_number("WORLD_SIZE", 1, 1)
    if size == 1:
        return World()
    environment_number("RANK", None, 0, size - 1)
    environment_number("MASTER_PORT", None, 1, 65_535)
    local = environment_number("LOCAL_RANK", 0, 0)
    if not dist.is_initialized():
        try:
            dist.init_process_group(group_backend(local), timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0][:160]
            message = (
                f"the {size} processes could not be joined ({reason}); start them with torchrun"
            )
            raise UserError(message) from error
    return World(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
