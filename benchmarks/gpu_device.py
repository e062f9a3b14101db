"""Stand-ins for mvfa.accelerator."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor


def set_products(device: torch.device, precision: str) -> None:
    """Allow TF32 for float32 products unless the precision is fp32."""
    del device
    allowed = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """Return the peak."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def reset_peak(device: torch.device) -> None:
    """Forget the peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def free_bytes(device: torch.device) -> int:
    """Return what is free."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def describe(device: torch.device) -> str:
    """Return the card's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device."""
    return tensor.to(device, non_blocking=True)


def capture(function: Callable[[], object]) -> Callable[[], None]:
    """Capture a function."""
    if not torch.cuda.is_available():
        return lambda: (function(), None)[1]
    gc.collect()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay
