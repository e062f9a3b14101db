"""Steps of one image by a captured graph: the same losses and adapters, for every object."""

import pytest
import torch

from errors import UserError
from mvfa.engine import Trainer, train
from mvfa.environment import set_up
from mvfa.options import parse
from tests.image_sets import Pictures, drawn_method, loader


def trained(tiny, graphs: bool, batch_size: int = 1) -> tuple:
    """Train on images with and without masks; return losses, adapters and the trainer."""
    method = drawn_method(tiny)
    trainer = Trainer(method, 1e-2, graphs=graphs)
    losses: list[float] = []
    order = [0, 5, 1, 4, 2, 3, 7, 6, 0, 5]
    train(trainer, loader(method, Pictures(8), batch_size), order, report=losses.append)
    return losses, method.state(), trainer


def test_graphs_give_the_same_steps(tiny):
    losses, state, _ = trained(tiny, graphs=False)
    replayed, own, trainer = trained(tiny, graphs=True)
    assert replayed == losses
    for group, values in state.items():
        for name, value in values.items():
            assert torch.equal(value, own[group][name])
    assert len(trainer.graphs.graphs) == 2  # one with masks, one without


def test_larger_steps_are_not_captured(tiny):
    losses, _, _ = trained(tiny, graphs=False, batch_size=2)
    replayed, _, trainer = trained(tiny, graphs=True, batch_size=2)
    assert replayed == losses
    assert trainer.graphs.graphs == {}


def test_a_device_without_graphs_is_refused(tmp_path):
    options = parse(
        "train_few", f"--obj Brain --out {tmp_path} --device cpu --cuda_graphs yes".split()
    )
    with pytest.raises(
        UserError, match="--cuda_graphs yes needs a CUDA device; got cpu; leave the flag out"
    ):
        set_up(options)


def test_they_are_of_mvfa_only():
    with pytest.raises(UserError, match="--cuda_graphs changes nothing of --method madclip"):
        parse("train_few", ["--obj", "Brain", "--method", "madclip", "--cuda_graphs", "yes"])
