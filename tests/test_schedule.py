"""Zero-shot training tests where the released code does, and its parts cover an epoch."""

import pytest

from mvfa.distributed import World
from mvfa.schedule import moments, note_short_epochs, split


@pytest.mark.parametrize(
    ("steps", "expected"), [(30, [0, 6, 12, 18, 24]), (32, [0, 6, 12, 18, 24, 30]), (3, [0, 1, 2])]
)
def test_zero_shot_is_tested_where_the_released_code_tests(steps, expected):
    """Before step i wherever i % (steps // 5) == 0; before each in epochs of under five steps."""
    assert moments(steps) == expected
    if steps >= 5:
        assert expected == [i for i in range(steps) if i % (steps // 5) == 0]


@pytest.mark.parametrize("step_images", [1, 3, 16])
@pytest.mark.parametrize("images", [1, 2, 5, 23, 30, 57])
def test_parts_cover_every_image_once_in_order(images, step_images):
    order = list(reversed(range(images)))
    parts = split(order, step_images)
    assert [image for part in parts for image in part.images] == order
    steps = -(-images // step_images)
    assert [part.step for part in parts] == moments(steps)
    for part in parts:
        # whole steps precede a part, so steps are the same as in an epoch without parts
        assert part.images == order[part.step * step_images :][: len(part.images)]
        assert part.images
    assert all(len(part.images) % step_images == 0 for part in parts[:-1])


def test_parts_know_the_share_of_the_epoch_before_them():
    parts = split(list(range(23)), 2)  # twelve steps
    assert [part.step for part in parts] == [0, 2, 4, 6, 8, 10]
    assert [part.done for part in parts] == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6])
    assert [len(part.images) for part in parts] == [4, 4, 4, 4, 4, 3]


@pytest.mark.parametrize(("images", "step_images"), [(1, 1), (3, 1), (7, 2), (64, 16)])
def test_an_epoch_of_few_steps_has_a_part_a_step(images, step_images):
    steps = -(-images // step_images)
    parts = split(list(range(images)), step_images)
    assert [part.step for part in parts] == list(range(steps))
    assert [part.done for part in parts] == pytest.approx([i / steps for i in range(steps)])


def test_few_steps_are_said(capsys):
    note_short_epochs(80, 16, World())
    assert capsys.readouterr().err == ""
    note_short_epochs(64, 16, World())
    note_short_epochs(64, 16, World(1, 2))  # only the first rank speaks
    expected = "an epoch has 4 steps, fewer than 5: the adapters are tested before each of them"
    assert capsys.readouterr().err == f"note: {expected}\n"
