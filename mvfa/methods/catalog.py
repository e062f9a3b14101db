"""The methods by name: what each is called, and which scripts run it. No torch."""

from dataclasses import dataclass, field
from typing import Any

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
        scripts: those that can run it, without calibrate, which runs all.
        model: the backbone that --model_name names by default.
        defaults: values of flags that differ from MVFA's, by name.

    """

    title: str
    scripts: tuple[str, ...]
    model: str = "ViT-L-14-336"
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether something is trained."""
        return any(script.startswith("train") for script in self.scripts)


METHODS = {
    MVFA: MethodInfo("MVFA", ("train_few", "test_few", "train_zero", "test_zero")),
    MADCLIP: MethodInfo(
        "MadCLIP",
        ("train_few", "test_few"),
        defaults={"batch_size": 16, "epoch": 60, "learning_rate": 1e-3},
    ),
    PATCH_MEMORY: MethodInfo("Patch memory (DINOv2)", ("test_few",), model="dinov2_vits14"),
    CLIP: MethodInfo("CLIP", ("test_few", "test_zero")),
    WINCLIP: MethodInfo("WinCLIP", ("test_few", "test_zero")),
}
