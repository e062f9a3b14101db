"""Adapters whose values are loaded next are not drawn, and nothing else is left out."""

import torch

from CLIP.adapter import MVFA
from CLIP.undrawn import Undrawn
from tests.conftest import released_form


def test_no_generator_moves_on(tiny):
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    with Undrawn():
        model = MVFA(tiny.visual, 64, (1, 2), released_form(), generator)
    assert torch.equal(generator.get_state(), state)
    drawn = MVFA(tiny.visual, 64, (1, 2), released_form(), generator)
    assert not torch.equal(generator.get_state(), state)
    assert {n: v.shape for n, v in model.state_dict().items()} == {
        n: v.shape for n, v in drawn.state_dict().items()
    }


def test_a_tensor_keeps_its_values():
    kept = torch.full((3, 4), 7.0)
    with Undrawn():
        torch.nn.init.kaiming_uniform_(kept)
        assert torch.equal(kept + 1, torch.full((3, 4), 8.0))
    assert torch.equal(kept, torch.full((3, 4), 7.0))
    torch.nn.init.kaiming_uniform_(kept)
    assert not torch.equal(kept, torch.full((3, 4), 7.0))
