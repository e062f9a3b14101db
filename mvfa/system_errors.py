"""Troubles of the system, each in one line: a full disk, too little memory, a lost worker.

No torch: its errors are known by their texts, which are the same in all versions that were seen.
"""

import errno
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from errors import KEPT

CHOOSE = "choose another file or folder"
REMEDIES: Mapping[int, str] = {  # of the errors that are the system's and no bug
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EFBIG: "raise the limit (ulimit -f), or choose another folder",
    errno.EIO: "check the disk, or choose another folder",
    errno.EROFS: CHOOSE,
    errno.EACCES: f"change the permissions, or {CHOOSE}",
    errno.EPERM: f"change the permissions, or {CHOOSE}",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "it was moved or removed; put it back and run again",
    errno.ENOTDIR: CHOOSE,
    errno.EISDIR: "move it, or choose another folder",
    errno.EEXIST: CHOOSE,
    errno.ENOTEMPTY: CHOOSE,
    errno.EBUSY: "wait for the program that uses it, or choose another folder",
    errno.ETXTBSY: "wait for the program that uses it, or choose another folder",
    errno.ELOOP: "remove the circle of links",
    errno.EMLINK: CHOOSE,
    errno.ENODEV: CHOOSE,
    errno.ENXIO: CHOOSE,
    errno.ESTALE: "mount the folder again",
    errno.ETIMEDOUT: "check the network, or choose a folder of this machine",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower --workers",
    errno.ENFILE: "close other programs",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or lower --workers",
}
NO_MEMORY = (  # in the texts of torch, numpy, the dynamic linker and C++
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "failed to map segment",
    "std::bad_alloc",
)
NO_DEVICE_MEMORY = ("out of memory", "_status_alloc_failed")
NO_THREAD = ("can't start new thread",)
NO_SHARED_MEMORY = ("unable to write to file </torch", "unexpected bus error")
TORCH_SIZE = re.compile(r"tried to allocate (\d+) bytes")
LOST_WORKER = re.compile(r"DataLoader worker \(pid\S* [^)]+\) (.+?)(?:\.\s|\.?$)", re.DOTALL)
LOWER = {  # flags that lower a script's memory
    "train": "--batch_size, --test_batch_size, --cache_gb or --workers",
    "test": "--test_batch_size, --cache_gb or --workers",
    "calibrate": "--workers",
    "predict": "--batch_size or --jobs",
}


def describe(error: BaseException) -> str | None:
    """Return a trouble of the system in one line: what, where, what to do; None for other errors.

    What is left is a bug, which keeps its traceback.
    """
    if isinstance(error, MemoryError):
        return no_memory(str(error))
    if not isinstance(error, OSError | RuntimeError | ImportError):
        return None
    text = str(error)
    return memory_line(error, text) or worker_line(text) or disk_line(error)


def first_line(text: str) -> str:
    """Return the first line of a text, without its end if it is long."""
    return (text.strip().splitlines() or [""])[0][:160]


def what_to_lower() -> str:
    """Return which flags of the script that runs lower its memory, as the end of a sentence."""
    flags = LOWER.get(Path(sys.argv[0]).stem.replace("mvfa-", "").replace("-", "_").split("_")[0])
    return f", or lower {flags}" if flags else ""


def no_memory(detail: str) -> str:
    """Return the line for memory of the host that was not available."""
    size = TORCH_SIZE.search(detail)
    said = f"{int(size[1]) / 1e9:.2g} GB were asked for" if size else first_line(detail)
    said = f" ({said})" if said else ""
    remedy = "close other programs or raise the limit (ulimit -v, or the container's)"
    return f"out of memory{said}; {remedy}{what_to_lower()}; {KEPT}"


def is_device_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of a device, such as a GPU, is full."""
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and any(mark in text for mark in NO_DEVICE_MEMORY)
    )


def memory_line(error: BaseException, text: str) -> str | None:
    """Return the line for missing memory or threads, None for other errors."""
    lowered = text.lower()
    if is_device_memory(error):
        said = first_line(text).split(". ")[0]
        remedy = "end other programs on the device"
        return f"the memory of the device is full ({said}); {remedy}{what_to_lower()}; {KEPT}"
    if getattr(error, "errno", None) == errno.ENOMEM or any(m in lowered for m in NO_MEMORY):
        return no_memory(text)
    if any(mark in lowered for mark in NO_THREAD):
        remedy = "raise the limit of processes (ulimit -u) or of memory (ulimit -v)"
        return f"no thread can be started; {remedy}; {KEPT}"
    return None


def worker_line(text: str) -> str | None:
    """Return the line for a lost process of --workers, or for its shared memory; else None."""
    if any(mark in text for mark in NO_SHARED_MEMORY) or "out of shared memory" in text:
        remedy = "make /dev/shm larger (docker run --shm-size 8g), or pass --workers 0"
        return f"shared memory (/dev/shm) is full; {remedy}; {KEPT}"
    if lost := LOST_WORKER.search(text):
        remedy = "free some memory, or pass --workers 0"
        return f"a process that decodes images was lost ({lost[1]}); {remedy}; {KEPT}"
    return None


def disk_line(error: BaseException) -> str | None:
    """Return the line for a file that cannot be read or written, None for other errors."""
    remedy = REMEDIES.get(error.errno or 0) if isinstance(error, OSError) else None
    if not isinstance(error, OSError) or remedy is None:
        return None
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = f"{' -> '.join(names)}: " if names else ""
    return f"{where}{error.strerror}; {remedy}; {KEPT}"
