"""How the scripts are run on the demo's images and network: the only home of these flags. No torch.

The trainings are short, for a CPU.
"""

from pathlib import Path

DEMO_ROOT = Path("demo")  # where demo.py writes
PLAIN = "none"
RANDOM = "random"
PLANTED = "planted"
DEPTHS = (PLAIN, RANDOM, PLANTED)  # of the slices that images are of, see synthetic/depths.py
MODEL = "ViT-demo"
IMAGE_SIZE = 120  # 12 x 12 patches
MODEL_FLAGS = f"--model_name {MODEL} --img_size {IMAGE_SIZE}"
TRAINING_FLAGS = {  # by setting
    "few": "--epoch 3 --batch_size 8",
    "zero": "--epoch 1 --batch_size 8 --learning_rate 3e-3",
}


def demo_root(depth: str) -> Path:
    """Return where a demo of a depth is written unless another folder is given."""
    return DEMO_ROOT if depth == PLAIN else DEMO_ROOT.with_name(f"{DEMO_ROOT.name}-{depth}")
