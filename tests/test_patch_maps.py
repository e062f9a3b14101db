"""Maps and scores of patch distances against plain loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from mvfa.methods.patch_maps import PatchForm, grid_of, one_map, resized

SIZES = [(240, 240), (512, 1024), (496, 512), (300, 200)]  # of images, in pixels
FORM = PatchForm("mean", "sum")


def plain_map(distance, height, width):
    """Return the map [H, W] of distances [h * w], as the text says it."""
    h, w = grid_of(height, width)
    square = distance.reshape(1, 1, h, w)
    large = F.interpolate(square, size=(height, width), mode="bilinear", align_corners=False)
    return gaussian_filter(large[0, 0].numpy(), sigma=4, mode="reflect", truncate=4.0)


def plain_score(distance):
    """Return the mean of the largest hundredth."""
    largest = sorted(distance.tolist(), reverse=True)[: max(1, int(0.01 * len(distance)))]
    return sum(largest) / len(largest)


def random_distance(height, width, seed=0):
    h, w = grid_of(height, width)
    return torch.rand(h * w, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "shown", "grid"),
    [
        ((240, 240), (448, 448), (32, 32)),
        ((512, 1024), (448, 896), (32, 64)),
        ((496, 512), (448, 462), (32, 33)),
        ((512, 496), (462, 448), (33, 32)),
        ((200, 333), (448, 745), (32, 53)),  # 745.92 pixels, 53.2 patches
    ],
)
def test_grids_follow_the_shorter_side(size, shown, grid):
    assert resized(*size) == shown
    assert grid_of(*size) == grid


@pytest.mark.parametrize("size", SIZES)
def test_maps_at_their_own_size_equal_a_plain_loop(size):
    distance = random_distance(*size)
    own = one_map(distance[None], *size, size)[0]
    np.testing.assert_allclose(own.numpy(), plain_map(distance, *size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_maps_of_a_test_are_resampled_from_these(size):
    distance = random_distance(*size)
    own = FORM.memory_map(distance[None], torch.tensor([size]).float(), 120)[0]
    plain = torch.from_numpy(plain_map(distance, *size))[None, None]
    expected = F.interpolate(plain, size=(120, 120), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


def test_images_of_several_sizes_have_the_maps_and_scores_of_each_alone():
    distances = [random_distance(*size, seed) for seed, size in enumerate(SIZES)]
    longest = max(map(len, distances))
    padded = torch.stack([F.pad(d, (0, longest - len(d)), value=9.0) for d in distances])
    sizes = torch.tensor(SIZES).float()
    maps = FORM.memory_map(padded, sizes, 60)
    scores = FORM.memory_score(padded, sizes, 60)
    for i, (distance, size) in enumerate(zip(distances, SIZES, strict=True)):
        torch.testing.assert_close(maps[i], one_map(distance[None], *size, (60, 60))[0])
        assert float(scores[i]) == pytest.approx(plain_score(distance), rel=1e-6)


def test_ten_of_1024_distances_are_a_score():
    distance = torch.zeros(1, 1024)
    distance[0, :10] = torch.arange(10.0)
    score = FORM.memory_score(distance, torch.tensor([[240.0, 240.0]]), 240)
    assert float(score) == pytest.approx(4.5)
