"""Share the files of a run among jobs, on this machine or a cluster."""

import os
from functools import partial

from errors import UserError
from mvfa.accelerator import visible_device
from mvfa.cluster import lost, make_executor, wait_for
from mvfa.flags import cluster_option
from prediction.options import PredictOptions
from prediction.records import finished
from prediction.start import log_name


def run_shard(options: PredictOptions, shard: int, shards: int, device: str | None) -> int:
    """Score the files that fall to one job; return how many these were.

    `device` is a name for CUDA_VISIBLE_DEVICES; None: no change.
    """
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    from prediction.discovery import find
    from prediction.loading import load_detector
    from prediction.reading import quiet_readers
    from prediction.run import Run

    quiet_readers()
    done = finished(options.out)
    sources = [
        source
        for source in find(options.input, options.out, series=options.series).sources
        if source.belongs(shard, shards) and source.name not in done
    ]
    if sources:
        Run(load_detector(options, sources), options, options.out / log_name(shard, shards))(
            sources
        )
    return len(sources)


def submit(options: PredictOptions, total: int) -> None:
    """Run the jobs and wait for them. Raises UserError if one of them was lost."""
    before = len(finished(options.out))
    executor = make_executor(
        options.out / "jobs", options.cluster, dict(map(cluster_option, options.cluster_options))
    )
    local = options.cluster != "slurm"
    running = [
        executor.submit(
            partial(
                run_shard, options, shard, options.jobs, visible_device(shard) if local else None
            )
        )
        for shard in range(options.jobs)
    ]
    wait_for(
        running,
        lambda: len(finished(options.out)) - before,
        total,
        unit="file",
        title=f"{len(running)} jobs, logs in {options.out}/jobs",
    )
    reasons = [reason for job in running if (reason := lost(job))]
    if reasons:
        raise UserError(
            f"{len(reasons)} of {len(running)} jobs have no result: {reasons[0]}; the same command "
            "goes on with what is missing"
        )
