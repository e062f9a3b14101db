"""Zero-shot testing: score a test split with adapters that never saw the object.

    python test_zero.py --obj Liver

Only the object's own folder is read.
"""

from collections.abc import Sequence

from mvfa.cli import check_flags, command, start

if __name__ == "__main__":
    check_flags("test_zero")  # help and mistakes come before the imports below, which take seconds

from mvfa.checkpoint import load_adapters
from mvfa.engine import predict
from mvfa.environment import compile_network, set_up
from mvfa.evaluation import Evaluation, evaluate
from mvfa.inputs import load_test_set, target_object
from mvfa.loaders import Loaders
from mvfa.locks import exclusive
from mvfa.methods.making import create_method
from mvfa.results import show_aurocs, write_test_results
from utils import set_seed


@exclusive
def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Score the test split and write the results; return its evaluation."""
    options = start("test_zero", argv)
    env = set_up(options)  # device, precision, processes
    target = target_object(options, env.world)
    generator = set_seed(options.seed)

    # frozen CLIP with the trained adapters (seg, det) after each of the given blocks, and the text
    # features of the object, as in train_few.py; --method names others (mvfa/methods/)
    method = create_method(options, env, target, generator)
    adapters = load_adapters(options, method, env.world, target)
    compile_network(method, options, env.device)

    # maps and scores from the text branch alone: there is no memory bank
    test_set = load_test_set(options, target, env.world)
    test_loader = Loaders(method, options, env).scoring(test_set)
    predictions = predict(method, test_loader, None, maps=options.pictures > 0)
    evaluation = evaluate(predictions, env.world)
    show_aurocs(options, env, evaluation)
    write_test_results(options, env, method, evaluation, predictions, test_set, adapters)
    return evaluation


if __name__ == "__main__":
    command(main)
