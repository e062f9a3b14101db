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

from CLIP.adapter import MVFA
from CLIP.weights import create_model
from dataset.medical_few import Support
from dataset.shots import Shots
from mvfa.calibration import default_rule, describe, threshold
from mvfa.calibration_set import calibration_set
from mvfa.checkpoint import load_adapters
from mvfa.console import show
from mvfa.detector import Detector
from mvfa.detector_making import calibrate, origin, selection_of, settings_of
from mvfa.engine import build_memory
from mvfa.environment import set_up
from mvfa.forms import adapter_form, clip_arguments, memory_arguments
from mvfa.inputs import load_shots, target_object
from mvfa.loaders import Loaders
from mvfa.locks import exclusive
from mvfa.text_cache import cached_text_features
from utils import set_seed


@exclusive
def main(argv: Sequence[str] | None = None) -> Path:
    """Make a detector from adapters and shots, calibrate it and write it; return its file."""
    options = start("calibrate", argv)
    target = target_object(options)
    env = set_up(options)  # device, precision, processes
    generator = set_seed(options.seed)

    # frozen CLIP with the trained adapters, as in test_few.py and test_zero.py
    clip = create_model(**clip_arguments(options, env))
    form = adapter_form(options.recipe)
    model = MVFA(clip.visual, clip.config.embed_dim, options.features_list, form, generator)
    shots = load_shots(options, target, env.world) if options.shot else Shots([], [])
    adapters = load_adapters(options, model, clip.weight_file, env.world, target, shots)
    text = cached_text_features(clip, target.noun, env.precision, options.text_cache)  # [E, 2]

    # the memory bank of the normal shots in eleven augmented versions each
    bank = None
    if shots.normal:
        support = Support(Shots(shots.normal, []), target, options.img_size)
        arguments = memory_arguments(options, target, env)
        loader = Loaders(model, options, env).scoring(support)
        bank = build_memory(model, loader, support.normal, **arguments)
    detector = Detector(model, text, bank, settings_of(options, target, clip, env))

    # the constants of the scores, and the scores of images that are known
    images = calibration_set(options, target, shots, bank, env.world)
    detector.about = origin(options, adapters, shots)
    calibration = calibrate(detector, images, selection_of(adapters))
    detector.save(options.detector)
    rule, reason = default_rule(calibration)
    show(describe(calibration, threshold(rule, calibration), reason), env.world)
    show(f"wrote {options.detector}", env.world)
    return options.detector


if __name__ == "__main__":
    command(main)
