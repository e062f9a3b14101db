"""Packed matrices multiply as plain ones do, forward and backward."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from CLIP import packed
from CLIP.adapter import MVFA
from CLIP.packed import PackedMatrix, PackedTower
from mvfa import scoring
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


def test_a_packed_tower_trains_alike_and_leaves_no_trace(tiny):
    """Token features and gradients of the adapters, of one image, for which it is packed, and of three."""
    mvfa = MVFA(tiny.visual, 64, (1, 2, 4), generator=torch.Generator().manual_seed(0))
    tower, plain_blocks = tiny.visual.transformer, list(tiny.visual.transformer.resblocks)
    packed_tower = PackedTower(tower, first=1, rows=17)
    g = torch.Generator().manual_seed(1)
    text = nn.functional.normalize(torch.randn(64, 2, generator=g), dim=0)
    for count in (1, 3):
        stream = mvfa.stem(torch.rand(count, 3, 32, 32, generator=g))
        found = []
        for context in (nullcontext(), packed_tower.swapped_in()):
            mvfa.zero_grad()
            with context:
                swapped = [
                    block is not plain
                    for block, plain in zip(tower.resblocks, plain_blocks, strict=True)
                ]
                assert swapped == [False, *[len(found) == 1] * 3]
                features = mvfa(stream)
                sum(
                    scoring.text_logits(tokens, text).sigmoid().mean() for tokens in features
                ).backward()
            gradients = [
                p.grad.clone() for name, p in mvfa.named_parameters() if p.grad is not None
            ]
            found.append([t.detach() for tokens in features for t in tokens] + gradients)
        assert (
            len(found[0]) == 6 + 10
        )  # of the last level's two adapters only the first matrix counts
        for plain, own in zip(*found, strict=True):
            torch.testing.assert_close(own, plain, **CLOSE)
    assert list(tower.resblocks) == plain_blocks


def test_packing_is_the_default_where_a_gain_was_measured(monkeypatch, tmp_path):
    for vendor, gains in (("GenuineIntel", True), ("AuthenticAMD", False)):
        (tmp_path / "cpuinfo").write_text(f"vendor_id : {vendor}\n")
        monkeypatch.setattr(packed, "CPUINFO", tmp_path / "cpuinfo")
        assert packed.gains_here() == gains
