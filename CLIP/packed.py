"""Packed products for training on a CPU: frozen matrices, once, in the order in which Intel MKL's kernels read them.

A plain product copies its matrix into that order each time. For the few rows of one image that takes an eighth of a
training step, forward and backward. Each matrix is held twice more, once for each direction, in float32.

`PackedTower` swaps the blocks of a tower for packed ones while training steps run. Scores never go through them: MKL
may round a packed product differently from a plain one, and a score must not depend on how its adapters were trained.

The operators are those that torch's own compiler takes for frozen linear layers; `available` asks whether this torch
has them.
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
    """Return whether this torch has the packed products."""
    return torch.backends.mkl.is_available() and None not in (REORDER, MULTIPLY)


def gains_here() -> bool:
    """Return whether a gain has been measured on processors of this vendor: on Intel's. On AMD's there was none."""
    vendor = CPUINFO.read_text() if CPUINFO.is_file() else platform.processor()
    return "GenuineIntel" in vendor


class PackedMatrix:
    """A frozen matrix W [N, K] float32 on the CPU, for x [.., K] -> x W^T + b [.., N] and the gradient of x.

    Products of `rows` rows are the fast ones; others are right, too, and as fast as plain ones. `weight` itself must
    not change afterwards.
    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.weight, self.rows = weight.detach(), rows
        self.there = REORDER(self.weight, rows)
        self.back = REORDER(self.weight.T.contiguous(), rows)

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """Product x W^T + b: [.., K] -> [.., N]. Neither W nor b gets a gradient."""
        return _Product.apply(x, self, bias)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """The product itself."""
        return MULTIPLY(x, self.there, self.weight, bias, self.rows)

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient of the product [.., N] -> gradient of x [.., K]."""
        return MULTIPLY(gradient, self.back, self.weight.T, None, self.rows)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: PackedMatrix, bias: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix.forward(x, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.matrix.backward(gradient), None, None


class PackedBlock(nn.Module):
    """A block whose four matrices are packed for products of `rows` rows; the plain block is held beside them."""

    def __init__(self, block: Block, rows: int) -> None:
        super().__init__()
        self.block = block
        self.in_proj = PackedMatrix(block.attn.in_proj_weight, rows)
        self.out_proj = PackedMatrix(block.attn.out_proj.weight, rows)
        self.c_fc = PackedMatrix(block.mlp.c_fc.weight, rows)
        self.c_proj = PackedMatrix(block.mlp.c_proj.weight, rows)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Return the residual stream [B, T, D] after this block."""
        attn, mlp = self.block.attn, self.block.mlp
        qkv = self.in_proj(self.block.ln_1(x), attn.in_proj_bias)  # [B, T, 3D]
        x = x + self.out_proj(attn.attend(qkv, causal), attn.out_proj.bias)
        hidden = mlp.activation(self.c_fc(self.block.ln_2(x), mlp.c_fc.bias))  # [B, T, 4D]
        return x + self.c_proj(hidden, mlp.c_proj.bias)


class PackedTower:
    """Packed forms of a tower's blocks from number `first` + 1 on (counted from one).

    Making them takes seconds, and two to four times the memory of these blocks.
    """

    def __init__(self, tower: Transformer, first: int, rows: int) -> None:
        self.tower = tower
        plain = list(enumerate(tower.resblocks))[first:]
        self.packed = {number: PackedBlock(cast(Block, block), rows) for number, block in plain}

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within, the tower computes with the packed blocks."""
        for number, block in self.packed.items():
            self.tower.resblocks[number] = block
        try:
            yield
        finally:
            for number, block in self.packed.items():
                self.tower.resblocks[number] = block.block
