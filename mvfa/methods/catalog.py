"""The methods by name: what each is called, and which scripts run it. No torch."""

from dataclasses import dataclass, field
from typing import Any

from errors import UserError

MVFA = "mvfa"
MADCLIP = "madclip"
PATCH_MEMORY = "patch_memory"
CLIP = "clip"
WINCLIP = "winclip"


@dataclass(frozen=True)
class MethodInfo:
    """What flags need to know of a method.

    Args:
        title: its name in tables.
        summary: what is trained and what an image is compared with, in sentences.
        scripts: those that can run it; calibrate.py can what a test of its setting can.
        model: the backbone that --model_name names by default.
        sentences: whether features are compared with text.
        memory_branch: whether a memory bank gives scores apart from those of text.
        keys: groups of tensors in its checkpoint; none: nothing is trained.
        uses: flags that change what it computes, of the recipe and of levels; None: all.
        defaults: values of flags that differ from MVFA's, by name.

    """

    title: str
    summary: str
    scripts: tuple[str, ...]
    keys: tuple[str, ...] = ()
    uses: tuple[str, ...] | None = None
    model: str = "ViT-L-14-336"
    sentences: bool = True
    memory_branch: bool = True
    defaults: dict[str, Any] = field(default_factory=dict)

    def runs(self, script: str) -> bool:
        """Return whether a script can run it; calibrate_few can what test_few can."""
        return script.replace("calibrate", "test") in self.scripts


METHODS = {
    MVFA: MethodInfo(
        "MVFA",
        "Adapters after four blocks are trained; their features are compared with sentences and "
        "with a memory bank of normal images.",
        ("train_few", "test_few", "train_zero", "test_zero"),
        ("seg_adapters", "det_adapters"),
    ),
    MADCLIP: MethodInfo(
        "MadCLIP",
        "Normal and abnormal adapters after the given blocks, and contexts of the sentences, were "
        "trained on these images in sixteen augmented versions each; there is no memory bank.",
        ("train_few", "test_few"),
        (
            *("normal_det_adapters", "abnormal_det_adapters"),
            *("prompt_maker_normal", "prompt_maker_abnormal"),
        ),
        defaults={"batch_size": 16, "epoch": 60, "learning_rate": 1e-3},
        memory_branch=False,
        uses=("activation", "scaling", "features_list"),
    ),
    PATCH_MEMORY: MethodInfo(
        "Patch memory (DINOv2)",
        "Nothing is trained: the patches of the normal images are the memory bank, and an image's "
        "score is the mean of its largest 1 % of distances.",
        ("test_few",),
        model="dinov2_vits14",
        sentences=False,
        uses=(),
    ),
    CLIP: MethodInfo(
        "CLIP",
        "Nothing is trained: CLIP's own features are compared with sentences and, where there are "
        "normal images, with a memory bank of them.",
        ("test_few", "test_zero"),
        uses=(
            *("activation", "scaling", "bank_class_token", "image_score", "level_reduction"),
            *("features_list", "score_levels"),
        ),
    ),
    WINCLIP: MethodInfo(
        "WinCLIP",
        "Nothing is trained: features of windows of three sizes are compared with sentences and, "
        "where there are normal images, with a memory bank of them.",
        ("test_few", "test_zero"),
        memory_branch=False,
        uses=("activation", "scaling"),
    ),
}


def check_script(method: str, script: str) -> None:
    """Raise UserError unless a script, such as train_few or calibrate_zero, can run a method."""
    info = METHODS[method]
    if info.runs(script):
        return
    verb, setting = script.split("_")
    shown = "calibrate" if verb == "calibrate" else script
    allowed = ", ".join(name for name, other in METHODS.items() if other.runs(script))
    reason = f"{info.title} has no {setting}-shot scores"
    if verb == "train":
        reason = f"nothing of {info.title} is trained {setting}-shot"
    raise UserError(f"--method {method}: {reason}; {shown}.py runs {allowed}")
