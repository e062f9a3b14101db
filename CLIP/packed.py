"""Frozen matrices laid out once in the order in which a CPU's kernel reads them: Intel MKL's packed products.

A plain product copies its matrix into that order each time. For the few rows of one image that takes an eighth of a
training step, forward and backward. The matrix is kept twice, once for each direction, in float32.

The operators are those that torch's own compiler takes for frozen linear layers; `available` asks whether this torch
has them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

LAY_OUT: Any = getattr(torch.ops.mkl, "_mkl_reorder_linear_weight", None)
MULTIPLY: Any = getattr(torch.ops.mkl, "_mkl_linear", None)


def available() -> bool:
    """Whether this torch has the packed products."""
    return torch.backends.mkl.is_available() and None not in (LAY_OUT, MULTIPLY)


class PackedMatrix:
    """A frozen matrix W [N, K] float32 on the CPU, for x [.., K] -> x W^T + b [.., N] and the gradient of x.

    Products of `rows` rows are the fast ones; others are right, too, and as fast as plain ones. `weight` itself must
    not change afterwards.
    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.weight, self.rows = weight.detach(), rows
        self.there = LAY_OUT(self.weight, rows)
        self.back = LAY_OUT(self.weight.T.contiguous(), rows)

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """Product x W^T + b: [.., K] -> [.., N]. Neither W nor b gets a gradient."""
        return _Product.apply(x, self, bias)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """The product itself."""
        return MULTIPLY(x, self.there, self.weight, bias, self.rows)

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient of the product [.., N] -> gradient of x [.., K]."""
        return MULTIPLY(gradient, self.back, self.weight.T, None, self.rows)


class PackedBlock(NamedTuple):
    """The four matrices of a transformer block."""

    in_proj: PackedMatrix
    out_proj: PackedMatrix
    c_fc: PackedMatrix
    c_proj: PackedMatrix


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: PackedMatrix, bias: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix.forward(x, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.matrix.backward(gradient), None, None
