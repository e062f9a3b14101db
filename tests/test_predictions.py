"""Patch values of images whose numbers of patches differ are stored in one tensor."""

import pytest
import torch

from dataset.items import joined, padded
from mvfa.predictions import Predictions
from tests.conftest import released_scores


def empty(count: int) -> Predictions:
    return Predictions(released_scores(), 8, torch.zeros(count), [])


@pytest.mark.parametrize("sizes", [(3, 5, 2), (5, 3, 5), (2, 3, 5)])
def test_rows_grow_with_the_longest(sizes):
    """What follows a shorter row is zero, and earlier rows stay as they were."""
    made = empty(2 * len(sizes))
    parts = [torch.rand(2, size) + 1 for size in sizes]
    for i, values in enumerate(parts):
        made.members += [2 * i, 2 * i + 1]
        made.append("distance", values, 2 * len(sizes))
    longest = max(sizes)
    assert made.distance.shape == (2 * len(sizes), longest)
    for i, values in enumerate(parts):
        rows = made.distance[2 * i : 2 * i + 2]
        assert torch.equal(rows[:, : values.shape[1]], values)
        assert not rows[:, values.shape[1] :].any()


def test_rows_of_one_length_are_stored_as_they_are():
    made = empty(3)
    values = torch.rand(3, 2, 4)
    for i in range(3):
        made.members.append(i)
        made.append("logits", values[i : i + 1], 3)
        if i == 0:
            first = made.logits
    assert made.logits is first  # nothing is copied
    assert torch.equal(made.logits, values)


def test_shares_of_several_processes_are_joined():
    parts = [torch.ones(2, 1, 3), torch.full((1, 2, 2), 2.0)]
    whole = joined(parts)
    assert whole.tolist() == [
        [[1, 1, 1], [0, 0, 0]],
        [[1, 1, 1], [0, 0, 0]],
        [[2, 2, 0], [2, 2, 0]],
    ]
    assert padded(parts[0], (1, 3)) is parts[0]


def test_either_branch_gives_images_scores_of_their_own():
    made = empty(1)
    assert not made.has_scores
    made.members.append(0)
    made.append("memory_scores", torch.ones(1), 1)
    assert made.has_scores
