"""Shared fixtures and helpers: a tiny CLIP, synthetic images, stand-in weights of full size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from CLIP.adapter import AdapterForm
from CLIP.model import CLIP, ClipConfig, Tower
from CLIP.weights import create_model
from dataset.catalog import object_info
from dataset.shots import RANDOM_DRAW, Shots, choose_shots
from loss import Objective
from mvfa import forms
from mvfa.recipe import RECIPES
from mvfa.score_form import ScoreForm
from synthetic.images import write_demo
from synthetic.network import write_demo_weights
from synthetic.standin import write_standin

REFERENCE = Path(__file__).parent / "reference"
# for comparisons with an independent implementation, by dtype
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
    """Draw weights of any size under the published names, float32."""
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


def released_form(**changes) -> AdapterForm:
    """Return the released code's form of adapters, with some fields changed."""
    return replace(forms.adapter_form(RECIPES["released"]), **changes)


def released_objective(**changes) -> Objective:
    """Return the released code's loss, with some fields changed."""
    return replace(forms.objective(RECIPES["released"]), **changes)


def released_scores(**changes) -> ScoreForm:
    """Return how the released code computes scores, with some fields changed."""
    return replace(forms.score_form(RECIPES["released"]), **changes)


def listed_shots(root: Path, name: str, k: int, draw: int = 0) -> Shots:
    """Return the shots of a draw of the demo set's lists."""
    return choose_shots(
        root / "data", object_info(name), k, lists=root / "fewshot_seed", seed=0, draw=draw
    )


def random_shots(data: Path, name: str, k: int, seed: int = 0) -> Shots:
    """Return shots that a seed draws, without a list."""
    info = object_info(name)
    return choose_shots(data, info, k, lists=Path("none"), seed=seed, draw=RANDOM_DRAW)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep tests from reading or filling the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory) -> Path:
    """Write a weight file of a CLIP with four narrow blocks."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(random_state(TINY), path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_path) -> CLIP:
    """Load that network for images of 32 x 32 pixels."""
    return create_model(None, tiny_path, image_size=32)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory) -> Path:
    """Write a small synthetic set of all objects."""
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, valid=4, test=5, shots=(2, 4))
    return root


@pytest.fixture(scope="session")
def demo_weights(tmp_path_factory) -> Path:
    """Write the weight file of ViT-demo."""
    return write_demo_weights(tmp_path_factory.mktemp("vit_demo"))


@pytest.fixture(scope="session")
def standin(tmp_path_factory) -> Path:
    """Write stand-in weights of the published size, and adapters, to a folder."""
    folder = tmp_path_factory.mktemp("standin")
    write_standin(folder)
    return folder
