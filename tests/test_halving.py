"""A device whose memory is full: tests go on in smaller parts with the same scores."""

import pytest
import torch

from mvfa.distributed import World
from mvfa.engine import Trainer, build_memory, predict, train
from mvfa.halving import Halving
from mvfa.system_errors import describe
from tests.detectors import random_detector, random_images
from tests.image_sets import Pictures, drawn_method, loader
from tests.methods import recipe_of

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
WORDS = "note: the memory of the device is full: images are scored in smaller parts\n"


@pytest.fixture
def small_device(monkeypatch):
    """Return a function that bounds how many images a method takes; returns how many it got."""

    def bound(owner: object, name: str, most: int) -> list[int]:
        taken = []
        real = getattr(owner, name)

        def run(batch, *arguments, **more):
            if len(batch) > most:
                raise torch.OutOfMemoryError(FULL)
            taken.append(len(batch))
            return real(batch, *arguments, **more)

        monkeypatch.setattr(owner, name, run)
        return taken

    return bound


def test_what_is_halved_stays_so(capsys):
    sizes = []

    def run(part):
        sizes.append(len(part))
        if len(part) > 3:
            raise torch.OutOfMemoryError(FULL)
        return part * 2

    halving = Halving(World())
    for batch in (torch.arange(10), torch.arange(7)):
        parts = list(halving(run, batch))
        assert torch.equal(torch.cat([batch[rows] for rows, _ in parts]), batch)
        assert torch.equal(torch.cat([value for _, value in parts]), batch * 2)
    assert sizes == [10, 5, 3, 3, 3, 1, 3, 3, 1]
    assert capsys.readouterr().err == WORDS


def test_other_errors_and_a_device_without_room_for_one_image_end_it():
    def full(_):
        raise torch.OutOfMemoryError(FULL)

    def wrong(_):
        raise RuntimeError("shapes do not fit")

    for run, message in ((full, "out of memory"), (wrong, "do not fit")):
        with pytest.raises(RuntimeError, match=message):
            list(Halving(World())(run, torch.arange(8)))


def test_an_empty_batch_is_run_once():
    assert list(Halving(World())(len, torch.empty(0, 2))) == [(slice(0, 0), 0)]


@pytest.mark.parametrize("name", ["stem", "forward"])
def test_a_test_set_is_scored_in_parts(tiny, capsys, small_device, name):
    """Features, the memory bank and scores: all are those of batches of 3 images, to the bit."""

    def score(size: int) -> dict:
        method = drawn_method(tiny, recipe=recipe_of(bank_class_token=False))
        taken = small_device(method.model, name, 3)
        images = loader(method, Pictures(12, masked="all"), size)
        with torch.no_grad():
            bank = build_memory(method, images, range(0, 12, 2))
            scored = predict(method, images, bank)
        assert max(taken) == 3
        return {"bank": torch.cat(bank), "logits": scored.logits, "distance": scored.distance}

    expected = score(3)
    assert capsys.readouterr().err == ""
    found = score(6)
    assert capsys.readouterr().err == WORDS
    for key, values in expected.items():
        assert torch.equal(found[key], values)


def test_a_training_step_is_one_line(tiny, small_device):
    """Its gradients are of all images, so it is not divided."""
    method = drawn_method(tiny)
    small_device(method.model, "stem", 3)
    trainer = Trainer(method, 1e-3)
    with pytest.raises(torch.OutOfMemoryError) as full:
        train(trainer, loader(method, Pictures(8)), range(8))
    line = describe(full.value)
    assert line == (
        "the memory of the device is full (CUDA out of memory); end other programs on the device; "
        "files written so far are whole"
    )


def test_a_detector_scores_in_parts(tiny_path, capsys, small_device, monkeypatch):
    detector = random_detector(tiny_path)
    images = random_images(6, 32)
    monkeypatch.setattr("mvfa.detector.HOST_BATCH", 2)
    expected = detector.patch_values(images)
    small_device(detector.method.model, "stem", 2)
    monkeypatch.setattr("mvfa.detector.HOST_BATCH", 4)
    found = detector.patch_values(images)
    assert capsys.readouterr().err == WORDS
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
