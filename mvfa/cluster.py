"""Jobs on this machine or a cluster, by submitit: executors, waiting, GPUs taken in turn."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from tqdm import tqdm

from errors import UserError

ROOT = Path(__file__).parent.parent
TIMEOUT_MIN = 24 * 60  # of a job; --cluster_options may give another


def make_executor(
    folder: Path, cluster: str | None, options: Mapping[str, str | int]
) -> submitit.AutoExecutor:
    """Return an executor whose logs go to a folder; `cluster`: "slurm", or "local" if None.

    Raises UserError if the cluster, or an option of it, does not exist. Jobs find this program's
    modules.
    """
    search_path = (str(ROOT), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, search_path))  # for the jobs
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster or "local")
        executor.update_parameters(**{"name": "mvfa", "timeout_min": TIMEOUT_MIN, **options})
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0][:160]
        raise UserError(
            f"--cluster {cluster}: {reason}; see --cluster and --cluster_options"
        ) from error
    return executor


def wait_for(
    running: Sequence[submitit.Job[Any]],
    done: Callable[[], int],
    total: int,
    *,
    unit: str,
    title: str,
) -> None:
    """Show how much is done until all jobs have ended; cancel them if this is interrupted."""
    try:
        with tqdm(total=total, unit=unit, desc=title) as bar:
            while not all(job.done() for job in running):
                time.sleep(1)
                bar.update(done() - bar.n)
    except BaseException:
        for job in running:
            job.cancel(check=False)
        raise


def lost(job: submitit.Job[Any]) -> str:
    """Return why a job has ended without a result, in one line; "" if it has a result."""
    error = job.exception()
    return "" if error is None else f"its job was lost ({str(error).splitlines()[0][:120]})"
