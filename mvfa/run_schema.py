"""What metrics.json and curves.json of a run may say, as far as pages and tables compute with it.

Needs no torch.
"""

from collections.abc import Mapping

from mvfa.methods.catalog import METHODS
from mvfa.schema import (
    Each,
    Entries,
    Many,
    Schema,
    between,
    finite,
    mapping,
    number,
    one_of,
    text,
    truth,
    whole,
)

CURVE_NAMES = ("roc", "pr")  # entries of a branch that curves.json holds

RANGE = Many(number, 2)
CURVE = Many(Many(finite, 2))
WITHIN = Entries({"auroc": number, "used": whole, "left_out": whole})
BRANCH = Entries(
    {
        "auroc": finite,
        "average_precision": finite,
        "aupro": finite,
        "dice": finite,
        "best_f1": finite,
        "threshold": finite,
        "sensitivity": finite,
        "specificity": finite,
        "sensitivity_at_95_specificity": finite,
        "sensitivity_at_95_specificity_interval": RANGE,
        "specificity_at_95_sensitivity": finite,
        "specificity_at_95_sensitivity_interval": RANGE,
        "interval": Entries({"auroc": RANGE, "average_precision": RANGE}),
        "interval_by_case": Entries({"auroc": RANGE, "average_precision": RANGE, "cases": whole}),
        "within_case": WITHIN,
        "within_slice": WITHIN,
        **dict.fromkeys(CURVE_NAMES, CURVE),
    }
)
PICTURE: Mapping[str, Schema] = {
    "file": text,
    "label": between(0, 1),
    "score": number,
    "rank": text,
    "panel": text,
    "image": text,
    "map": text,
    "mask": text,
}
OPTIONS: Mapping[str, Schema] = {
    "obj": text,
    "method": one_of(*METHODS),
    "script": text,
    "shot": whole,
    "abnormal_shot": whole,
    "iterate": whole,
    "seed": whole,
    "img_size": whole,
    "features_list": Many(whole),
    "score_levels": Many(whole),
    "bootstrap": whole,
    "recipe": mapping,
    "recipe_name": text,
}
RELIABILITY: Mapping[str, Schema] = {
    "normals": whole,
    "false_positive_rates": Many(
        Entries({"rate": number, "share": number, "low": number, "high": number}, ("rate",))
    ),
    "probability": Entries({"brier": number, "calibration_error": number}),
}
COUNTS: Mapping[str, Schema] = {"normal": whole, "abnormal": whole, "cases": whole}
AUROCS: Mapping[str, Schema] = {"image_auroc": number, "pixel_auroc": number}
DISJOINT = Entries(
    {**AUROCS, "images": whole, "left_out": whole, "cases": whole},
    ("images", "left_out", "cases"),
)
CALIBRATED = Entries(
    {**AUROCS, "pixel_dice": number, "images": whole, "reliability": Entries(RELIABILITY)},
    ("image_auroc", "images"),
)
FILE = Entries({"file": text, "sha256": text}, ("file", "sha256"))
TRAINING = Entries(
    {
        "select": text,
        "epoch": number,
        "batch_size": whole,
        "learning_rate": number,
        "seed": whole,
        "train_objects": Many(text),
    }
)
FORM = Entries(
    {
        "image_auroc": finite,
        "pixel_auroc": finite,
        "threshold": finite,
        "mask_rule": text,
        "masks": truth,
        "empty_masks": whole,
        "details": Each(Each(BRANCH)),
        "pictures": Many(Entries(PICTURE, tuple(n for n in PICTURE if n != "mask"), ("mask",))),
        "options": Entries(OPTIONS),
        "versions": Each(text),
        "weights": FILE,
        "adapters": FILE,
        "files": Each(text),
        "sha256": text,
        "training": TRAINING,
        "calibrated": CALIBRATED,
        "test_images": Entries(COUNTS, ("normal", "abnormal")),
        "disjoint_cases": DISJOINT,
        "cost": Entries({"bank_bytes": whole, "image_seconds": finite}),
        "trained_parameters": whole,
        "seconds": finite,
        "peak_memory_bytes": Each(whole),
        "selections": Each(Entries(AUROCS)),
    },
    needed=("image_auroc",),
)
# by granularity and branch
POINTS_FILE = Each(Each(Entries(dict.fromkeys(CURVE_NAMES, CURVE))))
