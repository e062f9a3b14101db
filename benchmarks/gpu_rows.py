"""Rows of the table of benchmarks.gpu, and what keeps one failure from ending the others."""

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from errors import one_line
from mvfa.accelerator import release_memory
from mvfa.markdown import escape

HEADERS = ("what", "measured", "wanted", "remark")
FAILED = "failed"  # a measurement that raised an error
WRONG = "FAIL"  # a number that is not what it should be
SHORT = 160  # characters of an error in the table


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    what: str
    measured: str
    wanted: str = ""
    remark: str = ""

    @property
    def bad(self) -> bool:
        """Whether something failed or is wrong."""
        return self.measured.startswith(FAILED) or WRONG in self.measured

    def line(self) -> str:
        """Format the row in Markdown."""
        return table_line(self.what, self.measured, self.wanted, self.remark)


def table_line(*cells: str) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(map(escape, cells))} |"


def head() -> str:
    """Return the first two lines of the table."""
    return f"{table_line(*HEADERS)}\n|{'---|' * len(HEADERS)}"


def failure(what: str, error: BaseException) -> Row:
    """Return the row of a measurement that an error ended: the first line of its message."""
    first = str(error).strip().partition("\n")[0]
    return Row(
        what, one_line(f"{FAILED}: {first[:SHORT] or type(error).__name__}"), "", remark(error)
    )


def remark(error: BaseException) -> str:
    """Return the kind of an error, and the function that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_name}"
    return f"{type(error).__name__}{where}"


def guarded(what: str, measure: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """Yield the rows of a measurement; an error in it becomes its last row."""
    try:
        yield from measure()
    except Exception as error:  # noqa: BLE001  # whatever it is, the next measurement runs
        row = failure(what, error)
    else:
        return
    # here, not within except: the error holds on to what was computed
    gc.collect()
    release_memory()
    yield row


def compared(what: str, difference: float, bound: float, remark: str = "") -> Row:
    """Return the row of a difference that should be at most `bound`."""
    verdict = "pass" if difference <= bound else WRONG  # not a number fails, too
    return Row(what, f"{difference:.2g} {verdict}", f"at most {bound:g}", remark)


def number(value: float) -> str:
    """Format a number by its size: three digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def middle(seconds: list[float]) -> str:
    """Say how often something was measured, and how far the measurements lie from their median."""
    spread = max(abs(s / median(seconds) - 1) for s in seconds)
    return f"n = {len(seconds)}, within {spread:.0%}"
