"""Zero-shot testing: score an object's test split with adapters that never saw the object.

    python test_zero.py --obj Liver

Only the object's own folder is read.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvfa.cli import command, start

if TYPE_CHECKING:
    from mvfa.evaluation import Evaluation


def main(argv: Sequence[str] | None = None) -> "Evaluation":
    """Load the checkpoint, score and write the results."""
    options = start("test_zero", argv)
    # slow to import: the flags are known to be right by now, and the weight file is being hashed
    from dataset.medical_few import evaluation_set
    from mvfa.testing import ScoringRun

    run = ScoringRun(options)
    run.load_adapters()

    tests = evaluation_set(options.data_path, run.info, options.img_size)
    return run.score(tests)


if __name__ == "__main__":
    command(main)
