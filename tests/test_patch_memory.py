"""Patch memory: images, memory bank, distances, and the method from end to end."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mvfa.methods.dinov2 import load_dino
from mvfa.methods.patch_maps import grid_of
from mvfa.methods.patch_memory import ANGLES, MEAN, STD, PatchMemory, prepared, rotated, sizes_of
from synthetic.dino import write_demo_dino

SIZES = [(240, 240), (120, 240), (250, 200)]  # of images, in pixels


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    """Return the method with the demo's tower, for an object with masks."""
    tower = load_dino(None, write_demo_dino(tmp_path_factory.mktemp("dino")))
    return PatchMemory(tower, 120, masks=True, rotate=False)


def random_image(height, width, seed=0):
    """Return a smooth image, uint8 [3, H, W]."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 255, (12, 12, 3), np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def images():
    """Return images of several sizes."""
    return [random_image(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.mark.parametrize("size", SIZES)
def test_images_are_resized_normalised_and_cut(size):
    image = random_image(*size)
    h, w = grid_of(*size)
    short = 448 / min(size)
    shape = [448 if side == min(size) else int(448 * side / min(size)) for side in size]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pixels = np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC), np.float32) / 255
    expected = (pixels - np.float32(MEAN)) / np.float32(STD)
    assert short > 0
    found = prepared(image).permute(1, 2, 0).numpy()
    assert found.shape == (14 * h, 14 * w, 3)
    np.testing.assert_allclose(found, expected[: 14 * h, : 14 * w], rtol=0, atol=1e-6)


def test_features_are_sizes_and_unit_tokens(method, images):
    features = method.features(images)
    longest = max(h * w for h, w in (grid_of(*size) for size in SIZES))
    assert features.shape == (3, 1 + longest, 64)
    assert sizes_of(features).tolist() == [list(size) for size in SIZES]
    for own, size in zip(features, SIZES, strict=True):
        h, w = grid_of(*size)
        norms = own[1:].norm(dim=-1)
        torch.testing.assert_close(norms[: h * w], torch.ones(h * w))
        assert not own[1 + h * w :].any()


def test_a_bank_has_all_tokens_of_its_images(method, images):
    (rows,) = method.bank(method.features(images))
    assert len(rows) == sum(method.bank_rows(image) for image in images)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))


def test_a_bank_scores_its_own_images_zero(method, images):
    features = method.features(images)
    values = method.score(features, method.bank(features))
    assert values["distance"].abs().max() < 1e-5
    assert values["memory_scores"].abs().max() < 1e-5


def test_distances_and_scores_equal_a_plain_loop(method, images):
    bank = method.bank(method.features(images[:1]))
    values = method.score(method.features(images), bank)
    for i, (image, size) in enumerate(zip(images, SIZES, strict=True)):
        tokens = F.normalize(method.tower(prepared(image)[None])[0], dim=-1)
        distance = [min(1 - float(row @ token) for row in bank[0][::1]) for token in tokens[:40]]
        found = values["distance"][i]
        np.testing.assert_allclose(found[:40].numpy(), distance, rtol=0, atol=2e-6)
        h, w = grid_of(*size)
        assert not found[h * w :].any()
        top = found[: h * w].sort(descending=True).values[: max(1, int(0.01 * h * w))]
        assert float(values["memory_scores"][i]) == pytest.approx(float(top.mean()), rel=1e-6)


def test_images_together_score_as_alone(method, images):
    bank = method.bank(method.features(images[:2]))
    together = method.score(method.features(images), bank)
    for i, image in enumerate(images):
        alone = method.score(method.features([image]), bank)
        count = method.bank_rows(image)
        torch.testing.assert_close(together["distance"][i, :count], alone["distance"][0, :count])
        torch.testing.assert_close(together["memory_scores"][i], alone["memory_scores"][0])


def test_a_quarter_turn_is_a_turn_of_the_pixels():
    image = torch.zeros(3, 33, 33, dtype=torch.uint8)
    image[:, 4:8, 10:20] = 200
    # about (W / 2, H / 2) in pixel indices, half a pixel beside the middle
    expected = np.rot90(image.permute(1, 2, 0).numpy())
    found = rotated(image, 90).permute(1, 2, 0).numpy()
    assert np.array_equal(found[1:], expected[:-1])


def test_seven_rotations():
    assert list(ANGLES) == [45, 90, 135, 180, 225, 270, 315]


def test_no_values_of_patches_without_masks_or_maps(method, images):
    bank = method.bank(method.features(images[:1]))
    plain = PatchMemory(method.tower, 120, masks=False, rotate=False)
    assert set(plain.score(method.features(images), bank)) == {"memory_scores"}
    mapped = plain.score(method.features(images), bank, maps=True)
    assert set(mapped) == {"memory_scores", "distance", "sizes"}
