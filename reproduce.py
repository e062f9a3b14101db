"""Make every table and figure of the paper and of the study: train, test, and write a report.

    python reproduce.py table1 table2
    python reproduce.py all --plan
    python reproduce.py --demo all

The report is one page, Markdown and CSV files. Runs are below --root in folders whose names depend
on their settings. Finished runs are kept, so a stopped command continues where it was. A run that
fails is listed on the page, and the others go on.
"""

from mvfa.process import guard_imports

if __name__ == "__main__":
    guard_imports()  # a script that is stopped or has too little memory ends with one line

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING

from errors import UserError
from mvfa.cli import command
from mvfa.locks import exclusive, hold_folder
from mvfa.run_files import ERROR_LOG
from mvfa.system_errors import describe
from report.arguments import Request, parse
from report.experiments import SHORTCUTS, table_specs
from report.study import DONE, FAILED, MISSING, Study

# torch, pandas, plotly and the scripts are slow to import: help and mistakes come before them
if TYPE_CHECKING:
    from report.cells import CellSpec
    from report.cluster import Work
    from report.job import Job

    PlannedCell = tuple[CellSpec, Job, Job, str]  # with its training, its test, what is missing


def run_job(job: "Job") -> str:
    """Run a job; returns the error in one line, "" if there was none.

    The traceback of a bug is written to the folder of its results.
    """
    from mvfa.memory import forget_peak_memory
    from utils import write_text  # imports torch

    forget_peak_memory()
    print(f"\n{job.out.parent.name}: {job.script}", flush=True)
    try:
        import_module(job.script).main([*job.flags, f"--out={job.out}"])
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # a bug in one run must not cost the others
        log = job.out / ERROR_LOG
        with suppress(OSError):  # a full disk
            write_text(log, format_exc())
        line = describe(error) or f"{type(error).__name__}: {error}".split("\n")[0]
        return f"{line} (traceback in {log})"
    return ""


def note(damage: str) -> None:
    """Say why a run that has ended is run again, if there is a reason."""
    if damage:
        print(f"note: {damage}; it is run again", file=sys.stderr)


def perform(work: "Work", threads: int | None = None, gpu: str | None = None) -> dict[Path, str]:
    """Run the trainings and tests that are not done; returns reasons of failures by test folder.

    `threads` limits torch's threads, `gpu` is a name for CUDA_VISIBLE_DEVICES; None: no change.
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import torch

    from report.damage import set_aside
    from report.job import to_run

    if threads:
        torch.set_num_threads(threads)
    failures: dict[Path, str] = {}
    for train, tests in work.items():
        reason = ""
        if train.damage or (to_run(train, tests) and not train.done):
            note(train.damage or train.loss)
            set_aside(train.out.parent)
            reason = run_job(train)
        for test in to_run(train, tests):
            note(test.damage)
            failures[test.out] = reason or run_job(test)
    return {out: reason for out, reason in failures.items() if reason}


def planned_cells(request: Request) -> "list[PlannedCell]":
    """Return every cell with its training, its test, and what is missing to run them."""
    from report.cells import cell_specs
    from report.jobs import jobs_of, missing_input

    options = request.options
    return [
        (spec, *jobs_of(spec, options, request.runs), missing_input(spec, options))
        for spec in cell_specs(options)
    ]


def print_plan(planned: "Sequence[PlannedCell]", request: Request) -> Study:
    """Print what would run and what is missing; returns a study without cells."""
    for spec, _, test, missing in planned:
        state = "done" if test.done else missing or "to run"
        run = f"{spec.table:9} {spec.obj:15} seed {spec.seed} draw {spec.draw}"
        print(f"{run} {spec.row}: {state}")
    if SHORTCUTS in request.options.tables:
        from report.shortcuts import plan

        print(*plan(request.options.data_path, request.options.objects, request.root), sep="\n")
    return Study("plan", request.demo, (), ())


def run_all(planned: "Sequence[PlannedCell]", request: Request) -> dict[Path, str]:
    """Run what is not done, here or in jobs; returns reasons of failures by test folder."""
    work: Work = {}
    for _, train, test, missing in planned:
        if not missing and test not in work.setdefault(train, []):
            work[train].append(test)
    # the demo's network is so small that threads mostly wait for one another
    threads = 1 if request.demo else None
    if request.cluster is None and request.jobs == 1:
        return perform(work, threads)
    import reproduce  # jobs cannot unpickle a function of "__main__"
    from report.cluster import submit

    return submit(partial(reproduce.perform, threads=threads), work, request)


def load_study(
    planned: "Sequence[PlannedCell]", failures: dict[Path, str], request: Request
) -> Study:
    """Return the study with the results of all runs."""
    from report.jobs import cell_result
    from report.settings import study_settings

    cells = tuple(
        cell_result(spec, train.out, test.out, missing, failures.get(test.out, ""))
        for spec, train, test, missing in planned
    )
    title = "MVFA on demo images" if request.demo else "MVFA: tables and figures"
    shortcuts = {}
    options = request.options
    if SHORTCUTS in options.tables:
        from report.shortcuts import all_shortcuts

        shortcuts = all_shortcuts(options.data_path, options.objects, request.root)
    settings = study_settings(cells)
    specs = table_specs(options)
    return Study(title, request.demo, specs, cells, request.command, settings, shortcuts)


@exclusive
def main(argv: Sequence[str] | None = None) -> Study:
    """Run what is not done, write the report, and return what it shows."""
    request = parse(argv)
    if (os.environ.get("WORLD_SIZE") or "1") != "1":
        raise UserError(
            "reproduce.py is not for torchrun; start it with python and share the runs with --jobs"
        )
    if not request.plan:
        from utils import writable

        writable(request.root, "--root")
        hold_folder(request.root, "--root")
    if request.demo:
        import demo

        demo.prepare(request.root, request.depth)
    planned = planned_cells(request)
    if request.plan:
        return print_plan(planned, request)
    study = load_study(planned, run_all(planned, request), request)
    from report.page import write_report

    page = write_report(study, request.root / "report")
    for cell in study.cells:
        if cell.state == FAILED:
            print(f"failed: {cell.table}, {cell.row}, {cell.obj}: {cell.reason}", file=sys.stderr)
    counts = ", ".join(f"{study.count(state)} {state}" for state in (DONE, MISSING, FAILED))
    print(f"\n{counts}\n{page}")
    return study


def run() -> None:
    """Run `main`; exit with status 1 if a cell failed."""
    if main().count(FAILED):
        sys.exit(1)


if __name__ == "__main__":
    command(run)
