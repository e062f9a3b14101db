"""Every table and figure of the paper and of the study: trains, tests, and writes a page, Markdown and CSV.

    python reproduce.py table1 table2
    python reproduce.py all --plan
    python reproduce.py --demo all

Runs lie under --root by names that hold their settings. Finished ones are kept, so a stopped command goes on where it
was; one that fails is told of on the page, and the others go on.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import demo
import test_few
import test_zero
import train_few
import train_zero
from errors import UserError
from mvfa.cli import command
from report.arguments import parse
from report.cluster import Work, submit
from report.page import write_report
from report.plan import specs
from report.runs import Job, Place, filled, jobs, lacks, places, settings
from report.study import DONE, FAILED, MISSING, Study
from utils import writable

Placed = tuple[Place, Job, Job, str]  # its training, its test, what it lacks
SCRIPTS = {script.__name__: script.main for script in (train_few, train_zero, test_few, test_zero)}


def do(job: Job) -> str:
    """Run a job; what went wrong, in one line, if anything did."""
    print(f"\n{job.out.parent.name}: {job.script}", flush=True)
    try:
        SCRIPTS[job.script]([*job.flags, f"--out={job.out}"])
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # a bug in one cell must not cost the others
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return ""


def perform(work: Work, threads: int | None = None, gpu: str | None = None) -> dict[Path, str]:
    """Do trainings and their tests that are not done, one after another; reasons of failures by folder."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if threads:
        torch.set_num_threads(threads)
    failures: dict[Path, str] = {}
    for train, tests in work.items():
        needed = [test for test in tests if not test.done]
        reason = do(train) if needed and not train.done else ""
        failures |= {test.out: reason or do(test) for test in needed}
    return {out: reason for out, reason in failures.items() if reason}


def show(placed: Sequence[Placed], is_demo: bool) -> Study:
    """Print what would run and what it lacks; a study without cells."""
    for place, _, test, lacking in placed:
        state = "done" if test.done else lacking or "to run"
        print(
            f"{place.table:9} {place.obj:15} seed {place.seed} draw {place.draw} {place.row}: {state}"
        )
    return Study("plan", is_demo, (), ())


def main(argv: Sequence[str] | None = None) -> Study:
    """Run what is not done and write the report; returns what it tells."""
    request = parse(argv, demo.MODEL)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            "reproduce.py is not for torchrun; start it with python and share its runs out with --jobs J"
        )
    if not request.plan:
        writable(request.root, "--root")
    if request.demo:
        demo.prepare(request.root)
    wanted = request.wanted
    placed = [
        (place, *jobs(place, wanted, request.runs), lacks(place, wanted))
        for place in places(wanted)
    ]
    if request.plan:
        return show(placed, request.demo)
    work: Work = {}
    for _, train, test, lacking in placed:
        if not lacking and test not in work.setdefault(train, []):
            work[train].append(test)
    threads = (
        1 if request.demo else None
    )  # its network is so small that threads mostly wait for one another
    if request.cluster is None and request.jobs == 1:
        failures = perform(work, threads)
    else:
        import reproduce  # by this name, not as "__main__", a job finds it

        failures = submit(partial(reproduce.perform, threads=threads), work, request)
    cells = tuple(
        filled(place, train.out, test.out, lacking, failures.get(test.out, ""))
        for place, train, test, lacking in placed
    )
    title = "MVFA on demo images" if request.demo else "MVFA: tables and figures"
    study = Study(title, request.demo, specs(wanted), cells, request.told, settings(cells))
    page = write_report(study, request.root / "report")
    for cell in cells:
        if cell.state == FAILED:
            print(f"failed: {cell.table}, {cell.row}, {cell.obj}: {cell.reason}", file=sys.stderr)
    print(
        f"\n{study.count(DONE)} done, {study.count(MISSING)} missing, {study.count(FAILED)} failed\n{page}"
    )
    return study


def run() -> None:
    """`main`, with exit status 1 if a cell failed."""
    if main().count(FAILED):
        sys.exit(1)


if __name__ == "__main__":
    command(run)
