"""Packed products: frozen matrices in the memory order of Intel MKL's kernels, for CPU training.

A plain product copies its matrix into that order each time. For the few rows of one image these
copies are an eighth of a training step, forward and backward. Packing stores each matrix two more
times in float32, once per direction.

`PackedTower` swaps the blocks of a tower for packed ones during training steps. Scores are never
computed with them: MKL may round packed and plain products differently, and a score must not depend
on how its adapters were trained.

The operators are the ones torch's compiler uses for frozen linear layers; `available` tells whether
this build of torch has them.

Letters: B images, T tokens, D width, K inputs and N outputs of a matrix.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from CLIP.model import Block, Transformer

CPUINFO = Path("/proc/cpuinfo")
REORDER: Any = getattr(torch.ops.mkl, "_mkl_reorder_linear_weight", None)
MULTIPLY: Any = getattr(torch.ops.mkl, "_mkl_linear", None)


def available() -> bool:
    """Return whether this build of torch has packed products."""
    return torch.backends.mkl.is_available() and None not in (REORDER, MULTIPLY)


def gains_here() -> bool:
    """Return whether packing was faster where measured: on Intel's processors yes, AMD's no."""
    vendor = CPUINFO.read_text() if CPUINFO.is_file() else platform.processor()
    return "GenuineIntel" in vendor


class PackedMatrix:
    """A frozen matrix W for the product x W^T + b and the gradient of x.

    Args:
        weight: W [N, K] float32 on the CPU; it must not change afterwards.
        rows: number of rows of x to pack for. Products of other numbers of rows are correct too,
            and as fast as plain ones.

    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.weight = weight.detach()
        self.rows = rows
        self.packed = REORDER(self.weight, rows)
        self.packed_transpose = REORDER(self.weight.T.contiguous(), rows)

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """Compute x W^T + b: [..., K] -> [..., N]. Neither W nor b gets a gradient."""
        return _Product.apply(x, self, bias)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Compute x W^T + b without autograd: [..., K] -> [..., N]."""
        return MULTIPLY(x, self.packed, self.weight, bias, self.rows)

    def backward(self, gradient: Tensor) -> Tensor:
        """Compute the gradient of x from that of the product: [..., N] -> [..., K]."""
        return MULTIPLY(gradient, self.packed_transpose, self.weight.T, None, self.rows)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: PackedMatrix, bias: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix.forward(x, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.matrix.backward(gradient), None, None


class PackedBlock(nn.Module):
    """A plain block with packed copies of its four matrices, for products of `rows` rows."""

    def __init__(self, block: Block, rows: int) -> None:
        super().__init__()
        self.block = block
        self.in_proj = PackedMatrix(block.attn.in_proj_weight, rows)
        self.out_proj = PackedMatrix(block.attn.out_proj.weight, rows)
        self.c_fc = PackedMatrix(block.mlp.c_fc.weight, rows)
        self.c_proj = PackedMatrix(block.mlp.c_proj.weight, rows)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Compute the hidden tokens after this block: [B, T, D] -> [B, T, D]."""
        attn = self.block.attn
        mlp = self.block.mlp
        qkv = self.in_proj(self.block.ln_1(x), attn.in_proj_bias)  # [B, T, 3D]
        x = x + self.out_proj(attn.attend(qkv, causal), attn.out_proj.bias)
        hidden = mlp.activation(self.c_fc(self.block.ln_2(x), mlp.c_fc.bias))  # [B, T, 4D]
        return x + self.c_proj(hidden, mlp.c_proj.bias)


class PackedTower:
    """Packed copies of a tower's blocks from number `first` + 1 (counted from 1) to the last.

    Packing takes seconds, and two to four times the memory of these blocks.

    Args:
        tower: a frozen tower in float32 on the CPU.
        first: number of leading blocks that stay plain.
        rows: number of rows of the products, B * T.

    """

    def __init__(self, tower: Transformer, first: int, rows: int) -> None:
        self.tower = tower
        plain = list(enumerate(tower.resblocks))[first:]
        self.packed = {number: PackedBlock(cast(Block, block), rows) for number, block in plain}

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within, let the tower compute with the packed blocks."""
        for number, block in self.packed.items():
            self.tower.resblocks[number] = block
        try:
            yield
        finally:
            for number, block in self.packed.items():
                self.tower.resblocks[number] = block.block
