"""Seeded stand-in weights in the names, shapes and type of the published CLIP ViT-L/14-336, and adapters for it.

The reference figures were measured with these values, each of which depends on its tensor's name alone.
"""

import zlib
from pathlib import Path

import numpy as np
import torch

from CLIP.model import CLIP
from CLIP.weights import model_config

NAME = "ViT-L-14-336"
FIXED = {  # tensor: standard deviation
    "visual.class_embedding": 0.3,
    "visual.positional_embedding": 0.1,
    "visual.proj": 1024**-0.5,
    "visual.conv1.weight": 0.05,
    "positional_embedding": 0.1,
    "text_projection": 768**-0.5,
    "token_embedding.weight": 0.2,
}
PUBLISHED_INTEGERS = {"input_resolution": 336, "context_length": 77, "vocab_size": 49408}


def draw(name: str, shape: tuple[int, ...], std: float) -> torch.Tensor:
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * std)


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor by its kind."""
    if name == "logit_scale":
        return torch.tensor(4.6052)
    if name in FIXED:
        return draw(name, shape, FIXED[name])
    if "ln_" in name and name.endswith("weight"):
        return 1 + draw(name, shape, 0.05)
    if name.endswith("bias"):
        return draw(name, shape, 0.02)
    gain = 2.0 if name.endswith("in_proj_weight") else 1.0
    return draw(name, shape, gain * shape[1] ** -0.5)


def write_standin(folder: Path) -> None:
    """Write standin.pt (856 MB) and adapters.pth."""
    with torch.device("meta"):
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in CLIP(model_config(NAME)).state_dict().items()
        }
    state = {name: value(name, shape).half() for name, shape in shapes.items()}
    state |= {name: torch.tensor(n) for name, n in PUBLISHED_INTEGERS.items()}
    torch.save(state, folder / "standin.pt")
    adapters: dict[str, dict[str, torch.Tensor]] = {}
    for branch in ("seg", "det"):
        for level in range(4):
            for name, shape in (("fc1.0.weight", (768, 1024)), ("fc2.0.weight", (1024, 768))):
                matrix = draw(f"{branch}.{level}.{name}", shape, shape[1] ** -0.5)
                adapters.setdefault(f"{branch}_adapters", {})[f"{level}.{name}"] = matrix
    torch.save(adapters, folder / "adapters.pth")
