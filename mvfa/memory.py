"""Memory of the machine and of this process, and allocator settings that change its speed."""

import ctypes
import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from mvfa import accelerator, cgroups

M_TRIM_THRESHOLD = -1  # of malloc.h
M_MMAP_THRESHOLD = -3
CACHED_BYTES = 2**30  # free memory that the allocator keeps for later blocks
LARGE_BLOCKS = (2**28, 2**25)  # sizes from which on blocks are returned to the system all the same
RETURNED_BLOCKS = 2**22  # the same, within `large_blocks_returned`
HOST_PEAK = Path("/proc/self/clear_refs")  # of Linux
MISSING_MALLOPT = (OSError, AttributeError, TypeError)  # no glibc: macOS, musl, Windows


def available_memory() -> int:
    """Return the bytes of host memory that this process may take without swapping.

    In a container that is what is left of the container's.
    """
    return cgroups.left(psutil.virtual_memory().available)


def installed_memory() -> int:
    """Return the bytes of memory of this machine or container, free or not: equal in every run."""
    return cgroups.limited(psutil.virtual_memory().total)


def shared_memory() -> int | None:
    """Return the free bytes of shared memory; None where no file system limits it."""
    try:
        return psutil.disk_usage("/dev/shm").free
    except OSError:
        return None


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peak memory of this process, and of a device that counts it, in bytes."""
    peak = {"host": peak_host_memory()}
    own = accelerator.peak_bytes(device)
    return peak if own is None else {**peak, device.type: own}


def forget_peak_memory() -> None:
    """Let `peak_memory` measure from now on, for several runs in one process.

    A system other than Linux keeps the peak of the process.
    """
    gc.collect()
    accelerator.forget_peak()
    with suppress(*MISSING_MALLOPT):
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator kept is not of the next run
    with suppress(OSError):
        HOST_PEAK.write_text("5")  # clears the highest resident size (man 5 proc)


def peak_host_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    try:
        import resource  # POSIX only
    except ImportError:
        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)  # peak_wset: Windows
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tune_process() -> None:
    """Set two options of the process that change its speed; on systems without them do nothing.

    Numbers below 1e-38 become zero, which changes no result in practice. Processors take far
    longer over them: a training step of ViT-L/14 on a CPU took three times as long. Threads that
    exist already keep their setting, so this comes first in a run.

    Large freed blocks are kept for the next block of their size. The system clears new ones page by
    page instead: eight images took 300,000 page faults.
    """
    # numpy, which finds out later, warns once of what is meant to be
    warnings.filterwarnings("ignore", "The value of the smallest subnormal", UserWarning)
    torch.set_flush_denormal(True)
    keep_large_blocks()


def keep_large_blocks() -> None:
    """Keep large freed blocks for the next block of their size."""
    with suppress(*MISSING_MALLOPT):
        libc = ctypes.CDLL(None)
        # older versions of glibc refuse the larger threshold
        if any(libc.mallopt(M_MMAP_THRESHOLD, size) for size in LARGE_BLOCKS):
            libc.mallopt(M_TRIM_THRESHOLD, CACHED_BYTES)


@contextmanager
def large_blocks_returned() -> Iterator[None]:
    """Within, return freed blocks of 4 MB and more to the system at once.

    For work in few blocks of some megabytes: kept, they would lie between others, and the peak
    memory of a run would depend on where. Afterwards the settings of `tune_process` hold, since
    the earlier ones cannot be read back.
    """
    with suppress(*MISSING_MALLOPT):
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(M_MMAP_THRESHOLD, RETURNED_BLOCKS)
    try:
        yield
    finally:
        keep_large_blocks()
