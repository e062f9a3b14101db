"""Zero-shot training: adapters learn from the test splits of the other five objects and are scored on this one's.

    python train_zero.py --obj Liver

As in the released code the adapters are tested before the steps whose number is a multiple of a fifth of the epoch's
steps, rounded down: five times an epoch if 5 divides the steps, else six times or (in epochs of a few steps) more
often. They are tested at the end too, which the released code does not do, so its rule may not choose that moment. With
`torchrun --nproc_per_node N train_zero.py ...` a step takes --batch_size images from each process, and its gradient is
the mean over all of them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from mvfa.cli import command, start

if TYPE_CHECKING:
    from mvfa.evaluation import Evaluation

PARTS = 5  # of an epoch


def moments(steps: int) -> list[int]:
    """Steps of an epoch, counted from 0, before which the adapters are tested: multiples of steps // 5 (of 1 if 0)."""
    return list(range(0, steps, max(1, steps // PARTS)))


def main(argv: Sequence[str] | None = None) -> "Evaluation":
    """Train and test; returns the chosen moment's evaluation."""
    options = start("train_zero", argv)
    # slow to import: the flags are known to be right by now, and the weight file is being hashed
    from dataset.medical_few import evaluation_set
    from dataset.medical_zero import others, zero_shot_set
    from mvfa.training import TrainingRun

    run = TrainingRun(options)
    data, side, epochs = options.data_path, options.img_size, options.epoch

    train_set = zero_shot_set(data, run.info, side)
    run.check(train_set, "training images")
    tests = evaluation_set(data, run.info, side)
    run.empty_masks = run.check_tests(tests).empty
    # what is read most often first: it gets the room that there is
    test_streams = run.streams(tests, run.test_batch_size, reused=options.recipe.select == "test")
    valid = run.valid(others(run.info))
    train_streams = run.streams(train_set, options.batch_size)

    step_images = options.batch_size * run.world.size
    steps = -(-len(train_set) // step_images)
    if steps < PARTS:
        run.tell(
            f"note: an epoch has {steps} steps, fewer than {PARTS}: the adapters are tested before each of them"
        )

    for epoch in range(epochs):
        run.print(f"epoch {epoch} :")  # the released code counts from 0
        order = run.shuffled(len(train_set))
        loss = 0.0
        for first, end in pairwise([*moments(steps), steps]):
            run.step = first
            run.assess(epoch + first / steps, test_streams, valid)
            images = order[first * step_images : end * step_images]
            told = f"epoch {epoch + 1}/{epochs} steps {first + 1} to {end}"
            loss += run.train(train_streams, images, told) * len(images) / len(order)
        run.losses.append(loss)
        run.print(f"Loss:  {loss:.6f}")
    run.assess(epochs, test_streams, valid, last=True, oracle=False)

    return run.finish(tests)


if __name__ == "__main__":
    command(main)
