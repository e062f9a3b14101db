"""Results go to standard output, remarks to standard error, both from the first rank only."""

import io
import sys

import pytest

from mvfa.console import note, progress, show
from mvfa.distributed import World


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("rank", "speaks"), [(0, True), (1, False)])
def test_only_the_first_rank_speaks(capsys, rank, speaks):
    world = World(rank, 2)
    show("Brain AUC : 0.5", world)
    note("a mask is empty", world)
    printed = capsys.readouterr()
    assert printed.out == ("Brain AUC : 0.5\n" if speaks else "")
    assert printed.err == ("note: a mask is empty\n" if speaks else "")


@pytest.mark.parametrize(
    ("stream", "rank", "shown"),
    [(Terminal, 0, True), (Terminal, 1, False), (io.StringIO, 0, False), (io.StringIO, 1, False)],
)
def test_a_bar_needs_a_terminal_and_the_first_rank(monkeypatch, stream, rank, shown):
    errors = stream()
    monkeypatch.setattr(sys, "stderr", errors)
    with progress(3, "train", "step", World(rank, 2)) as bar:
        for _ in range(3):
            bar.set_postfix(loss="0.1", refresh=False)
            bar.update()
        bar.refresh()
        assert bool(bar.disable) == (not shown)
    assert ("train" in errors.getvalue()) == shown


def test_a_bar_vanishes(monkeypatch):
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    with progress(1, "train", "step", World()) as bar:
        bar.update()
    assert errors.getvalue().split("\r")[-2].strip() == ""
