"""What runs on a GPU, on tensors of a GPU that have no values.

They raise where a value is read, which would wait for the GPU, and where two devices meet.
"""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from CLIP.weights import create_model
from mvfa.histograms import AdaptiveBins, StreamingHistogram
from mvfa.methods.mvfa import Mvfa
from tests.image_sets import drawn_method

GPU = torch.device("cuda", 0)
# without a GPU, torch says that it does not multiply in half precision there
pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")


@pytest.fixture
def unread() -> Iterator[None]:
    """Let tensors that are made have no values."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on_gpu(values: torch.Tensor) -> torch.Tensor:
    return torch.empty(values.shape, dtype=values.dtype, device=GPU)


def method_on_gpu(path, precision: str, **settings) -> Mvfa:
    """Return MVFA whose tensors are a GPU's, without values."""
    clip = create_model(None, path, image_size=32, precision=precision)
    method = drawn_method(deepcopy(clip), **settings)  # networks are loaded once
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in method.modules():
            for name, values in list(module.named_parameters(recurse=False)):
                trained = values.requires_grad
                setattr(module, name, torch.nn.Parameter(on_gpu(values), requires_grad=trained))
        method.text = {noun: on_gpu(values) for noun, values in method.text.items()}
    return method


@pytest.mark.usefixtures("unread")
def test_such_tensors_raise_where_they_are_read():
    values = torch.zeros(2, device=GPU)
    with pytest.raises(DataDependentOutputException):
        values.sum().item()
    with pytest.raises(RuntimeError, match="devices"):
        values + torch.zeros(2)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("few", [True, False])
def test_images_become_scores(tiny_path, precision, masks, few):
    method = method_on_gpu(tiny_path, precision, masks=masks)
    assert method.model.visual.half_on_gpu == (precision != "fp32")
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        features = method.features(torch.empty(5, 3, 32, 32, dtype=torch.uint8, device=GPU))
        bank = method.bank(features[:2]) if few else None
        method.prepare_scores()
        scores = method.score(features, bank, maps=True)
    assert scores["logits"].shape == (5, 3, 16)
    assert ("distance" in scores) == few
    for values in (features, *scores.values()):
        assert values.device == GPU
        assert values.dtype == torch.float32


@pytest.mark.parametrize("masks", [True, False])
def test_steps_have_losses(tiny_path, masks):
    method = method_on_gpu(tiny_path, "fp16")
    with FakeTensorMode(allow_non_fake_inputs=True):
        features = torch.empty(3, 17, 64, device=GPU)
        marked = torch.empty(3, 32, 32, dtype=torch.bool, device=GPU) if masks else None
        losses = method.loss(features, torch.empty(3, device=GPU), marked, ["Brain"] * 3)
    assert losses.device == GPU
    assert losses.shape == (3,)


@pytest.mark.usefixtures("unread")
def test_pixels_are_counted(monkeypatch):
    """The bins are made once, which reads their number; from then on nothing is read."""
    monkeypatch.setattr("mvfa.histograms.is_cuda", lambda _: True)
    found = StreamingHistogram()
    bins = AdaptiveBins.__new__(AdaptiveBins)
    bins.width = torch.empty(2**15, dtype=torch.int32, device=GPU)
    bins.first = torch.empty(2**15, dtype=torch.int32, device=GPU)
    found.bins = bins
    found.counts = torch.empty(100, 2, dtype=torch.int64, device=GPU)
    for _ in range(2):
        found.update(
            torch.empty(4, 8, 8, device=GPU), torch.empty(4, 8, 8, dtype=torch.bool, device=GPU)
        )
    assert found.fine is not None
    assert found.fine.device == GPU
