"""The sixteen versions of MadCLIP's shots.

Letters: K shots of a group, C channels, S image side in pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils import augment

ZOOMS = (1.1, 1.15, 1.2, 1.3)
JITTER = 0.2  # brightness and contrast factors are drawn from 1 - JITTER to 1 + JITTER
BEFORE = 9  # versions of `utils.augment` before zooms and jitter; the mirrored ones come last


def zoom(images: Tensor, factor: float) -> Tensor:
    """Enlarge the middle of images [K, C, S, S], bilinear, corners not aligned; same shape."""
    height, width = images.shape[-2:]
    rows = int(height / factor)
    columns = int(width / factor)
    middle = images[
        ...,
        (height - rows) // 2 : (height + rows) // 2,
        (width - columns) // 2 : (width + columns) // 2,
    ]
    return F.interpolate(middle, size=(height, width), mode="bilinear", align_corners=False)


def jitter(images: Tensor, brightness: float, contrast: float) -> Tensor:
    """Change brightness and contrast of images [K, 3, S, S] in [0, 1]; same shape and range.

    The mean that contrast keeps is that of each image's column, over channels and rows: the
    released code takes a group of images for one image.
    """
    brighter = images * brightness
    mean = brighter.mean(dim=(1, 2), keepdim=True)  # [K, 1, 1, S]
    return ((brighter - mean) * contrast + mean).clamp(0, 1)


def versions(values: Tensor, jittered: Tensor) -> Tensor:
    """Return sixteen versions of each image or mask: [K, C, S, S] float -> [16 K, C, S, S].

    Version by version: as is, four rotations, four shifts, four zooms, `jittered` [K, C, S, S],
    mirrored left-right, upside-down.
    """
    warped = augment(values)  # [11 K, C, S, S]
    before, mirrored = warped.tensor_split([BEFORE * len(values)])
    return torch.cat([before, *(zoom(values, factor) for factor in ZOOMS), jittered, mirrored])


class MadclipVersions:
    """Versions of a group of shots and their masks; each call draws one pair of jitter factors.

    Attributes:
        factors: of the last call: brightness and contrast.

    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.factors = (1.0, 1.0)

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return versions of images [K, 3, S, S] and grey masks [K, S, S], float32 in [0, 1].

        They are [16 K, 3, S, S] and [16 K, S, S]; jitter changes no mask.
        """
        self.factors = (self.draw(), self.draw())
        grey = masks[:, None]  # [K, 1, S, S]
        return versions(images, jitter(images, *self.factors)), versions(grey, grey)[:, 0]

    def draw(self) -> float:
        """Draw a factor."""
        return (1 + torch.rand(1, generator=self.generator) * (2 * JITTER) - JITTER).item()
