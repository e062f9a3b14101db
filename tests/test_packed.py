"""Packed matrices multiply as plain ones do, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import scoring
from CLIP import MVFA, packed
from CLIP.packed import PackedMatrix
from tests.conftest import TOLERANCE

pytestmark = pytest.mark.skipif(not packed.available(), reason="this torch has no packed products")
CLOSE = TOLERANCE[torch.float32]


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (5,), (1, 4)], ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["contiguous", "turned"])
def test_products_and_gradients_are_those_of_a_linear_layer(shape, turned):
    """Laid out for five rows: for other numbers, and for tensors that do not lie row by row, it is right as well."""
    g = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(12, 8, generator=g), torch.randn(12, generator=g)
    matrix = PackedMatrix(weight, rows=5)

    def draw(width: int) -> torch.Tensor:
        return (
            torch.randn(width, *shape, generator=g).movedim(0, -1)
            if turned
            else torch.randn(*shape, width, generator=g)
        )

    values, gradient = draw(8), draw(12)
    found = []
    for multiply in (lambda x: F.linear(x, weight, bias), lambda x: matrix(x, bias)):
        x = values.clone().requires_grad_()
        y = multiply(x)
        y.backward(gradient)
        found.append((y.detach(), x.grad))
    for plain, own in zip(*found, strict=True):
        torch.testing.assert_close(own, plain, **CLOSE)


def test_a_packed_tower_trains_alike(tiny):
    """Token features and gradients of the adapters, of one image, for which it is packed, and of three."""
    mvfa = MVFA(tiny.visual, 64, (1, 2, 4), generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    text = nn.functional.normalize(torch.randn(64, 2, generator=g), dim=0)
    for count in (1, 3):
        stream = mvfa.stem(torch.rand(count, 3, 32, 32, generator=g))
        found = []
        for pack in (False, True):
            mvfa.packed = []
            if pack:
                mvfa.pack(images=1)
                assert [block is None for block in mvfa.packed] == [True, False, False, False]
            mvfa.zero_grad()
            features = mvfa(stream)
            sum(scoring.text_logits(tokens, text).sigmoid().mean() for tokens in features).backward()
            gradients = [p.grad.clone() for name, p in mvfa.named_parameters() if p.grad is not None]
            found.append([t.detach() for tokens in features for t in tokens] + gradients)
        assert len(found[0]) == 6 + 10  # of the last level's two adapters only the first matrix counts
        for plain, own in zip(*found, strict=True):
            torch.testing.assert_close(own, plain, **CLOSE)
