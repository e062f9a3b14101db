"""Few-shot training: adapters learn from K normal and K abnormal images of one object, scored on its test split.

    python train_few.py --obj Brain --shot 4

Every epoch: 22 K augmented images in a new order, then the memory bank and a test pass. The recipe's `select` decides
whose checkpoint stays.
"""

from collections.abc import Sequence

import torch

from dataset.medical_few import Support, evaluation_set
from dataset.shots import choose_shots
from evaluation import Evaluation
from options import parse
from runner import Run, command


def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Train and test; returns the chosen epoch's evaluation."""
    options = parse("train_few", argv)
    run = Run(options)
    run.start_from(options.init)

    shots = choose_shots(
        options.data_path,
        run.info,
        options.shot,
        draw=options.iterate,
        seed=options.seed,
        lists=options.fewshot_path,
    )
    support = Support(shots, run.info, options.img_size)
    tests = evaluation_set(options.data_path, run.info, options.img_size)
    train_streams = run.streams(support, options.batch_size)
    test_streams = run.streams(tests, options.test_batch_size, reused=options.recipe.select == "test")
    text = {run.info.noun: run.text(run.info.noun)}

    for epoch in range(1, options.epoch + 1):
        order = torch.randperm(len(support), generator=run.generator).tolist()
        run.losses.append(run.train(train_streams, text, order, f"epoch {epoch}/{options.epoch}"))
        if options.recipe.select == "test" or epoch == options.epoch:
            run.keep(run.test(test_streams, memory=train_streams), epoch, shots)

    return run.finish(run.chosen, tests, best_epoch=run.best_epoch, shots=shots.names())


if __name__ == "__main__":
    command(main)
