"""Distribute runs over jobs, on a cluster or on this machine, with submitit."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit
import torch
from tqdm import tqdm

from errors import UserError
from report.arguments import Request
from report.jobs import Job

ROOT = Path(__file__).parent.parent
Work = dict[Job, list[Job]]  # trainings and their tests
TIMEOUT_MIN = 24 * 60  # of a job; --cluster_options may give another


def gpu(number: int) -> str | None:
    """Return the CUDA device of local job `number`, as CUDA_VISIBLE_DEVICES names it; None: no GPU.

    The jobs take the devices in turn.
    """
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name for name in visible if name] or list(map(str, range(count)))
    return names[number % count] if count else None


def make_executor(request: Request) -> submitit.AutoExecutor:
    """Return an executor with the request's options. UserError if it cannot be had with them."""
    try:
        executor = submitit.AutoExecutor(request.root / "jobs", cluster=request.cluster or "local")
        executor.update_parameters(
            **{"name": "mvfa", "timeout_min": TIMEOUT_MIN, **request.cluster_options}
        )
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0][:160]
        raise UserError(
            f"--cluster {request.cluster}: {reason}; see --cluster and --cluster_options"
        ) from error
    return executor


def wait_for(running: Sequence[submitit.Job[Any]], tests: Sequence[Job], title: str) -> None:
    """Show a progress bar of the tests until all jobs have ended."""
    with tqdm(total=len(tests), unit="test", desc=title) as bar:
        while not all(job.done() for job in running):
            time.sleep(1)
            bar.update(sum(test.done for test in tests) - bar.n)


def failures_of(job: submitit.Job[Any], work: Work) -> dict[Path, str]:
    """Return reasons of failures by folder; the tests that a lost job has not finished failed."""
    error = job.exception()
    if error is None:
        return dict(job.result())
    reason = f"its job was lost ({str(error).splitlines()[0][:120]})"
    return {test.out: reason for tests in work.values() for test in tests if not test.done}


def submit(
    perform: Callable[..., dict[Path, str]], work: Work, request: Request
) -> dict[Path, str]:
    """Run `perform` on the work in as many jobs as were asked for.

    Returns reasons of failures by the folder of the test. UserError if the cluster, or an option of
    it, does not exist.
    """
    trainings = [train for train, tests in work.items() if not all(test.done for test in tests)]
    if not trainings:
        return {}
    search_path = (str(ROOT), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, search_path))  # for the jobs
    executor = make_executor(request)
    shares = [
        {train: work[train] for train in trainings[i :: request.jobs]}
        for i in range(min(request.jobs, len(trainings)))
    ]
    local = request.cluster != "slurm"
    running = [
        executor.submit(perform, share, gpu=gpu(i) if local else None)
        for i, share in enumerate(shares)
    ]
    all_tests = [test for share in shares for tests in share.values() for test in tests]
    failures: dict[Path, str] = {}
    try:
        wait_for(running, all_tests, f"{len(running)} jobs, logs in {request.root}/jobs")
        for job, share in zip(running, shares, strict=True):
            failures |= failures_of(job, share)
    except BaseException:
        for job in running:
            job.cancel(check=False)
        raise
    return failures
