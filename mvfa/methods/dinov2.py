"""The vision towers of DINOv2: ViT S, B and L with patches of 14 pixels, with registers or without.

Parameters have the names of the published files, which are flat state dicts
(docs/SPEC_patch_memory.md, P1 and P3). Letters: B images, h and w patches in height and width,
N = h * w, D width, H heads, T tokens, R registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CLIP.model import linear
from CLIP.weight_files import DINO_MODELS, check_weights, examine_ahead, weight_path
from CLIP.weights import DTYPES, MOST_BLOCKS, check_state, read_state
from errors import UserError

PATCH = 14  # pixels
GRID = 37  # patches per side of the position table in the published files
HEAD_WIDTH = 64
EPSILON = 1e-6  # of layer norms
OFFSET = 0.1  # of the released code, added to a side before the table is scaled to it
REGISTERS = "register_tokens"


@dataclass(frozen=True)
class DinoConfig:
    """Sizes of a tower: D, blocks, R."""

    width: int
    blocks: int
    registers: int


class Attention(nn.Module):
    """Multi-head self-attention of all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every token to all: [B, T, D] -> [B, T, D]."""
        qkv = linear(x, self.qkv.weight, self.qkv.bias)  # [B, T, 3D]
        split = qkv.unflatten(-1, (3, self.heads, -1))  # [B, T, 3, H, D / H]
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each [B, H, T, D / H]
        values = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, T, D]
        return linear(values, self.proj.weight, self.proj.bias)


class MLP(nn.Module):
    """Two linear layers with a hidden width of 4 D and exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both layers: [B, T, D] -> [B, T, D]."""
        x = F.gelu(linear(x, self.fc1.weight, self.fc1.bias))  # [B, T, 4D]
        return linear(x, self.fc2.weight, self.fc2.bias)


class LayerScale(nn.Module):
    """A factor a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale: [B, T, D] -> [B, T, D]."""
        return self.gamma * x


class Block(nn.Module):
    """Pre-norm residual block whose two branches are scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.attn = Attention(width)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.mlp = MLP(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the hidden tokens after this block: [B, T, D] -> [B, T, D]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """A linear layer over each patch's pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """Embed patches: [B, 3, 14 h, 14 w] -> [B, N, D]."""
        return self.proj(images).flatten(2).transpose(1, 2)


class DinoV2(nn.Module):
    """A frozen tower: images to patch tokens.

    Args:
        config: its sizes.

    Attributes:
        file: the weight file that `load_dino` read.

    """

    file: Path

    def __init__(self, config: DinoConfig) -> None:
        """Build a tower without weight values."""
        super().__init__()
        width = config.width
        self.width = width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + GRID**2, width))
        self.mask_token = nn.Parameter(torch.empty(1, width))  # of its training only
        self.register_tokens = None
        if config.registers:
            self.register_tokens = nn.Parameter(torch.empty(1, config.registers, width))
        self.patch_embed = PatchEmbedding(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width, EPSILON)

    def positions(self, height: int, width: int) -> Tensor:
        """Return the position table of h x w patches, [1, 1 + N, D], the class token's first.

        Bicubic. Without registers the scale (h + 0.1) / 37 fixes the sampling places, not the size,
        and nothing is antialiased; with registers the size does, antialiased.
        """
        if (height, width) == (GRID, GRID):
            return self.pos_embed
        cls = self.pos_embed[:, :1]
        square = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID))  # [1, D, 37, 37]
        if self.register_tokens is None:
            scale = ((height + OFFSET) / GRID, (width + OFFSET) / GRID)
            table = F.interpolate(square, scale_factor=scale, mode="bicubic")  # [1, D, h, w]
        else:
            table = F.interpolate(square, size=(height, width), mode="bicubic", antialias=True)
        return torch.cat([cls, table.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the patch tokens after the last norm: [B, 3, 14 h, 14 w] -> [B, N, D].

        images: float32, normalised as in training; sides are multiples of 14.
        """
        height, width = (side // PATCH for side in images.shape[-2:])
        cls = self.cls_token.expand(len(images), -1, -1)  # [B, 1, D]
        x = torch.cat([cls, self.patch_embed(images)], dim=1)  # [B, 1 + N, D]
        x = x + self.positions(height, width)
        first = 1
        if self.register_tokens is not None:  # behind the class token, without a position
            registers = self.register_tokens.expand(len(images), -1, -1)  # [B, R, D]
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)  # [B, 1 + R + N, D]
            first += registers.shape[1]
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, first:])


def infer_config(state: Mapping[str, Tensor], what: str) -> DinoConfig:
    """Read the sizes of a tower from its weights. Raises UserError, beginning with `what`."""
    cls = state.get("cls_token")
    registers = state.get(REGISTERS)
    count = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    fits = cls is not None and cls.ndim == 3 and cls.shape[-1] > 0
    fits &= registers is None or registers.ndim == 3
    if cls is None or not fits or cls.shape[-1] % HEAD_WIDTH or not 0 < count <= MOST_BLOCKS:
        raise UserError(
            f"{what} are not those of a DINOv2 ViT-S, B or L with patches of {PATCH} pixels; pass "
            "such a file"
        )
    return DinoConfig(cls.shape[-1], count, 0 if registers is None else registers.shape[1])


def load_dino(
    name: str | None,
    path: Path | None,
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    hash_known: bool = False,
) -> DinoV2:
    """Load a frozen tower, in evaluation mode.

    Args:
        name: model that the weights must be of, a key of DINO_MODELS; None: any.
        path: weight file; None: the place of model `name`.
        device: device of the tower.
        precision: type of the blocks' matrices, a key of DTYPES; everything else is float32.
        hash_known: the caller compares the file's SHA-256 with that of a file that was checked.

    Raises:
        UserError: the file is missing, damaged, or of another model.

    """
    if name is not None and name not in DINO_MODELS:
        raise UserError(
            f"--model_name {name} is no DINOv2; known: {', '.join(DINO_MODELS)}; leave it out"
        )
    file = weight_path(name, path)
    examine_ahead(file, hash_known)
    check_weights(file, hash_known)
    state = {key: tensor.float() for key, tensor in read_state(file).items()}
    what = f"the weights of {file}"
    config = infer_config(state, what)
    if name is not None:
        model = DINO_MODELS[name]
        expected = DinoConfig(model["width"], model["blocks"], model["registers"])
        if config != expected:
            raise UserError(f"{file} does not hold {name} but {config}; choose the fitting name")
    with torch.device("meta"):  # no memory and no initial values
        tower = DinoV2(config)
    check_state(state, tower.state_dict(), what)
    tower.load_state_dict(state, assign=True)
    tower.eval().requires_grad_(False)
    tower.file = file
    for block in tower.blocks:
        block.attn.to(DTYPES[precision])
        block.mlp.to(DTYPES[precision])
    return tower.to(device)
