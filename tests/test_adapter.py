"""The adapters: their start, the maths of a level by hand, projectors, single heads, precisions."""

import pytest
import torch
from torch import nn

from CLIP.adapter import MVFA
from CLIP.weights import create_model
from errors import UserError
from tests.conftest import TOLERANCE, released_form
from tests.image_sets import LEVELS, Pictures, drawn_adapters


def test_adapters_start_as_linear_layers_do(tiny):
    torch.manual_seed(111)
    expected = [nn.Linear(*shape, bias=False) for _ in range(6) for shape in ((64, 64), (64, 64))]
    mvfa = drawn_adapters(tiny, seed=111)
    got = [p for head in ("seg", "det") for p in mvfa.adapters(head).parameters()]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs.weight, rtol=0, atol=0)


@pytest.mark.parametrize("levels", [(), (2, 1), (0, 2), (2, 5), (2, 2)])
def test_impossible_levels_are_refused(tiny, levels):
    with pytest.raises(UserError, match="allowed are rising block numbers from 1 to 4"):
        MVFA(tiny.visual, 64, levels, released_form())


def test_the_levels_by_hand(tiny):
    mvfa = drawn_adapters(tiny)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        x = tiny.visual.embed(image)
        for block in range(1, 5):
            x = tiny.visual.transformer.resblocks[block - 1](x)
            if block in LEVELS:
                level = LEVELS.index(block)
                back = []
                for head in ("seg", "det"):
                    adapter = mvfa.adapters(head)[level].state_dict()
                    t = nn.functional.leaky_relu(x @ adapter["fc1.0.weight"].T, 0.01)
                    back.append(nn.functional.leaky_relu(t @ adapter["fc2.0.weight"].T, 0.01))
                    got = getattr(mvfa(mvfa.stem(image)), head)[level]
                    torch.testing.assert_close(got, t, **TOLERANCE[torch.float32])
                x = 0.8 * x + 0.1 * back[0] + 0.1 * back[1]


def test_projectors(tiny):
    features = torch.randn(2, 17, 64)
    last = drawn_adapters(tiny, projector="last")
    plain = drawn_adapters(tiny)
    every = drawn_adapters(tiny, projector="all")
    for a, b in zip(last(features).seg[:2], plain(features).seg[:2], strict=True):
        torch.testing.assert_close(a, b)
    activated = nn.functional.leaky_relu(last(features).seg[2], 0.01)
    torch.testing.assert_close(activated, plain(features).seg[2])
    x = tiny.visual.transformer(features, 1, 2)
    torch.testing.assert_close(every(features).seg[1], every.adapters("seg")[1].fc1(x))


def test_one_head_equals_both(tiny):
    mvfa = drawn_adapters(tiny)
    features = torch.randn(2, 17, 64)
    both = mvfa(features)
    for head in ("seg", "det"):
        alone = mvfa(features, (head,))
        for a, b in zip(getattr(alone, head), getattr(both, head), strict=True):
            torch.testing.assert_close(a, b)


def test_a_head_that_is_not_asked_for_is_empty(tiny):
    tokens = drawn_adapters(tiny)(torch.randn(2, 17, 64), ("det",))
    assert tokens.seg == []
    assert len(tokens.det) == len(LEVELS)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_near(tiny_path, precision):
    full = create_model(None, tiny_path, image_size=32)
    half = create_model(None, tiny_path, image_size=32, precision=precision)
    assert half.visual.transformer.resblocks[0].mlp.c_fc.weight.dtype != torch.float32
    tokens = []
    for clip in (full, half):
        mvfa = drawn_adapters(clip)
        features = mvfa.stem(Pictures(2).images)
        assert features.dtype == torch.float32
        tokens.append(mvfa(features).seg)
    for a, b in zip(*tokens, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)
