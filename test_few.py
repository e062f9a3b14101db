"""Few-shot testing: score an object's test split with trained adapters and the memory of its normal shots.

python test_few.py --obj Brain --shot 4
python test_few.py --obj Brain --shot 4 --abnormal_shot 0    normal shots only, adapters of train_zero.py
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvfa.cli import command, start

if TYPE_CHECKING:
    from mvfa.evaluation import Evaluation


def main(argv: Sequence[str] | None = None) -> "Evaluation":
    """Load the checkpoint, fill the memory, score and write the results."""
    options = start("test_few", argv)
    # slow to import: the flags are known to be right by now, and the weight file is being hashed
    from dataset.medical_few import Support, evaluation_set
    from dataset.shots import Shots
    from mvfa.testing import ScoringRun

    run = ScoringRun(options)
    shots = run.shots()
    run.load_adapters(shots)
    run.check_shots(shots)

    support = Support(Shots(shots.normal, []), run.info, options.img_size)
    tests = evaluation_set(options.data_path, run.info, options.img_size)
    memory = run.streams(support, run.test_batch_size, reused=False)
    return run.score(tests, memory, shots=shots.names())


if __name__ == "__main__":
    command(main)
