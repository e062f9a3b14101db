"""Weights of `ViT-demo`: a small CLIP whose values a seed decides, so that the program runs without any download.

    python -m CLIP.demo_weights

Nothing is learned, and no image is looked at. The vision tower is a spectrum analyser made by hand, for images of
--img_size 120: its first layers say how strong each wave is in a patch, whatever its phase, and the rest is random
with gains so low that this survives 24 blocks. It does not know where a patch lies. The text tower is random throughout
and does not know what a word means; but as a sentence is about the sum of its words there, the direction from normal
to abnormal is much the same for each noun (cosines of 0.6 to 0.98). The adapters learn what it points to.
"""

import io
import zlib
from pathlib import Path

import numpy as np
import torch
from scipy.fft import idctn
from torch import Tensor

from CLIP.model import CLIP, ClipConfig
from CLIP.weight_files import WEIGHTS
from CLIP.weights import model_config
from utils import write_whole

NAME = "ViT-demo"
WHITEN = 1.5  # a wave of frequency f is weighted f ** WHITEN, as pictures have least power in their finest waves
BRIGHTNESS = 0.3  # weight of the patch's mean grey and of its tint
FLOOR = 3.0  # constant part of each token: layer norms must not blow up the noise of patches that show nothing
SHARPNESS = 4.0  # inner gain of the absolute value: the larger, the less its corner is rounded
GAIN = 0.1  # of what the vision blocks add to the stream
SPARE = 3  # vision channels that hold no grey wave: the tint and the two of the constant
POSITION = 0.02  # deviation of the text's position embedding: word order hardly counts (the words' own is 1)


def draw(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Normal values that depend on the tensor's name alone."""
    generator = np.random.default_rng(zlib.crc32(f"{NAME} {name}".encode()))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * std)


def patch_filters(width: int, side: int) -> Tensor:
    """Filters [D, 3, side, side]: the slowest cosine waves in grey, then red minus green, then two that are zero."""
    frequency = np.hypot(*np.mgrid[:side, :side]).ravel()
    weight = np.maximum(frequency**WHITEN, BRIGHTNESS)  # the mean has frequency 0
    filters = np.zeros((width, 3, side, side), np.float32)
    for channel, wave in enumerate(np.argsort(frequency, kind="stable")[: width - SPARE]):
        spectrum = np.zeros(side * side)
        spectrum[wave] = weight[wave]
        filters[channel] = idctn(spectrum.reshape(side, side), norm="ortho") / 3
    filters[-SPARE, :2] = BRIGHTNESS / side * np.array([1, -1])[:, None, None]
    return torch.from_numpy(filters)


def constant(tokens: int, width: int) -> Tensor:
    """Position embedding [1 + N, D]: the same for every token, plus and minus FLOOR in the two last channels."""
    positions = torch.zeros(tokens, width)
    positions[:, -2:] = FLOOR * torch.tensor([1.0, -1.0])
    return positions


def absolute_value(width: int) -> tuple[Tensor, Tensor]:
    """Matrices [4 D, D] and [D, 4 D] of an MLP that turns x into |x| = x + 2 relu(-x) in all channels with a wave.

    A wave's sign is its phase; without it, a linear adapter reads off the power. GELU stands in for the ReLU.
    """
    inner, outer = torch.zeros(4 * width, width), torch.zeros(width, 4 * width)
    waves = torch.arange(1, width - SPARE)  # channel 0, the mean, keeps its sign
    inner[waves, waves] = -SHARPNESS
    outer[waves, waves] = 2 / SHARPNESS
    return inner, outer


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Start values of one tensor by its kind."""
    if name == "logit_scale":
        return torch.tensor(4.6052)  # ln 100, as published
    if ".ln_" in name or name.startswith("ln_final"):
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith("bias"):
        return draw(name, shape, 0.02)
    if "embedding" in name:
        return draw(
            name,
            shape,
            {"token_embedding.weight": 1.0, "positional_embedding": POSITION}.get(name, 0.1),
        )
    gain = (
        GAIN
        if name.startswith("visual.") and name.endswith(("c_proj.weight", "out_proj.weight"))
        else 1.0
    )
    return draw(name, shape, gain * shape[-1] ** -0.5)


def demo_state(config: ClipConfig) -> dict[str, Tensor]:
    """A state dict with the published names, float16."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in CLIP(config).state_dict().items()}
    state = {name: values(name, shape) for name, shape in shapes.items()}
    width, first = config.vision.width, "visual.transformer.resblocks.0.mlp"
    state["visual.conv1.weight"] = patch_filters(width, config.patch_size)
    state["visual.positional_embedding"] = constant(config.grid**2 + 1, width)
    state[f"{first}.c_fc.weight"], state[f"{first}.c_proj.weight"] = absolute_value(width)
    return {name: tensor.half() for name, tensor in state.items()}


def write_demo_weights(folder: Path | None = None) -> Path:
    """Write the weight file, the same to the byte each time; returns its path."""
    path, content = (folder or WEIGHTS) / f"{NAME}.pt", io.BytesIO()
    torch.save(
        demo_state(model_config(NAME)), content
    )  # saved straight to a file, it would hold the file's name
    write_whole(path, lambda partial: partial.write_bytes(content.getvalue()))
    return path


if __name__ == "__main__":
    print(write_demo_weights())
