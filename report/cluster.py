"""Distribute runs over jobs, on a cluster or on this machine, with submitit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import submitit

from mvfa.accelerator import visible_device
from mvfa.cluster import lost, make_executor, wait_for
from report.arguments import Request
from report.job import Job, to_run

Work = dict[Job, list[Job]]  # trainings and their tests


def failures_of(job: submitit.Job[Any], work: Work) -> dict[Path, str]:
    """Return reasons of failures by folder; the tests that a lost job has not finished failed."""
    reason = lost(job)
    if not reason:
        return dict(job.result())
    return {test.out: reason for tests in work.values() for test in tests if not test.done}


def submit(
    perform: Callable[..., dict[Path, str]], work: Work, request: Request
) -> dict[Path, str]:
    """Run `perform` on the work in as many jobs as were asked for.

    Returns reasons of failures by the folder of the test. UserError if the cluster, or an option of
    it, does not exist.
    """
    trainings = [train for train, tests in work.items() if train.damage or to_run(train, tests)]
    if not trainings:
        return {}
    executor = make_executor(request.root / "jobs", request.cluster, request.cluster_options)
    shares = [
        {train: work[train] for train in trainings[i :: request.jobs]}
        for i in range(min(request.jobs, len(trainings)))
    ]
    local = request.cluster != "slurm"
    running = [
        executor.submit(perform, share, gpu=visible_device(i) if local else None)
        for i, share in enumerate(shares)
    ]
    all_tests = [test for share in shares for tests in share.values() for test in tests]
    wait_for(
        running,
        lambda: sum(test.done for test in all_tests),
        len(all_tests),
        unit="test",
        title=f"{len(running)} jobs, logs in {request.root}/jobs",
    )
    failures: dict[Path, str] = {}
    for job, share in zip(running, shares, strict=True):
        failures |= failures_of(job, share)
    return failures
