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
from tests.conftest import TOLERANCE, released_form

pytestmark = pytest.mark.skipif(not packed.available(), reason="this torch has no packed products")
CLOSE = TOLERANCE[torch.float32]


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (5,), (1, 4)], ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["contiguous", "turned"])
def test_products_and_gradients_are_those_of_a_linear_layer(shape, turned):
    """A matrix packed for five rows is right for other numbers and non-contiguous tensors."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 8, generator=g)
    bias = torch.randn(12, generator=g)
    matrix = PackedMatrix(weight, rows=5)

    def draw(width: int) -> torch.Tensor:
        if turned:
            return torch.randn(width, *shape, generator=g).movedim(0, -1)
        return torch.randn(*shape, width, generator=g)

    values = draw(8)
    gradient = draw(12)
    results = []
    for multiply in (lambda x: F.linear(x, weight, bias), lambda x: matrix(x, bias)):
        x = values.clone().requires_grad_()
        y = multiply(x)
        y.backward(gradient)
        results.append((y.detach(), x.grad))
    for plain, own in zip(*results, strict=True):
        torch.testing.assert_close(own, plain, **CLOSE)


def test_a_packed_tower_trains_alike_and_leaves_no_trace(tiny):
    """Token features and adapter gradients agree, packed for one image, for one and for three."""
    generator = torch.Generator().manual_seed(0)
    mvfa = MVFA(tiny.visual, 64, (1, 2, 4), released_form(), generator)
    tower = tiny.visual.transformer
    plain_blocks = list(tower.resblocks)
    packed_tower = PackedTower(tower, first=1, rows=17)
    g = torch.Generator().manual_seed(1)
    text = nn.functional.normalize(torch.randn(64, 2, generator=g), dim=0)
    for count in (1, 3):
        features = mvfa.stem(torch.rand(count, 3, 32, 32, generator=g))
        results = []
        for context in (nullcontext(), packed_tower.swapped_in()):
            mvfa.zero_grad()
            with context:
                swapped = [
                    block is not plain
                    for block, plain in zip(tower.resblocks, plain_blocks, strict=True)
                ]
                assert swapped == [False, *[len(results) == 1] * 3]
                heads = mvfa(features)
                means = [scoring.text_logits(tokens, text).sigmoid().mean() for tokens in heads]
                sum(means).backward()
            gradients = [
                p.grad.clone() for name, p in mvfa.named_parameters() if p.grad is not None
            ]
            results.append([t.detach() for levels in heads for t in levels] + gradients)
        # of the last level's two adapters only the first matrix gets a gradient
        assert len(results[0]) == 6 + 10
        for plain, own in zip(*results, strict=True):
            torch.testing.assert_close(own, plain, **CLOSE)
    assert list(tower.resblocks) == plain_blocks


def test_packing_is_the_default_where_a_gain_was_measured(monkeypatch, tmp_path):
    for vendor, gains in (("GenuineIntel", True), ("AuthenticAMD", False)):
        (tmp_path / "cpuinfo").write_text(f"vendor_id : {vendor}\n")
        monkeypatch.setattr(packed, "CPUINFO", tmp_path / "cpuinfo")
        assert packed.gains_here() == gains
