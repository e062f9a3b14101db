"""Weights of DINOv2 towers that need no download: a small one for the demo, and stand-ins.

    python -m synthetic.dino

`dinov2-demo` is made as ViT-demo is (synthetic/network.py): its first layers measure the power of
each spatial frequency in a patch, and the rest is random with low gains. Stand-ins have the names,
shapes and type of the published files and random values. A tensor's values depend on its name
alone. Letters: D width.
"""

import io
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from CLIP.weight_files import DEMO_DINO, DINO_MODELS, WEIGHTS
from synthetic.network import absolute_value, constant, patch_filters
from utils import write_whole

GRID = 37  # patches per side of the position table
PATCH = 14  # pixels
LOW_GAIN = 0.1  # of what the demo's blocks add to the hidden tokens


def draw(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Draw normal values, float32, seeded by the tensor's name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"dinov2 {name}".encode())))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * std)


def shapes_of(model: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model's published file, by name."""
    sizes = DINO_MODELS[model]
    width = sizes["width"]
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + GRID**2, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    if sizes["registers"]:
        shapes["register_tokens"] = (1, sizes["registers"], width)
    for block in range(sizes["blocks"]):
        layers = {"attn.qkv": 3 * width, "attn.proj": width, "mlp.fc1": 4 * width, "mlp.fc2": width}
        for layer, outputs in layers.items():
            inputs = 4 * width if layer == "mlp.fc2" else width
            shapes[f"blocks.{block}.{layer}.weight"] = (outputs, inputs)
            shapes[f"blocks.{block}.{layer}.bias"] = (outputs,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{block}.{name}"] = (width,)
        for name in ("ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{block}.{name}"] = (width,)
    return shapes


def standin_value(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return random values of one tensor, by its kind."""
    if "norm" in name and name.endswith("weight"):
        return 1 + draw(name, shape, 0.05)
    if name.endswith("gamma"):
        return 0.5 + draw(name, shape, 0.1)
    if name.endswith("bias"):
        return draw(name, shape, 0.02)
    if name in ("cls_token", "pos_embed", "mask_token", "register_tokens"):
        return draw(name, shape, 0.2)
    return draw(name, shape, float(np.prod(shape[1:])) ** -0.5)


def standin_state(model: str) -> dict[str, Tensor]:
    """Return stand-in weights of a model by their published names, float32."""
    return {name: standin_value(name, shape) for name, shape in shapes_of(model).items()}


def demo_value(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the values of one tensor of the demo's tower, by its kind."""
    if "norm" in name:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith("gamma"):
        return torch.full(shape, 1.0 if name.startswith("blocks.0.ls2") else LOW_GAIN)
    if name.endswith("bias") or name in ("mask_token", "cls_token"):
        return torch.zeros(shape)
    return draw(name, shape, float(np.prod(shape[1:])) ** -0.5)


def demo_state() -> dict[str, Tensor]:
    """Return the weights of the demo's tower by their published names, float32."""
    shapes = shapes_of(DEMO_DINO)
    state = {name: demo_value(name, shape) for name, shape in shapes.items()}
    width = DINO_MODELS[DEMO_DINO]["width"]
    state["patch_embed.proj.weight"] = patch_filters(width, PATCH)
    state["pos_embed"] = constant(1 + GRID**2, width)[None]
    inner, outer = absolute_value(width)
    state["blocks.0.mlp.fc1.weight"] = inner
    state["blocks.0.mlp.fc2.weight"] = outer
    return state


def write_dino(path: Path, state: dict[str, Tensor]) -> Path:
    """Write weights as the published files are; return the path. Equal weights, equal bytes."""
    content = io.BytesIO()  # torch.save to a path would store the file's name
    torch.save(state, content)
    write_whole(path, lambda partial: partial.write_bytes(content.getvalue()))
    return path


def write_demo_dino(folder: Path | None = None) -> Path:
    """Write the demo's tower to a folder (default: `weight_files.WEIGHTS`); return its path."""
    return write_dino((folder or WEIGHTS) / DINO_MODELS[DEMO_DINO]["file"], demo_state())


if __name__ == "__main__":
    print(write_demo_dino())
