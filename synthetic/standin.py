"""Seeded stand-in weights with the names, shapes and type of the published CLIP ViT-L/14-336.

With adapters for them. The reference values (SPEC section 8) were measured with these weights; the
values of a tensor depend on its name alone.
"""

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from CLIP.adapter import HEADS
from CLIP.model import CLIP
from CLIP.weights import model_config

NAME = "ViT-L-14-336"
LEVELS = 4  # adapters per head
DEVIATIONS = {  # standard deviation by tensor, where it does not follow from the shape
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
    """Draw normal values, float32, seeded by the tensor's name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * std)


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the values of one tensor, float32, by its kind."""
    if name == "logit_scale":
        return torch.tensor(4.6052)
    if name in DEVIATIONS:
        return draw(name, shape, DEVIATIONS[name])
    if "ln_" in name and name.endswith("weight"):
        return 1 + draw(name, shape, 0.05)
    if name.endswith("bias"):
        return draw(name, shape, 0.02)
    gain = 2.0 if name.endswith("in_proj_weight") else 1.0
    return draw(name, shape, gain * shape[1] ** -0.5)


def half(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the values of one tensor, float16, as a file holds them."""
    return value(name, shape).half()


def write_standin(folder: Path) -> None:
    """Write standin.pt (856 MB, float16) and adapters.pth to a folder.

    Threads draw several tensors at once, which changes no value: each has its own generator.
    """
    with torch.device("meta"):
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in CLIP(model_config(NAME)).state_dict().items()
        }
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(half, shapes, shapes.values())
        state = dict(zip(shapes, drawn, strict=True))
    state |= {name: torch.tensor(n) for name, n in PUBLISHED_INTEGERS.items()}
    torch.save(state, folder / "standin.pt")
    adapters: dict[str, dict[str, torch.Tensor]] = {}
    for head in HEADS:
        for level in range(LEVELS):
            for name, shape in (("fc1.0.weight", (768, 1024)), ("fc2.0.weight", (1024, 768))):
                matrix = draw(f"{head}.{level}.{name}", shape, shape[1] ** -0.5)
                adapters.setdefault(f"{head}_adapters", {})[f"{level}.{name}"] = matrix
    torch.save(adapters, folder / "adapters.pth")
