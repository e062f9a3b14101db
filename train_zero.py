"""Zero-shot training: adapters learn from the test splits of the other five objects and are scored on this one's.

    python train_zero.py --obj Liver

The test set is scored before the first step of an epoch and after each fifth of its steps but the last. With
`torchrun --nproc_per_node N train_zero.py ...` a step takes --batch_size images from each process, and its gradient is
the mean over all of them.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch

from dataset.medical_few import evaluation_set
from dataset.medical_zero import others, zero_shot_set
from evaluation import Evaluation
from options import parse
from runner import Run, command

PARTS = 5  # of an epoch, each preceded by a test


def parts(order: list[int], step: int) -> list[list[int]]:
    """An epoch's images in five parts of whole steps of `step` images; the last takes what is left."""
    steps = -(-len(order) // step)
    size = max(1, steps // PARTS) * step
    cuts = [min(i * size, len(order)) for i in range(PARTS)] + [len(order)]
    return [order[a:b] for a, b in pairwise(cuts)]


def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Train and test; returns the chosen moment's evaluation."""
    options = parse("train_zero", argv)
    run = Run(options)
    run.start_from(options.init)

    train_set = zero_shot_set(options.data_path, run.info, options.img_size)
    tests = evaluation_set(options.data_path, run.info, options.img_size)
    train_streams = run.streams(train_set, options.batch_size)
    test_streams = run.streams(tests, options.test_batch_size, reused=options.recipe.select == "test")
    text = {other.noun: run.text(other.noun) for other in others(run.info)}

    for epoch in range(1, options.epoch + 1):
        order = torch.randperm(len(train_set), generator=run.generator).tolist()
        loss = 0.0
        for part, images in enumerate(parts(order, options.batch_size * run.world.size)):
            if options.recipe.select == "test":
                run.keep(run.test(test_streams), epoch - 1 + part / PARTS)
            if images:
                told = f"epoch {epoch}/{options.epoch} part {part + 1}/{PARTS}"
                loss += run.train(train_streams, text, images, told) * len(images) / len(order)
        run.losses.append(loss)
    if options.recipe.select == "last":
        run.keep(run.test(test_streams), options.epoch)

    return run.finish(run.chosen, tests, best_epoch=run.best_epoch)


if __name__ == "__main__":
    command(main)
