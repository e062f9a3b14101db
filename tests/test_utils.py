"""What a process tells the system of its memory."""

import pytest

import utils
from utils import large_blocks_returned


class Library:
    """A libc that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, ...]] = []

    def mallopt(self, *setting: int) -> int:
        self.told.append(setting)
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.told.append((pad,))
        return 1


def test_large_blocks_are_returned_within_and_kept_after_it(monkeypatch):
    library = Library()
    monkeypatch.setattr(utils.ctypes, "CDLL", lambda _: library)

    @large_blocks_returned()
    def work() -> None:
        assert library.told == [(0,), (utils.M_MMAP_THRESHOLD, utils.RETURNED_BYTES)]
        raise KeyError

    with pytest.raises(KeyError):
        work()
    assert library.told[2:] == [
        (utils.M_MMAP_THRESHOLD, utils.LARGE_BYTES[0]),
        (utils.M_TRIM_THRESHOLD, utils.KEPT_BYTES),
    ]


def test_a_system_without_these_settings_changes_nothing(monkeypatch):
    monkeypatch.setattr(utils.ctypes, "CDLL", lambda _: object())
    with large_blocks_returned():
        pass
