"""What only one kind of device has: CUDA's and ROCm's streams, graphs, memory; Apple's "mps".

No other module names a kind of device in its code. ROCm's devices are called "cuda" by torch, and
all of this holds for them. On a device without such a thing each function does what is plain: it
copies, reads or runs at once.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from errors import UserError

SYNCHRONIZING = "called a synchronizing"  # of torch's warning
WARM_UP = 3  # runs before a capture, in which libraries choose kernels and take memory


# -------------------------------------------------------------------------------- which device


def usable_devices() -> list[str]:
    """List the types of devices that torch can use on this machine."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names.append("cuda")
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def default_device() -> str:
    """Return the device of a run that names none: CUDA if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_device(name: str | None) -> torch.device:
    """Return the device of a name such as "cpu", "cuda:1" or "mps".

    Without a name: CUDA if available, else the CPU; "mps" (Apple) is used only if named. Raises
    UserError if the device cannot be used.
    """
    if name is None:
        return torch.device(default_device())
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index:
            raise ValueError("there is one CPU")  # noqa: TRY301
        torch.zeros(1, device=device).item()  # "meta" has no numbers
    except (RuntimeError, AssertionError, ImportError, ValueError) as error:
        usable = ", ".join(usable_devices())
        raise UserError(f"--device {name!r} cannot be used here; usable: {usable}") from error
    return device


def is_cuda(device: torch.device) -> bool:
    """Return whether a device is one of CUDA's or ROCm's: work is queued, and half is fast."""
    return device.type == "cuda"


def default_precision(device: torch.device) -> str:
    """Return the number type of a backbone's products on a device, where no flag names one."""
    return "fp16" if is_cuda(device) else "fp32"


def has_float64(device: torch.device) -> bool:
    """Return whether a device has float64, which metrics need."""
    return device.type != "mps"


def describe(device: torch.device) -> str:
    """Return the name of a device, such as "NVIDIA H100 80GB HBM3"."""
    return torch.cuda.get_device_name(device) if is_cuda(device) else device.type.upper()


def visible_device(number: int) -> str | None:
    """Return the GPU of local job `number`, as CUDA_VISIBLE_DEVICES names it; None: no GPU.

    The jobs take the devices in turn.
    """
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name for name in visible if name] or list(map(str, range(count)))
    return names[number % count] if count else None


def group_backend(local: int) -> str:
    """Return the backend for processes that share this machine's devices; take device `local`.

    Raises RuntimeError for a device that does not exist.
    """
    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


def runtime() -> str:
    """Return what torch was built for, such as "CUDA 13.0"."""
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs"


def exact_products(exact: bool = True) -> None:
    """Compute float32 products and convolutions in float32 from now on, never in TF32.

    torch allows TF32, of 10 bits in place of 23, for convolutions by default. `exact` False allows
    it for both.
    """
    with warnings.catch_warnings():
        # Some versions warn that these names are old; beside the new ones torch.compile fails.
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.cuda.matmul.allow_tf32 = not exact
        torch.backends.cudnn.allow_tf32 = not exact


# -------------------------------------------------------------------------------- memory


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; 0 for one whose memory is the host's."""
    return torch.cuda.mem_get_info(device)[0] if is_cuda(device) else 0


def peak_bytes(device: torch.device) -> int | None:
    """Return the most memory that tensors took on a device; None where that is not counted."""
    return torch.cuda.max_memory_allocated(device) if is_cuda(device) else None


def forget_peak() -> None:
    """Let `peak_bytes` count from now on."""
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def release_memory() -> None:
    """Give memory that is kept for later tensors back to the devices."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# -------------------------------------------------------------------------------- queues


def synchronize(device: torch.device) -> None:
    """Wait until everything that was queued on a device is done, as before a clock is read."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif is_cuda(device):
        torch.cuda.synchronize(device)


@cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the queue of copies to a device, beside that of its computations."""
    return torch.cuda.Stream(device)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device.

    On CUDA it is copied from pinned memory while earlier work still runs, and only later work waits
    for it, not the host.
    """
    if not is_cuda(device) or values.device.type != "cpu":
        return values.to(device)
    pinned = values if values.is_pinned() else values.pin_memory()
    copies = copy_stream(device)
    with torch.cuda.stream(copies):
        copy = pinned.to(device, non_blocking=True)
    work = torch.cuda.current_stream(device)
    work.wait_stream(copies)
    copy.record_stream(work)  # its memory is not reused before this work is done
    return copy


def read_later(value: Tensor) -> Callable[[], float]:
    """Return a function that returns a number [] which a device may still be computing.

    On CUDA it waits for what was queued up to now, and for nothing that is queued later.
    """
    if not is_cuda(value.device):
        number = value.item()
        return lambda: number
    copy = torch.empty_like(value, device="cpu", pin_memory=True)
    copy.copy_(value, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def read() -> float:
        done.synchronize()
        return copy.item()

    return read


@contextmanager
def waits(device: torch.device) -> Iterator[list[str]]:
    """Collect, within, where the host waits for a device to read a value: FILE:LINE each time.

    The list is filled at the end, and stays empty elsewhere than on CUDA. Waiting for an event, as
    `read_later` does, does not count.
    """
    found: list[str] = []
    if not is_cuda(device):
        yield found
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield found
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found += [f"{w.filename}:{w.lineno}" for w in said if SYNCHRONIZING in str(w.message)]


def capture(run: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """Run a function, and return what runs the same again: on CUDA its kernels, as one graph.

    A replay reads and writes the memory that the function read and wrote, so its inputs are copied
    into tensors that stay. The function must not read a number back, and must run the same kernels
    each time. Elsewhere than on CUDA the function itself is returned.
    """
    if not is_cuda(device):
        run()
        return run
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # other threads may ask for pinned memory meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    graph.replay()  # a capture computes nothing
    return graph.replay
