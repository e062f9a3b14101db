"""More than one process: `torchrun --nproc_per_node N script.py ...`. One process is a world of size 1.

Images are shared out, patch values come together at the first rank, gradients are summed over ranks.
"""

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

TIMEOUT = timedelta(minutes=30)  # the first rank evaluates while the others wait


@contextmanager
def together() -> Iterator[None]:
    """Around a collective call: raises LostProcessError if another process does not answer any more."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(str(error).split("\n")[0][:120]) from error


@dataclass(frozen=True)
class World:
    """Place of this process among those of a run."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def share(self, order: Sequence[int], batch_size: int) -> list[tuple[list[int], int]]:
        """The images of this rank in each step (`batch_size` or fewer), and how many the step has on all ranks."""
        whole, here = self.size * batch_size, self.rank * batch_size
        steps = [order[i : i + whole] for i in range(0, len(order), whole)]
        return [(list(step[here : here + batch_size]), len(step)) for step in steps]

    def collect(self, value: Any) -> list[Any] | None:
        """Every rank's value at the first rank, in rank order; None elsewhere. Tensors must be on the CPU."""
        if self.size == 1:
            return [value]
        found = [None] * self.size if self.first else None
        with together():
            dist.gather_object(value, found)
        return found

    def everyone(self, value: Any) -> list[Any]:
        """Every rank's value on every rank, in rank order. Tensors must be on the CPU."""
        if self.size == 1:
            return [value]
        found = [None] * self.size
        with together():
            dist.all_gather_object(found, value)
        return found

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What `make` gives at the first rank, on every rank."""
        value = [make() if self.first else None]
        if self.size > 1:
            with together():
                dist.broadcast_object_list(value)
        return value[0]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks; a missing one counts as zero."""
        if self.size == 1:
            return
        owners = list(parameters)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in owners]
        flat = torch.cat([grad.flatten() for grad in grads])
        with together():
            dist.all_reduce(flat)
        for owner, part in zip(owners, flat.split([p.numel() for p in owners]), strict=True):
            owner.grad = part.view_as(owner)

    def total(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Sums over ranks."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=device)
        with together():
            dist.all_reduce(summed)
        return summed.tolist()


def join() -> World:
    """Join the processes that torchrun started, if it started any. UserError if they cannot be joined."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        try:
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {size} processes could not be joined ({error}); start them with torchrun"
            ) from error
    return World(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
