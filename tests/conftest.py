"""Shared fixtures: a tiny CLIP, the demo images, stand-in weights of full size."""

from pathlib import Path

import pytest
import torch

from CLIP.model import CLIP, ClipConfig, Tower
from CLIP.weights import create_model
from synthetic.images import write_demo
from synthetic.network import write_demo_weights
from synthetic.standin import write_standin

REFERENCE = Path(__file__).parent / "reference"
# one table of tolerances for comparing float32 results with an independent float32 implementation
TOLERANCE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float64: {"rtol": 1e-9, "atol": 1e-12},
}

TINY = ClipConfig(
    embed_dim=64,
    vision=Tower(64, 4, 1),
    patch_size=8,
    grid=4,
    text=Tower(64, 2, 1),
    context_length=77,
    vocab_size=49_408,
)


def random_state(config: ClipConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights of any size under the published names, float32."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in CLIP(config).state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
        norm_weight = (".ln_" in name and name.endswith("weight")) or name == "ln_final.weight"
        state[name] = 1 + 0.1 * values if norm_weight else scale * values
    return state


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory) -> Path:
    """A weight file of a CLIP with four narrow blocks."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(random_state(TINY), path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_path) -> CLIP:
    """That network, for images of 32 x 32."""
    return create_model(None, tiny_path, image_size=32)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory) -> Path:
    """A small demo set of all six objects."""
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, valid=4, test=5, shots=(2, 4))
    return root


@pytest.fixture(scope="session")
def demo_weights(tmp_path_factory) -> Path:
    """The weight file of ViT-demo."""
    return write_demo_weights(tmp_path_factory.mktemp("vit_demo"))


@pytest.fixture(scope="session")
def standin(tmp_path_factory) -> Path:
    """A folder with stand-in weights of the real size, and adapters."""
    folder = tmp_path_factory.mktemp("standin")
    write_standin(folder)
    return folder
