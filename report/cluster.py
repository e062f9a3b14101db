"""Work shared out among jobs, on a cluster or on this machine, by submitit."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import submitit
import torch
from tqdm import tqdm

from errors import UserError
from report.arguments import Request
from report.runs import Job

ROOT = Path(__file__).parent.parent
Work = dict[Job, list[Job]]  # trainings and their tests
TIMEOUT_MIN = 24 * 60  # of a job, unless --cluster_options say otherwise


def gpu(number: int) -> str | None:
    """The CUDA device of local job `number`, by its name in CUDA_VISIBLE_DEVICES: the jobs take turns."""
    count = torch.cuda.device_count()
    names = [
        name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name
    ] or list(map(str, range(count)))
    return names[number % count] if count else None


def submit(
    perform: Callable[..., dict[Path, str]], work: Work, request: Request
) -> dict[Path, str]:
    """`perform` in as many jobs as were asked for; reasons of failures by folder. What a lost job leaves has failed.

    UserError if the cluster or an option of it is not there.
    """
    trainings = [train for train, tests in work.items() if not all(test.done for test in tests)]
    if not trainings:
        return {}
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    )  # for the jobs
    try:
        executor = submitit.AutoExecutor(request.root / "jobs", cluster=request.cluster or "local")
        executor.update_parameters(
            **{"name": "mvfa", "timeout_min": TIMEOUT_MIN, **request.cluster_options}
        )
    except (
        RuntimeError,
        NameError,
        TypeError,
        ValueError,
    ) as error:  # no such cluster here, or no such option
        reason = str(error).split("\n")[0][:160]
        raise UserError(
            f"--cluster {request.cluster}: {reason}; see --cluster and --cluster_options"
        ) from error
    shares = [
        {train: work[train] for train in trainings[i :: request.jobs]}
        for i in range(min(request.jobs, len(trainings)))
    ]
    local = request.cluster != "slurm"
    running = [
        (executor.submit(perform, share, gpu=gpu(i) if local else None), share)
        for i, share in enumerate(shares)
    ]
    tests = [test for _, share in running for tests in share.values() for test in tests]
    failures: dict[Path, str] = {}
    try:
        with tqdm(
            total=len(tests), unit="test", desc=f"{len(running)} jobs, logs in {request.root}/jobs"
        ) as bar:
            while not all(job.done() for job, _ in running):
                time.sleep(1)
                bar.update(sum(test.done for test in tests) - bar.n)
        for job, share in running:
            loss = job.exception()
            told = f"its job was lost ({str(loss).splitlines()[0][:120]})" if loss else ""
            lost = {test.out: told for group in share.values() for test in group if not test.done}
            failures |= lost if loss else job.result()
    except BaseException:
        for job, _ in running:
            job.cancel(check=False)
        raise
    return failures
