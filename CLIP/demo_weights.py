"""Weights of `ViT-demo`: a small CLIP whose values a seed decides, so that the program runs without any download.

    python -m CLIP.demo_weights

Nothing is learned. The patch filters are the cosine basis of the patch, weighted so that fine texture counts as much
as brightness does; everything after is random, with gains low enough that a token keeps its patch's content.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from scipy.fft import idctn
from torch import Tensor

from CLIP.model import CLIP, ClipConfig
from CLIP.weights import WEIGHTS, model_config
from utils import write_whole

NAME = "ViT-demo"


def draw(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Normal values that depend on the tensor's name alone."""
    generator = np.random.default_rng(zlib.crc32(f"{NAME} {name}".encode()))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * std)


def patch_filters(config: ClipConfig) -> Tensor:
    """Random mixtures [D, 3, p, p] of the patch's cosine waves, finer waves weighted up, nearly the same in each colour."""
    side, width = config.patch_size, config.vision.width
    frequency = np.hypot(*np.mgrid[:side, :side])
    weight = np.minimum(frequency, side / 2) ** 1.5 + 0.15
    mixture = draw("waves", (width, side, side), 1.0).numpy() * weight
    grey = idctn(mixture, axes=(1, 2), norm="ortho") / side
    colour = 1 + draw("colour", (width, 3, 1, 1), 0.3).numpy()
    return torch.from_numpy(np.float32(grey[:, None] * colour))


def demo_state() -> dict[str, Tensor]:
    """A state dict with the published names, float16."""
    config = model_config(NAME)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in CLIP(config).state_dict().items()}
    state = {name: values(name, shape) for name, shape in shapes.items()}
    state["visual.conv1.weight"] = patch_filters(config)
    return {name: tensor.half() for name, tensor in state.items()}


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Start values of one tensor by its kind."""
    if name == "logit_scale":
        return torch.tensor(4.6052)
    if ".ln_" in name or name.startswith("ln_final"):
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith("bias"):
        return draw(name, shape, 0.02)
    if "embedding" in name:
        return draw(name, shape, 1.0 if name.startswith("token") else 0.1)
    gain = 0.3 if name.endswith(("c_proj.weight", "out_proj.weight")) else 1.0
    return draw(name, shape, gain * shape[-1] ** -0.5)


def write_demo_weights(folder: Path = WEIGHTS) -> Path:
    """Write the weight file; returns its path."""
    path = folder / f"{NAME}.pt"
    write_whole(path, lambda partial: torch.save(demo_state(), partial))
    return path


if __name__ == "__main__":
    print(write_demo_weights())
