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
        scripts: those that can run it; calibrate.py can what a test of its setting can.
        model: the backbone that --model_name names by default.
        keys: groups of tensors in its checkpoint; none: nothing is trained.
        defaults: values of flags that differ from MVFA's, by name.

    """

    title: str
    scripts: tuple[str, ...]
    keys: tuple[str, ...] = ()
    model: str = "ViT-L-14-336"
    defaults: dict[str, Any] = field(default_factory=dict)

    def runs(self, script: str) -> bool:
        """Return whether a script can run it; calibrate_few can what test_few can."""
        return script.replace("calibrate", "test") in self.scripts


METHODS = {
    MVFA: MethodInfo(
        "MVFA",
        ("train_few", "test_few", "train_zero", "test_zero"),
        ("seg_adapters", "det_adapters"),
    ),
    MADCLIP: MethodInfo(
        "MadCLIP",
        ("train_few", "test_few"),
        (
            *("normal_det_adapters", "abnormal_det_adapters"),
            *("prompt_maker_normal", "prompt_maker_abnormal"),
        ),
        defaults={"batch_size": 16, "epoch": 60, "learning_rate": 1e-3},
    ),
    PATCH_MEMORY: MethodInfo("Patch memory (DINOv2)", ("test_few",), model="dinov2_vits14"),
    CLIP: MethodInfo("CLIP", ("test_few", "test_zero")),
    WINCLIP: MethodInfo("WinCLIP", ("test_few", "test_zero")),
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
