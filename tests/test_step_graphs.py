"""Steps of one image by a captured graph: the same losses and adapters, for every object."""

import pytest
import torch

from errors import UserError
from mvfa.engine import Trainer, train
from mvfa.environment import set_up
from mvfa.options import parse
from mvfa.step_graphs import StepGraph, StepGraphs
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


def stub(features, labels, masks, nouns, total):
    """Return a loss that depends on all there is."""
    marked = 0 if masks is None else masks.sum()
    return features.sum() + labels.sum() + marked + len(nouns[0]) + total


@pytest.mark.parametrize("change", [{"masks": None}, {"nouns": ["Retina"]}, {"total": 7}])
def test_what_a_graph_cannot_take_as_input_has_a_graph_of_its_own(change):
    step = {"features": torch.ones(1, 2), "labels": torch.ones(1), "nouns": ["Brain"], "total": 1}
    step["masks"] = torch.ones(1, 2, 2, dtype=torch.bool)
    graphs = StepGraphs(stub, [])
    for given in (step, step | change, step):
        assert graphs(**given) == stub(**given)
    assert len(graphs.graphs) == 2


def test_gradients_are_put_back_where_a_replay_writes_them():
    """An optimizer has forgotten them; a replay runs no Python that would set them."""
    weight = torch.nn.Parameter(torch.tensor(2.0))

    def gradients(features, *_):
        loss = (features * weight).sum()
        loss.backward()
        return loss.detach()

    graph = StepGraph(gradients, [weight], torch.ones(1), torch.ones(1), None, ["Brain"], 1)
    written = weight.grad
    weight.grad = None
    graph.replay = lambda: None
    graph(torch.ones(1), torch.ones(1), None)
    assert weight.grad is written


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
