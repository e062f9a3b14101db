"""Weights for one image: matrices become float32 when they are used.

Published weights are float16. To convert all of them first takes 1.2 GB of new memory, which the
system clears page by page. In a tower of `LateBlock` the matrices stay as the file has them, mapped
into memory, and each is converted just before its product, into memory that the next one takes
again. Every image pays for this once more, so it is for runs of a single one.

The products are those of `CLIP.model.linear` with float32 weights, so results are the same to the
last bit.

Letters: B images, T tokens, D width, K inputs and N outputs of a matrix.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CLIP.model import Block, Transformer

HALVES = (torch.float16, torch.bfloat16)
BLOCKS = "visual.transformer."
NORMS = ".ln_"  # small, and float32 from the start


def late_names(state: Mapping[str, Tensor]) -> set[str]:
    """Return the names of weights that can be converted late: half-precision ones of blocks."""
    return {
        name
        for name, values in state.items()
        if name.startswith(BLOCKS) and NORMS not in name and values.dtype in HALVES
    }


def late_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `F.linear` in the type of x, whatever that of the weight: [..., K] -> [..., N]."""
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


class LateBlock(nn.Module):
    """A frozen block on the CPU with float32 norms, whose matrices become float32 when used."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Compute the hidden tokens after this block: [B, T, D] float32 -> [B, T, D]."""
        attn = self.block.attn
        mlp = self.block.mlp
        qkv = late_linear(self.block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)  # [B, T, 3D]
        values = attn.attend(qkv, causal)  # [B, T, D]
        x = x + late_linear(values, attn.out_proj.weight, attn.out_proj.bias)
        hidden = late_linear(self.block.ln_2(x), mlp.c_fc.weight, mlp.c_fc.bias)  # [B, T, 4D]
        return x + late_linear(mlp.activation(hidden), mlp.c_proj.weight, mlp.c_proj.bias)


def convert_late(tower: Transformer) -> None:
    """Let a tower's blocks convert their matrices to float32 when they are used."""
    for number, block in enumerate(tower.resblocks):
        tower.resblocks[number] = LateBlock(cast(Block, block))


def convert_now(tower: Transformer) -> None:
    """Convert what `convert_late` left to float32, and put the plain blocks back."""
    for number, block in enumerate(tower.resblocks):
        if isinstance(block, LateBlock):
            tower.resblocks[number] = block.block.float()
