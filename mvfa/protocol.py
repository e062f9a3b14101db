"""The protocol of a run as a paragraph for a paper, from the settings that its metrics.json holds.

What a run has not recorded is left out, or called unknown where a reader has to know it. Torch is
not loaded by importing this module.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset.catalog import ANY, HALF, PAPER_ORDER
from mvfa.methods.catalog import METHODS, MVFA, MethodInfo
from mvfa.recipe import APRIL_GAN, RECIPES, SCORING_FIELDS
from mvfa.run_schema import TRAINING
from mvfa.schema import Entries, mapping, problem

SELECTED = {  # by the rule that chose the checkpoint
    "test": "the one with the best results on the test set itself, an oracle",
    "valid": "the one with the best results on images of valid/ that were not trained on",
    "last": "the last one",
}
RECIPE_SOURCES = {
    "released": "the authors' released code",
    "paper": "the paper",
    APRIL_GAN: "the authors' released code, with linear projectors instead of adapters",
}
GREYS = {HALF: "grey values above half of the range", ANY: "all grey values above 0"}
ABOUT = Entries({"options": Entries({"recipe": mapping}), "train_objects": mapping})
DIGEST = 12  # digits of a hash that are shown


def training_of(adapters: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return how adapters were trained, as their file says it; empty for the authors' own files.

    `keys` are the groups of the method's checkpoints.
    """
    from mvfa.checkpoint import load  # loads torch

    about = load(adapters, keys).about
    options = about.get("options")
    if problem(about, ABOUT) or not options:
        return {}
    names = ("epoch", "batch_size", "learning_rate", "seed")
    found = {
        "select": (options.get("recipe") or {}).get("select"),
        **{name: options.get(name) for name in names},
        "train_objects": list(about.get("train_objects") or ()) or None,
    }
    return {} if problem(found, TRAINING) else found


def protocol_text(metrics: Mapping[str, Any]) -> str:
    """Return the protocol of a test in sentences; `metrics` is the content of its metrics.json.

    "" for one without options.
    """
    options = metrics.get("options")
    if not options:
        return ""
    training = metrics.get("training") or {}
    weights = metrics.get("weights") or {}
    method = options.get("method", MVFA)
    if method == MVFA:
        parts = [
            setting_sentence(options, training, masks=bool(metrics.get("masks"))),
            training_sentence(training),
            backbone_sentence(options, weights),
            recipe_sentence(options),
        ]
    else:
        info = METHODS[method]
        parts = [rival_sentence(info, options, weights), info.summary]
        parts += [training_sentence(training)] if info.keys else []
    parts += [
        scores_sentence(options, metrics.get("calibrated") or {}),
        mask_sentence(options, metrics),
        images_sentence(options, metrics.get("test_images") or {}),
        disjoint_sentence(metrics.get("disjoint_cases") or {}),
        spread_sentence(options, metrics.get("versions") or {}),
    ]
    return " ".join(part for part in parts if part)


def setting_sentence(
    options: Mapping[str, Any], training: Mapping[str, Any], *, masks: bool
) -> str:
    """Say what images the adapters were trained on, and which fill the memory bank."""
    name = options.get("obj", "an unknown object")
    shot = options.get("shot")
    zero = (
        f"were trained on labelled test images{of_objects(name, training)}, and on none of {name}"
    )
    if options.get("script") == "test_zero":
        return f"Zero-shot anomaly detection on {name}: the adapters {zero}."
    shots = f"{shot} normal {'image' if shot == 1 else 'images'}"
    drawn = f"of its valid/ ({draw_words(options)})"
    if options.get("abnormal_shot") == 0:
        return (
            f"Anomaly detection on {name} with normal shots only: {shots} {drawn} fill the memory "
            f"bank; the adapters {zero}."
        )
    with_masks = ", with the masks of the abnormal ones" if masks else ""
    return (
        f"Few-shot anomaly detection on {name}: the adapters were trained on {shots} and as many "
        f"abnormal ones {drawn}{with_masks}, in eleven augmented versions each; the normal ones "
        "fill the memory bank."
    )


def rival_sentence(info: MethodInfo, options: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    """Say which method another than MVFA is, which images it has, and which network reads them."""
    shots = "no image of it"
    if options.get("script") == "test_few":
        count = options.get("shot")
        both = info.keys and options.get("abnormal_shot") != 0
        also = " and as many abnormal" if both else ""
        drawn = draw_words(options)
        shots = f"{count} normal{also} images of its valid/ ({drawn})"
    file = Path(str(weights.get("file", "unknown"))).name
    digest = str(weights.get("sha256", ""))[:DIGEST]
    return (
        f"Anomaly detection on {options.get('obj', 'an unknown object')} by {info.title}, given "
        f"{shots}; the backbone ({file}, SHA-256 {digest}) is frozen and computes in "
        f"{options.get('precision')}."
    )


def draw_words(options: Mapping[str, Any]) -> str:
    """Say which draw of the shots was taken."""
    draw = options.get("iterate")
    if draw is None or draw < 0:
        return f"drawn by seed {options.get('seed')}"
    return f"draw {draw} of the shot lists"


def of_objects(name: str, training: Mapping[str, Any]) -> str:
    """Return " of A, B and C, ...": the objects that zero-shot adapters were trained on."""
    others = training.get("train_objects") or [obj for obj in PAPER_ORDER if obj != name]
    *most, last = others
    names = f"{', '.join(most)} and {last}" if most else last
    return f" of {names}, with their masks where there are any"


def training_sentence(training: Mapping[str, Any]) -> str:
    """Say how long the adapters were trained, and how the checkpoint was chosen."""
    selected = SELECTED.get(str(training.get("select")))
    rate = training.get("learning_rate")
    if selected is None or rate is None:
        return "How the checkpoint was chosen is not recorded; the authors chose by the test set."
    epochs = training.get("epoch")
    settings = (
        f"batches of {training.get('batch_size')}, learning rate {rate:g}, "
        f"seed {training.get('seed')}"
    )
    return f"Of {epochs} epochs ({settings}) the checkpoint is {selected}."


def backbone_sentence(options: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    """Say which network reads images of what size."""
    side = options.get("img_size")
    file = Path(str(weights.get("file", "unknown"))).name
    digest = str(weights.get("sha256", ""))[:DIGEST]
    blocks = ", ".join(map(str, options.get("features_list") or ()))
    return (
        f"CLIP ({file}, SHA-256 {digest}) is frozen and computes in {options.get('precision')}, "
        f"with adapters after blocks {blocks}; images are resized to {side} x {side} pixels, "
        "whatever their aspect ratio."
    )


def recipe_sentence(options: Mapping[str, Any]) -> str:
    """Say which recipe the scores follow, and what differs from it."""
    name = str(options.get("recipe_name", ""))
    own = options.get("recipe") or {}
    if name not in RECIPES:
        return ""
    base = RECIPES[name].as_dict()
    changed = [
        f"{key} {own[key]}" for key in SCORING_FIELDS if own.get(key, base[key]) != base[key]
    ]
    of = RECIPE_SOURCES[name]
    but = f", except for {', '.join(changed)}" if changed else ""
    levels = options.get("score_levels") or ()
    scored = f"; scored are blocks {', '.join(map(str, levels))}" if levels else ""
    return f"Scores are computed as in {of}{but}{scored}."


def scores_sentence(options: Mapping[str, Any], calibrated: Mapping[str, Any]) -> str:
    """Say over which images scores are scaled."""
    branch = "Each branch is" if options.get("script") != "test_zero" else "Scores are"
    text = f"{branch} scaled to [0, 1] by the lowest and highest value of the whole test set"
    if not calibrated:
        return f"{text}."
    auroc = f"{100 * calibrated['image_auroc']:.2f} %"
    return f"{text}; scaled by {calibrated['images']} other images, image AUROC is {auroc}."


def mask_sentence(options: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Say which pixels count as lesion, where the object has masks."""
    greys = GREYS.get(str(metrics.get("mask_rule")))
    if not metrics.get("masks") or greys is None:
        return ""
    side = options.get("img_size")
    empty = metrics.get("empty_masks") or 0
    without = f" ({empty} masks have none)" if empty else ""
    return (
        f"Of the masks, {greys} count as lesion (mask rule {metrics['mask_rule']}){without}; pixel "
        f"metrics are of all pixels of all test images at {side} x {side}."
    )


def images_sentence(options: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    """Say how many images and cases are tested, and what the intervals are of."""
    if not counts:
        return ""
    cases = counts.get("cases")
    of = f" of {cases} cases" if cases else ", whose cases are not known"
    text = f"The test split has {counts['normal']} normal and {counts['abnormal']} abnormal images"
    resamples = options.get("bootstrap")
    if not resamples:
        return f"{text}{of}."
    over = "images and of cases" if cases else "images, as if these were independent"
    return f"{text}{of}; 95 % intervals are from {resamples} bootstrap resamples of {over}."


def disjoint_sentence(disjoint: Mapping[str, Any]) -> str:
    """Say what remains without the cases of the shots, where that was measured."""
    if disjoint.get("image_auroc") is None:
        return ""
    return (
        f"Without the {disjoint['left_out']} images of the {disjoint['cases']} cases that gave a "
        f"shot, the image AUROC of the other {disjoint['images']} is "
        f"{100 * disjoint['image_auroc']:.2f} %."
    )


def spread_sentence(options: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    """Say what one run cannot show, and with which program it was made."""
    program = f"MVFA {versions.get('mvfa', 'of unknown version')}"
    commit = str(versions.get("commit") or "")[:DIGEST]
    at = f" (commit {commit})" if commit else ""
    return (
        f"This is one run, with seed {options.get('seed')}: it shows no spread over trainings and "
        f"draws. It was made with {program}{at} and PyTorch {versions.get('torch', 'unknown')}."
    )
