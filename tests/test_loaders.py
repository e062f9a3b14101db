"""Loaders of a run share its cache, and the features of shots are computed as a test does."""

import torch

from dataset.catalog import object_info
from dataset.medical_few import Support
from mvfa.distributed import World
from mvfa.environment import Environment
from mvfa.loaders import Loaders
from mvfa.options import parse
from tests.conftest import listed_shots
from tests.image_sets import Pictures, drawn_method

IMAGE_BYTES = 17 * 64 * 4  # features of one image of 32 x 32 pixels in the tiny CLIP


def loaders(tiny, images: float, batch: int = 3) -> Loaders:
    """Return the loaders of a run that may cache the features of so many images."""
    flags = ["--obj", "Brain", "--cache_gb", f"{images * IMAGE_BYTES / 1e9:.9f}"]
    env = Environment(torch.device("cpu"), "fp32", 0, batch, World())
    return Loaders(drawn_method(tiny), parse("train_few", flags), env)


def test_the_first_loaders_get_the_cache(tiny):
    shared = loaders(tiny, 12)
    first = shared.training(Pictures(8))
    once = shared.scoring(Pictures(8))
    second = shared.scoring(Pictures(8), reused=True)
    sizes = [round(loader.cache_bytes / IMAGE_BYTES) for loader in (first, once, second)]
    assert sizes == [8, 0, 4]
    assert [loader.batch_size for loader in (first, once, second)] == [1, 3, 3]


def test_features_of_shots_are_those_of_a_test_to_the_bit(tiny, demo_root):
    shots = listed_shots(demo_root, "Brain", 2)
    images = Support(shots, object_info("Brain"), 32)
    trained = loaders(tiny, 1_000, batch=8).support(images)
    assert trained.cached.all()
    tested = loaders(tiny, 0, batch=8).scoring(images)
    for a, b in zip(
        trained.batches(images.normal, 8), tested.batches(images.normal, 8), strict=True
    ):
        assert torch.equal(a.features, b.features)
