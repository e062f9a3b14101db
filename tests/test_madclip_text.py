"""Sentences with learned contexts, and how the text tower encodes them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP.model import CLIP
from CLIP.tokenizer import tokenize
from CLIP.weights import create_model
from mvfa.methods.madclip_text import LearnedText, end_rows, names, order, sentences
from tests.conftest import TINY, random_state
from tests.test_madclip import EXPECTED

NOUN = "Chest X-ray film"
STATES = 7


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> CLIP:
    """Load a network whose text tower is not ready: its file has float16 weights."""
    path = tmp_path_factory.mktemp("halves") / "tiny.pt"
    torch.save({name: values.half() for name, values in random_state(TINY).items()}, path)
    return create_model(None, path, image_size=24)


def learned(clip: CLIP, noun: str = NOUN) -> LearnedText:
    return LearnedText(clip, noun, torch.Generator().manual_seed(0))


def test_sentences():
    found = sentences("Brain")
    assert len(found) == 14
    for sentence, ids in EXPECTED["tokens"].items():
        assert sentence in found
        assert tokenize([sentence])[0].tolist() == ids


def test_order():
    assert order("end", 2, 14) == [0, *range(14, 22), 9, 10, 11, 12, 13]
    assert order("front", 2, 14) == [0, 9, 10, *range(14, 22), 11, 12, 13]
    assert order("middle", 2, 14) == [0, *range(14, 18), 9, 10, *range(18, 22), 11, 12, 13]


def test_embedded_sentences(tiny):
    """Compare with sentences put together one by one."""
    text = learned(tiny)
    found = text.embed().unflatten(0, (2, 3, STATES))
    for c, label in enumerate(("normal", "abnormal")):
        for i in range(STATES):
            ids = tokenize(sentences(NOUN))[c * STATES + i].tolist()
            end = ids.index(49407)
            known = tiny.token_embedding(torch.tensor(ids[: end + 1] + [0] * (76 - end)))
            state = known[9 : end - 1]
            rest = known[end - 1 :]
            front, middle, back = (
                text.contexts[f"{label}_{place}"][i] for place in ("front", "middle", "end")
            )
            expected = {
                0: torch.cat([known[:1], back, state, rest]),
                1: torch.cat([known[:1], state, front, rest]),
                2: torch.cat([known[:1], middle[:4], state, middle[4:], rest]),
            }
            for q, tokens in expected.items():
                assert torch.equal(found[c, q, i], tokens + tiny.positional_embedding)
                assert text.ends.unflatten(0, (2, 3, STATES))[c, q, i] == end


def whole(text: LearnedText, x: Tensor, *, causal: bool = False) -> Tensor:
    """Encode with all rows of the last block."""
    x = text.clip.transformer(x, causal=causal)
    x = x[torch.arange(len(x)), text.ends]
    return text.clip.ln_final(x) @ text.clip.text_projection


def test_the_last_block_computes_end_tokens_only(tiny):
    text = learned(tiny)
    block = tiny.transformer.resblocks[-1]
    x = torch.randn(len(text.ends), 77, 64, generator=torch.Generator().manual_seed(0))
    rows = block(x)[torch.arange(len(x)), text.ends]
    torch.testing.assert_close(end_rows(block, x, text.ends), rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        text.encode(text.embed()), whole(text, text.embed()), rtol=1e-5, atol=1e-5
    )


def test_gradients_are_those_of_the_plain_form(tiny):
    text = learned(tiny)
    direction = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    gradients = []
    for encode in (text.encode, lambda x: whole(text, x)):
        text.zero_grad()
        (text.columns(encode(text.embed())) * direction).sum().backward()
        gradients.append([text.contexts[name].grad.clone() for name in names()])
    for own, plain in zip(*gradients, strict=True):
        assert own.abs().max() > 0
        torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_padding_counts_and_there_is_no_causal_mask(tiny):
    text = learned(tiny)
    rows = text.encode(text.embed())
    changed = text.embed()
    changed[:, -1] += torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert (text.encode(changed) - rows).abs().amax(dim=1).min() > 1e-4
    assert (whole(text, text.embed(), causal=True) - rows).abs().max() > 1e-2


@torch.no_grad()
def test_columns_are_of_norm_1_and_means_of_21_rows(tiny):
    text = learned(tiny)
    rows = text.encode(text.embed())
    columns = text()
    assert columns.shape == (64, 2)
    for c, own in enumerate(rows.split(21)):
        torch.testing.assert_close(columns[:, c], F.normalize(own.sum(dim=0), dim=0))


def test_text_weights_stay_ready_in_training(halves):
    text = learned(halves)
    with torch.no_grad():
        before = text()
    weight = halves.transformer.resblocks[0].mlp.c_fc.weight
    assert weight.dtype == torch.float16
    text()[0].sum().backward()
    assert weight.dtype == torch.float32
    data = weight.data_ptr()
    columns = text()
    assert weight.data_ptr() == data
    assert torch.equal(columns, before)
    assert all(text.contexts[name].grad.abs().sum() > 0 for name in names())
