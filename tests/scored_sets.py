"""Scores and labels, and pixel scores and masks, that tests of metrics share."""

import torch

from mvfa.details import region_weights
from mvfa.histograms import Histogram, StreamingHistogram


def scored_sets() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return scores and labels: smooth, with ties, constant, in half precision, separable."""
    g = torch.Generator().manual_seed(3)
    labels = torch.rand(400, generator=g) < 0.3
    smooth = torch.rand(400, generator=g)
    return {
        "smooth": (smooth, labels),
        "ties": ((smooth * 7).round() / 7, labels),
        "constant": (torch.full((400,), 0.5), labels),
        "half": (smooth.half(), labels),
        "separable": (labels.float(), labels),
    }


def pixel_scores(kind: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores [12, 32, 32] in [0, 1] and masks of a few blobs, some images without any."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(12, 32, 32, generator=g)
    smooth = torch.nn.functional.avg_pool2d(noise[:, None], 7, 1, 3)[:, 0]
    masks = smooth > 0.25
    masks[:4] = False
    scores = (0.5 * smooth + 0.15 * torch.randn(12, 32, 32, generator=g) + 0.4).clamp(0, 1)
    return ((scores * 9).round() / 9 if kind == "tied" else scores), masks


def pixel_histogram(scores: torch.Tensor, masks: torch.Tensor, limit: int) -> Histogram:
    """Return the streaming histogram of pixels, which arrive three images at a time."""
    streaming = StreamingHistogram(exact_limit=limit)
    for s, m in zip(scores.split(3), masks.split(3), strict=True):
        streaming.update(s, m, region_weights(m))
    return streaming.histogram()


def scored_cases(kind: str) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return scores [60] and labels of six cases, unequal in size; one has every abnormal image."""
    g = torch.Generator().manual_seed(11)
    cases = [
        case
        for case, count in zip("fbadce", (20, 4, 10, 6, 12, 8), strict=True)
        for _ in range(count)
    ]
    labels = torch.tensor([case == "f" for case in cases]) & (torch.rand(60, generator=g) < 0.7)
    scores = torch.rand(60, generator=g) + 0.4 * labels
    return ((scores * 6).round() / 6 if kind == "tied" else scores), labels, cases
