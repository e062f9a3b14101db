"""Few-shot training: adapters learn from K normal and K abnormal images of one object, scored on its test split.

    python train_few.py --obj Brain --shot 4

Every epoch: 22 K augmented images in a new order, then the memory bank and a test pass. The recipe's `select` decides
whose checkpoint stays.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvfa.cli import command, start

if TYPE_CHECKING:
    from mvfa.evaluation import Evaluation


def main(argv: Sequence[str] | None = None) -> "Evaluation":
    """Train and test; returns the chosen epoch's evaluation."""
    options = start("train_few", argv)
    # slow to import: the flags are known to be right by now, and the weight file is being hashed
    from dataset.medical_few import Support, evaluation_set
    from mvfa.training import TrainingRun

    run = TrainingRun(options)
    data, side, epochs = options.data_path, options.img_size, options.epoch

    run.shots_used = run.shots()
    run.check_shots(run.shots_used)
    support = Support(run.shots_used, run.info, side)
    tests = evaluation_set(data, run.info, side)
    run.empty_masks = run.check_tests(tests).empty
    train_streams = run.streams(support, options.batch_size)
    test_streams = run.streams(tests, run.test_batch_size, reused=options.recipe.select == "test")
    valid = run.valid([run.info], run.shots_used)
    # in the batches that test_few.py computes them in: the same memory, to the bit
    run.fill(train_streams, support.normal)
    run.fill(train_streams, support.abnormal)

    for epoch in range(1, epochs + 1):
        run.print(f"epoch  {epoch - 1} :")  # the released code counts from 0
        order = run.shuffled(len(support))
        run.losses.append(run.train(train_streams, order, f"epoch {epoch}/{epochs}"))
        run.print(f"Loss:  {run.losses[-1]:.6f}")
        run.assess(epoch, test_streams, valid, train_streams, last=epoch == epochs)

    return run.finish(tests)


if __name__ == "__main__":
    command(main)
