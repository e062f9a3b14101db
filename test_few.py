"""Few-shot testing: score an object's test split with trained adapters and the memory of its normal shots.

python test_few.py --obj Brain --shot 4
"""

from collections.abc import Sequence

from dataset.medical_few import Support, evaluation_set
from dataset.shots import choose_shots
from evaluation import Evaluation
from options import parse
from report.results import lines
from runner import Run, command


def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Load the checkpoint, fill the memory, score and write the results."""
    options = parse("test_few", argv)
    run = Run(options)
    run.load_adapters(fallback=options.save_path / f"{options.obj}.pth")

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
    memory = run.streams(support, options.test_batch_size)
    evaluation = run.test(run.streams(tests, options.test_batch_size, reused=False), memory=memory)

    if run.world.first:
        print(lines(options.obj, evaluation))
    return run.finish(evaluation, tests, shots=shots.names())


if __name__ == "__main__":
    command(main)
