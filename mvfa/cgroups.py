"""The memory that a container may use: limits of Linux control groups, versions 1 and 2. No torch.

What the system calls free is that of the whole machine, of which a container gets a part.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TABLE = Path("/proc/self/cgroup")  # a line for each hierarchy: number:controllers:path
MOUNT = Path("/sys/fs/cgroup")


class Names(NamedTuple):
    """The files of a group: its limit and its use in bytes, and what of that can be taken back."""

    limit: str
    used: str
    cache: str  # an entry of memory.stat: pages of files, which are dropped when memory is short


VERSION_1 = Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = Names("memory.max", "memory.current", "inactive_file")


def folders() -> Iterator[tuple[Path, Names]]:
    """Yield the folders of the groups that limit this process, from its own to the outermost."""
    try:
        lines = TABLE.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # a group outside of what this container sees
            parts = []
        if controllers == "":
            root = MOUNT
            names = VERSION_2
        elif "memory" in controllers.split(","):
            root = MOUNT / "memory"
            names = VERSION_1
        else:
            continue
        for depth in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:depth]), names


def number(path: Path) -> int | None:
    """Return the number in a file, None if there is none."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max": no limit
        return None


def reclaimable(folder: Path, entry: str) -> int:
    """Return the bytes of a group that hold files, and are dropped when memory is short."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name == entry:
                return int(value)
    return 0


def limited(total: int) -> int:
    """Return the smaller of `total` bytes and what the groups of this process may use."""
    limits = [number(folder / names.limit) for folder, names in folders()]
    return min([total, *(limit for limit in limits if limit is not None)])


def left(free: int) -> int:
    """Return the smaller of `free` bytes and what the groups of this process may still take."""
    smallest = free
    for folder, names in folders():
        limit = number(folder / names.limit)
        used = number(folder / names.used)
        if limit is not None and used is not None:
            room = limit - used + reclaimable(folder, names.cache)
            smallest = min(smallest, max(room, 0))
    return smallest
