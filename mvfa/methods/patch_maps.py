"""Distances of patches to maps and scores, of images that keep their aspect (SPEC_patch_memory P4).

A map is interpolated from the patches to the image's own size and smoothed there. Both are linear
and separable, and so is the resampling to the side at which masks are counted: a map is A_h d A_w^T
with one matrix a side. Letters: B images, H and W height and width of an image in pixels, h and w
its patches, R the most patches of one, S side of a map.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from mvfa.methods.dinov2 import PATCH
from mvfa.score_form import ScoreForm

SHORT_SIDE = 448  # pixels of an image as the backbone reads it
SIGMA = 4.0  # of the Gaussian, in pixels of the image's own size
TRUNCATE = 4.0  # sigmas
MATRICES = 256  # that are cached: one a length of a side, below 1 MB each
TOP_SHARE = 0.01  # of an image's patches: the mean of the largest distances is its score


def resized(height: int, width: int) -> tuple[int, int]:
    """Return height and width as the backbone reads an image: the shorter is SHORT_SIDE."""
    if height <= width:
        return SHORT_SIDE, int(SHORT_SIDE * width / height)
    return int(SHORT_SIDE * height / width), SHORT_SIDE


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Return the patches of an image H x W: h, w. What is left on the right and below is cut."""
    rows, columns = resized(height, width)
    return rows // PATCH, columns // PATCH


def linear_weights(points: int, size: int) -> Tensor:
    """Return the weights [size, points] of linear interpolation, corners not aligned, float64."""
    unit = torch.eye(points, dtype=torch.float64)
    weights = F.interpolate(unit[None], size=size, mode="linear", align_corners=False)[0]
    return weights.T  # [points, size] -> [size, points]


@lru_cache(maxsize=MATRICES)
def side_matrix(patches: int, pixels: int, side: int) -> Tensor:
    """Return the matrix [S, n] from n patches along a side of an image to S points of its map.

    Linear interpolation to the image's own `pixels`, the Gaussian, then, if S differs, linear
    interpolation to S without antialiasing: the map is smooth.
    """
    smooth = torch.from_numpy(
        gaussian_filter1d(
            linear_weights(patches, pixels).numpy(),
            SIGMA,
            axis=0,
            mode="reflect",
            truncate=TRUNCATE,
        )
    )  # [pixels, n]
    matrix = smooth if side == pixels else linear_weights(pixels, side) @ smooth
    return matrix.float()


def one_map(distance: Tensor, height: int, width: int, size: tuple[int, int]) -> Tensor:
    """Return maps of images H x W: distances [B, h * w] -> [B, *size]; their own size is (H, W)."""
    h, w = grid_of(height, width)
    down = side_matrix(h, height, size[0]).to(distance.device)  # [S, h]
    across = side_matrix(w, width, size[1]).to(distance.device)  # [S, w]
    return down @ distance.float().unflatten(-1, (h, w)) @ across.T


class PatchForm(ScoreForm):
    """Maps and scores of distances [B, R] whose rows end at the patches of their image."""

    def memory_map(self, distance: Tensor, sizes: Tensor | None, side: int) -> Tensor:
        """Return maps: distances [B, R] of images of `sizes` [B, 2], H and W -> [B, S, S]."""
        assert sizes is not None, "maps need the images' sizes"
        maps = distance.new_empty(len(distance), side, side, dtype=torch.float32)
        for height, width in sizes.long().unique(dim=0).tolist():
            rows = (sizes == sizes.new_tensor([height, width])).all(dim=1)
            h, w = grid_of(height, width)
            maps[rows] = one_map(distance[rows, : h * w], height, width, (side, side))
        return maps

    def memory_score(self, distance: Tensor, sizes: Tensor | None, side: int) -> Tensor:  # noqa: ARG002
        """Return the mean of the largest hundredth of each image's distances: [B, R] -> [B]."""
        assert sizes is not None, "scores need the images' sizes"
        scores = []
        for own, (height, width) in zip(distance, sizes.long().tolist(), strict=True):
            h, w = grid_of(height, width)
            largest = max(1, int(TOP_SHARE * h * w))
            scores.append(own[: h * w].topk(largest).values.mean())
        return torch.stack(scores)
