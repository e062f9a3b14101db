"""A CPU that the program takes for a CUDA device, to run the code of one where there is none.

Names and arguments of calls into torch.cuda are checked against the installed torch.
"""

import types
from unittest.mock import create_autospec

import pytest
import torch

from mvfa import accelerator, caches, engine, environment, evaluation, features, histograms

ROOM = 10**10  # bytes


class TorchWithCuda(types.SimpleNamespace):
    """torch, with stand-ins for its CUDA module."""

    def __getattr__(self, name: str):
        return getattr(torch, name)


def queued(monkeypatch: pytest.MonkeyPatch) -> TorchWithCuda:
    """Take the CPU for a CUDA device; return the torch that mvfa/accelerator.py then sees."""
    cuda = create_autospec(torch.cuda)
    cuda.mem_get_info.return_value = (ROOM, ROOM)
    seen = TorchWithCuda(cuda=cuda)
    monkeypatch.setattr(accelerator, "torch", seen)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    seen.empty_like = lambda values, **_: torch.empty(values.shape, dtype=values.dtype)
    accelerator.copy_stream.cache_clear()
    for module in (accelerator, caches, engine, environment, evaluation, features, histograms):
        monkeypatch.setattr(module, "is_cuda", lambda _: True)
    return seen
