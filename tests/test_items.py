"""Masks are packed and unpacked without loss."""

import pytest
import torch

from dataset.items import pack_mask, unpack_masks


@pytest.mark.parametrize("side", [7, 32])
def test_masks_are_packed_without_loss(side):
    masks = torch.rand(3, side, side) < 0.3
    assert torch.equal(unpack_masks([pack_mask(m) for m in masks], side), masks)


def test_a_packed_mask_is_small():
    mask = torch.zeros(240, 240, dtype=torch.bool)
    mask[60:120, 80:160] = True
    assert len(pack_mask(mask)) < 1_000
