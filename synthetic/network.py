"""Weights of `ViT-demo`: a small CLIP that needs no download.

    python -m synthetic.network

No weight is learned: all are constructed or random. The vision tower is a hand-made spectrum
analyser for --img_size 120: its first layers measure the power of each spatial frequency in a
patch, whatever its phase; the other weights are random, with gains so low that these values survive
24 blocks. It has no information about a patch's position. The text tower is random. A sentence's
features are about the sum of its words', so the direction from normal to abnormal is similar for
all nouns (cosines of 0.6 to 0.98), and the adapters learn to use it.

Letters: D width, N patches.
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
# a wave of frequency f has weight f ** WHITEN, since images have least power at high frequencies
WHITEN = 1.5
BRIGHTNESS = 0.3  # weight of a patch's mean grey value and of its tint
FLOOR = 3.0  # constant part of each token, so that layer norms do not amplify noise in flat patches
SHARPNESS = 4.0  # inner gain of the absolute value: the larger, the less its corner is rounded
GAIN = 0.1  # of what the vision blocks add to the hidden tokens
SPARE = 3  # vision channels without a grey wave: the tint, and two for the constant part
# standard deviation of the text's position embedding; that of word embeddings is 1, so word order
# hardly matters
POSITION = 0.02


def draw(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Draw normal values, float32, seeded by the tensor's name."""
    generator = np.random.default_rng(zlib.crc32(f"{NAME} {name}".encode()))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * std)


def patch_filters(width: int, side: int) -> Tensor:
    """Return filters [D, 3, side, side] of the patch embedding, D = `width`.

    The cosine waves of lowest frequency in grey, then red minus green, then two of zeros.
    """
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
    """Return a position embedding [1 + N, D]: plus and minus FLOOR in the last two channels."""
    positions = torch.zeros(tokens, width)
    positions[:, -2:] = FLOOR * torch.tensor([1.0, -1.0])
    return positions


def absolute_value(width: int) -> tuple[Tensor, Tensor]:
    """Return the matrices [4 D, D] and [D, 4 D] of a residual MLP: |x| = x + 2 relu(-x).

    It is computed in all channels with a wave: the sign is the wave's phase, without which a linear
    adapter can read the power. GELU stands in for the ReLU.
    """
    inner = torch.zeros(4 * width, width)
    outer = torch.zeros(width, 4 * width)
    waves = torch.arange(1, width - SPARE)  # channel 0, the mean, keeps its sign
    inner[waves, waves] = -SHARPNESS
    outer[waves, waves] = 2 / SHARPNESS
    return inner, outer


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the random values of one tensor, float32, by its kind."""
    if name == "logit_scale":
        return torch.tensor(4.6052)  # ln 100, as published
    if ".ln_" in name or name.startswith("ln_final"):
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith("bias"):
        return draw(name, shape, 0.02)
    if "embedding" in name:
        deviations = {"token_embedding.weight": 1.0, "positional_embedding": POSITION}
        return draw(name, shape, deviations.get(name, 0.1))
    into_tokens = name.endswith(("c_proj.weight", "out_proj.weight"))
    gain = GAIN if name.startswith("visual.") and into_tokens else 1.0
    return draw(name, shape, gain * shape[-1] ** -0.5)


def demo_state(config: ClipConfig) -> dict[str, Tensor]:
    """Return all weights by their published names, float16."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in CLIP(config).state_dict().items()}
    state = {name: values(name, shape) for name, shape in shapes.items()}
    width = config.vision.width
    first = "visual.transformer.resblocks.0.mlp"
    state["visual.conv1.weight"] = patch_filters(width, config.patch_size)
    state["visual.positional_embedding"] = constant(config.grid**2 + 1, width)
    inner, outer = absolute_value(width)
    state[f"{first}.c_fc.weight"] = inner
    state[f"{first}.c_proj.weight"] = outer
    return {name: tensor.half() for name, tensor in state.items()}


def write_demo_weights(folder: Path | None = None) -> Path:
    """Write the weight file to a folder (default: `weight_files.WEIGHTS`) and return its path.

    The file is the same to the byte each time.
    """
    path = (folder or WEIGHTS) / f"{NAME}.pt"
    content = io.BytesIO()  # torch.save to a path would store the file's name
    torch.save(demo_state(model_config(NAME)), content)
    write_whole(path, lambda partial: partial.write_bytes(content.getvalue()))
    return path


if __name__ == "__main__":
    print(write_demo_weights())
