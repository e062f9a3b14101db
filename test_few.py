"""Few-shot testing: score a test split with trained adapters and a memory bank of normal shots.

    python test_few.py --obj Brain --shot 4
    python test_few.py --obj Brain --shot 4 --abnormal_shot 0

The second command uses normal shots only, and the adapters of train_zero.py.
"""

from collections.abc import Sequence

from mvfa.cli import check_flags, command, start

if __name__ == "__main__":
    check_flags("test_few")  # help and mistakes come before the imports below, which take seconds

from dataset.shots import Shots
from mvfa.calibrated import evaluate_calibrated, known_images, show_calibrated
from mvfa.checkpoint import load_adapters
from mvfa.disjoint import evaluate_disjoint
from mvfa.engine import build_memory, predict
from mvfa.environment import compile_network, set_up
from mvfa.evaluation import Evaluation, evaluate
from mvfa.inputs import load_shots, load_test_set, target_object
from mvfa.loaders import Loaders
from mvfa.locks import exclusive
from mvfa.methods.making import create_method
from mvfa.results import show_aurocs, write_test_results
from utils import set_seed


@exclusive
def main(argv: Sequence[str] | None = None) -> Evaluation:
    """Score the test split and write the results; return its evaluation."""
    options = start("test_few", argv)
    env = set_up(options)  # device, precision, processes
    target = target_object(options, env.world)
    generator = set_seed(options.seed)

    # frozen CLIP with the trained adapters (seg, det) after each of the given blocks, and the text
    # features of the object, as in train_few.py; --method names others (mvfa/methods/)
    method = create_method(options, env, target, generator)
    shots = load_shots(options, target, env.world)
    adapters = load_adapters(options, method, env.world, target, shots)
    compile_network(method, options, env.device)

    # the memory bank of the normal shots in eleven augmented versions each
    test_set = load_test_set(options, target, env.world)
    memory = method.bank_levels > 0
    known = known_images(options, target, shots, env.world, memory=memory)
    support = method.support(Shots(shots.normal, []), target, generator)
    loaders = Loaders(method, options, env)
    bank = build_memory(method, loaders.scoring(support), support.normal)

    # maps and scores from the text branch and the memory branch
    test_loader = loaders.scoring(test_set)
    predictions = predict(method, test_loader, bank, maps=options.pictures > 0)
    evaluation = evaluate(predictions, env.world)
    show_aurocs(options, env, evaluation)

    # the same with constants of images that are not tested (docs/calibration.md)
    calibrated = evaluate_calibrated(predictions, known, method, loaders, support, bank)
    show_calibrated(options, env.world, calibrated)

    # and without the images of cases that gave a shot (docs/trust.md)
    disjoint = evaluate_disjoint(options, env.world, predictions, test_set, shots, target)
    write_test_results(
        options,
        env,
        method,
        evaluation,
        predictions,
        test_set,
        adapters,
        shots=shots.names(),
        calibrated=calibrated and calibrated.as_dict(),
        disjoint_cases=disjoint,
    )
    return evaluation


if __name__ == "__main__":
    command(main)
