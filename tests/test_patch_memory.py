"""Patch memory: images, memory bank, distances, and the method from end to end."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dataset.catalog import object_info
from dataset.folder import ImageSet, list_split
from dataset.items import unpack_masks
from errors import UserError
from mvfa.methods import patch_memory
from mvfa.methods.base import Source
from mvfa.methods.dinov2 import load_dino
from mvfa.methods.patch_images import ANGLES, prepared, rotated
from mvfa.methods.patch_maps import grid_of
from mvfa.methods.patch_memory import PatchMemory, sizes_of
from synthetic.dino import write_demo_dino
from tests.conftest import listed_shots

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's colours
STD = (0.229, 0.224, 0.225)
SIZES = [(240, 240), (120, 240), (250, 200)]  # of images, in pixels


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write the demo's tower; return the file."""
    return write_demo_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def method(weights):
    """Return the method with the demo's tower, for an object with masks."""
    tower = load_dino(None, weights)
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
    shape = [448 if side == min(size) else int(448 * side / min(size)) for side in size]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pixels = np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC), np.float32) / 255
    expected = (pixels - np.float32(MEAN)) / np.float32(STD)
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


def created(weights, obj, rotate=None):
    """Return the method of a script's options."""
    options = SimpleNamespace(model_name=None, clip_path=weights, img_size=120, rotate=rotate)
    env = SimpleNamespace(device=torch.device("cpu"), precision="fp32")
    return patch_memory.create(options, env, object_info(obj), torch.Generator())


def own_pixels(record):
    """Return the pixels of a record's file, [H, W, 3]."""
    with Image.open(record.image) as image:
        return np.array(image.convert("RGB"))


def test_a_set_keeps_the_sizes_of_its_images_and_square_masks(method, demo_root):
    info = object_info("Retina_RESC")  # twice as wide as high
    squares = ImageSet(list_split(demo_root / "data", info, "test"), 120)
    own = method.source(squares)
    last = len(squares) - 1  # abnormal
    item = own[last]
    assert np.array_equal(item.image.permute(1, 2, 0).numpy(), own_pixels(squares.records[last]))
    assert item.image.shape != (3, 120, 120)
    assert item.position == last
    mask = unpack_masks([item.mask], own.side)[0]
    assert mask.shape == (120, 120)
    assert torch.equal(mask, squares.mask(last))
    assert mask.any()
    assert (len(own), own.nouns) == (len(squares), squares.nouns)
    assert torch.equal(own.labels, squares.labels)
    assert torch.equal(own.masked, squares.masked)


def test_an_image_is_scored_at_its_own_size(method):
    pixels = random_image(50, 70)
    assert torch.equal(method.fit(Image.fromarray(pixels.permute(1, 2, 0).numpy())), pixels)


@pytest.mark.parametrize("size", [(17, 1), (1, 17), (480, 29)])
def test_images_far_longer_than_wide_are_refused(method, size):
    with pytest.raises(UserError, match=f"has {size[0]} x {size[1]} pixels; allowed is a longer"):
        method.fit(Image.new("RGB", size))


def test_the_longest_image_is_allowed(method):
    image = method.fit(Image.new("RGB", (16, 1)))
    assert method.bank_rows(image) == 32 * 512


@pytest.mark.parametrize(("obj", "versions"), [("Brain", 1), ("Histopathology", 8)])
def test_shots_are_rotated_where_images_have_no_upright(weights, demo_root, obj, versions):
    shots = listed_shots(demo_root, obj, 2)
    support = created(weights, obj).support(shots, object_info(obj), torch.Generator())
    assert (support.versions, len(support)) == (versions, 2 * versions)
    assert support.normal == list(range(2 * versions))
    assert support.abnormal == []
    assert not support.labels.any()


def test_versions_are_all_shots_as_they_are_then_all_by_45_degrees_and_so_on(weights, demo_root):
    info = object_info("Brain")
    shots = listed_shots(demo_root, "Brain", 2)
    support = created(weights, "Brain", rotate=True).support(shots, info, torch.Generator())
    for index in range(16):
        version, shot = divmod(index, 2)
        pixels = own_pixels(shots.normal[shot])
        height, width = pixels.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 45 * version, 1.0)
        turned = cv2.warpAffine(pixels, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        assert np.array_equal(support[index].image.permute(1, 2, 0).numpy(), turned)


def test_turns_are_bilinear_and_mirror_the_edge():
    image = random_image(40, 30)
    found = rotated(image, 30).permute(1, 2, 0).numpy().astype(float)
    pixels = image.permute(1, 2, 0).numpy().astype(float)
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    for y, x in ((0, 0), (39, 29), (5, 25), (20, 15), (33, 3)):
        # where the value comes from, about (15, 20)
        column = 15 + cosine * (x - 15) - sine * (y - 20)
        row = 20 + sine * (x - 15) + cosine * (y - 20)
        expected = 0.0
        for r in (int(np.floor(row)), int(np.floor(row)) + 1):
            for c in (int(np.floor(column)), int(np.floor(column)) + 1):
                weight = (1 - abs(row - r)) * (1 - abs(column - c))
                expected = expected + weight * pixels[mirrored(r, 40), mirrored(c, 30)]
        np.testing.assert_allclose(found[y, x], expected, rtol=0, atol=6)


def mirrored(place, length):
    """Return a place within 0 .. length - 1, mirrored at the edges, which are not repeated."""
    place = abs(place)
    return 2 * (length - 1) - place if place >= length else place


def test_a_threshold_of_scores_is_not_one_of_maps(method):
    assert not method.map_scores(few=True)
    assert not method.map_scores(few=False)


@pytest.mark.parametrize("rotate", [False, True])
def test_a_detector_has_the_same_scores(weights, images, rotate):
    made = created(weights, "Brain", rotate=rotate)
    settings = SimpleNamespace(
        model_name=None, method_settings=made.settings(), img_size=120, masks=True, setting="few"
    )
    source = Source(Path("a.detector"), weights, torch.device("cpu"), "fp32")
    loaded = patch_memory.load(settings, made.tensors(), source)
    assert (loaded.rotate, loaded.side, loaded.masks) == (rotate, 120, True)
    bank = made.bank(made.features(images[:1]))
    own = made.score(made.features(images), bank)
    again = loaded.score(loaded.features(images), bank)
    assert own.keys() == again.keys()
    assert all(torch.equal(own[name], again[name]) for name in own)
