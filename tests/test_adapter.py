"""The adapters: their start, the maths of a level by hand, projectors, single heads, precisions."""

import pytest
import torch
from torch import nn

from CLIP.adapter import HEADS, MVFA
from CLIP.model import VisionTransformer
from CLIP.weights import create_model
from errors import UserError
from mvfa import scoring
from mvfa.engine import build_memory, predict
from tests.conftest import TOLERANCE, released_form
from tests.image_sets import LEVELS, Pictures, drawn_adapters, drawn_method, loader

TOLERANCE_HALF = {"fp32": 0.0, "bf16": 2e-2, "fp16": 2e-3}  # of norms


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


def on_a_gpu(monkeypatch) -> None:
    """Take a half-precision tower on the CPU for one on a GPU."""
    half = property(lambda visual: visual.dtype != torch.float32)
    monkeypatch.setattr(VisionTransformer, "half_on_gpu", half)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_adapters_multiply_in_float32_on_a_cpu(tiny_path, precision):
    clip = create_model(None, tiny_path, image_size=32, precision=precision)
    mvfa = drawn_adapters(clip)
    tokens = mvfa(mvfa.stem(Pictures(2).images))
    assert {t.dtype for head in tokens for t in head} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_they_multiply_as_the_blocks_do(monkeypatch, tiny_path, precision):
    """Weights and gradients stay in float32, and so does the residual path."""
    clip = create_model(None, tiny_path, image_size=32, precision=precision)
    mvfa = drawn_adapters(clip)
    features = mvfa.stem(Pictures(2).images)
    plain = mvfa(features)
    on_a_gpu(monkeypatch)
    tokens = mvfa(features)
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert {t.dtype for head in tokens for t in head} == {expected}
    for head, own in zip(plain, tokens, strict=True):
        for a, b in zip(head, own, strict=True):
            difference = (a - b.float()).norm() / a.norm()
            assert difference <= TOLERANCE_HALF[precision]
            assert (difference > 0) == (precision != "fp32")
    sum(t.float().mean() for head in tokens for t in head).backward()
    for head in HEADS:
        gradients = [p.grad for p in mvfa.adapters(head).parameters() if p.grad is not None]
        assert {g.dtype for g in gradients} == {torch.float32}
        assert all(g.isfinite().all() for g in gradients)


def test_scores_of_a_gpus_half_precision_are_near(monkeypatch, tiny_path):
    """The adapters' products and the search both run in half; maps and scores are float32."""
    pictures = Pictures(8, masked="all")
    results = []
    searches = []
    search = scoring.similarity_half
    monkeypatch.setattr(
        scoring, "similarity_half", lambda *sides: searches.append(0) or search(*sides)
    )
    for half in (False, True):
        clip = create_model(None, tiny_path, image_size=32, precision="fp16" if half else "fp32")
        method = drawn_method(clip)
        if half:
            on_a_gpu(monkeypatch)
        batches = loader(method, pictures)
        bank = build_memory(method, batches, [0, 2])
        results.append(predict(method, batches, bank))
    exact, near = results
    assert len(searches) == 2 * len(LEVELS)  # two batches
    assert near.distance.dtype == near.logits.dtype == torch.float32
    torch.testing.assert_close(near.distance, exact.distance, rtol=0, atol=5e-3)
    assert not torch.equal(near.distance, exact.distance)
    torch.testing.assert_close(near.logits, exact.logits, rtol=0, atol=0.3)  # of up to 100
