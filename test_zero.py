"""Zero-shot testing: score an object's test split with adapters that never saw the object.

    python test_zero.py --obj Liver

Only the object's own folder is read.
"""

from collections.abc import Sequence

from dataset.medical_few import evaluation_set
from evaluation import Evaluation
from options import parse
from runner import command
from testing import ScoringRun


def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Load the checkpoint, score and write the results."""
    options = parse("test_zero", argv)
    run = ScoringRun(options)
    run.load_adapters()

    tests = evaluation_set(options.data_path, run.info, options.img_size)
    return run.score(tests)


if __name__ == "__main__":
    command(main)
