"""Zero-shot training: adapters learn from the test splits of the other five objects and are scored on this one's.

    python train_zero.py --obj Liver

The adapters are looked at before the first step of an epoch, after each fifth of its steps but the last, and (which the
released code does not do, so that its rule may not choose it) at the end. With
`torchrun --nproc_per_node N train_zero.py ...` a step takes --batch_size images from each process, and its gradient is
the mean over all of them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from launch import command, start

if TYPE_CHECKING:
    from evaluation import Evaluation

PARTS = 5  # of an epoch, each preceded by a test


def parts(order: list[int], step: int) -> list[list[int]]:
    """An epoch's images in five parts of whole steps of `step` images; the last takes what is left."""
    steps = -(-len(order) // step)
    size = max(1, steps // PARTS) * step
    cuts = [min(i * size, len(order)) for i in range(PARTS)] + [len(order)]
    return [order[a:b] for a, b in pairwise(cuts)]


def main(argv: Sequence[str] | None = None) -> "Evaluation":
    """Train and test; returns the chosen moment's evaluation."""
    options = start("train_zero", argv)
    # slow to import: the flags are known to be right by now, and the weight file is being hashed
    from dataset.medical_few import evaluation_set
    from dataset.medical_zero import others, zero_shot_set
    from training import TrainingRun

    run = TrainingRun(options)
    data, side, epochs = options.data_path, options.img_size, options.epoch

    train_set = zero_shot_set(data, run.info, side)
    tests = evaluation_set(data, run.info, side)
    # what is read most often first: it gets the room that there is
    test_streams = run.streams(tests, run.test_batch_size, reused=options.recipe.select == "test")
    valid = run.valid(others(run.info))
    train_streams = run.streams(train_set, options.batch_size)

    for epoch in range(1, epochs + 1):
        order = run.shuffled(len(train_set))
        loss = 0.0
        for part, images in enumerate(parts(order, options.batch_size * run.world.size)):
            run.assess(epoch - 1 + part / PARTS, test_streams, valid)
            if images:
                told = f"epoch {epoch}/{epochs} part {part + 1}/{PARTS}"
                loss += run.train(train_streams, images, told) * len(images) / len(order)
        run.losses.append(loss)
    run.assess(epochs, test_streams, valid, last=True, oracle=False)

    return run.finish(tests)


if __name__ == "__main__":
    command(main)
