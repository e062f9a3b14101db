"""Make a detector: all that scores an image of one's own, in one file.

    python calibrate.py --obj Brain --shot 4
    python calibrate.py --obj Liver --shot 0 --normals my_normal_images

Adapters, memory bank, text features and recipe, the constants of the scores, and the scores of the
calibration images, which thresholds and p-values come from. predict.py and app.py read the file.
"""

from collections.abc import Sequence
from pathlib import Path

from mvfa.cli import check_flags, command, start

if __name__ == "__main__":
    check_flags("calibrate")  # help and mistakes come before the imports below, which take seconds

from dataset.shots import Shots
from mvfa.calibration import default_rule, describe, threshold
from mvfa.calibration_set import calibration_set, shot_of_rows
from mvfa.checkpoint import load_adapters
from mvfa.console import show
from mvfa.detector import Detector
from mvfa.detector_making import calibrate, origin, selection_of, settings_of
from mvfa.engine import build_memory
from mvfa.environment import set_up
from mvfa.inputs import load_shots, target_object
from mvfa.loaders import Loaders
from mvfa.locks import exclusive
from mvfa.methods.making import create_method
from utils import set_seed


@exclusive
def main(argv: Sequence[str] | None = None) -> Path:
    """Make a detector from adapters and shots, calibrate it and write it; return its file."""
    options = start("calibrate", argv)
    target = target_object(options)
    env = set_up(options)  # device, precision, processes
    generator = set_seed(options.seed)

    # frozen CLIP with the trained adapters, as in test_few.py and test_zero.py, or what --method
    # names (mvfa/methods/)
    method = create_method(options, env, target, generator)
    shots = load_shots(options, target, env.world) if options.shot else Shots([], [])
    adapters = load_adapters(options, method, env.world, target, shots)
    method.prepare_scores()

    # the memory bank of the normal shots in their augmented versions
    bank = None
    owners = None
    if shots.normal and method.bank_levels:
        support = method.support(Shots(shots.normal, []), target, generator)
        loader = Loaders(method, options, env).scoring(support)
        bank = build_memory(method, loader, support.normal)
        owners = shot_of_rows(method, support, len(shots.normal), loader.batch_size, env.world)
    detector = Detector(method, bank, settings_of(options, target, method, env))

    # the constants of the scores, and the scores of images that are known
    images = calibration_set(options, target, shots, bank, owners, env.world)
    detector.about = origin(options, adapters, shots)
    calibration = calibrate(detector, images, selection_of(adapters, method))
    detector.save(options.detector)
    rule, reason = default_rule(calibration)
    show(describe(calibration, threshold(rule, calibration), reason), env.world)
    show(f"wrote {options.detector}", env.world)
    return options.detector


if __name__ == "__main__":
    command(main)
