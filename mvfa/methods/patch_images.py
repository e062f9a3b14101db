"""Images of patch memory: own size, rotations, what DINOv2 reads (SPEC_patch_memory P2 and P4).

Letters: H and W height and width of an image in pixels, h and w its patches, K shots, S side of
masks.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet
from dataset.items import Item, pack_mask
from dataset.pixels import read_rgb
from dataset.shots import Shots
from errors import UserError
from mvfa.methods.dinov2 import PATCH
from mvfa.methods.patch_maps import resized

MEAN = (0.485, 0.456, 0.406)  # of DINOv2's training, for images in [0, 1]
STD = (0.229, 0.224, 0.225)
LONGEST = 16  # longer over shorter side of an image: 16,384 patches
ANGLES = range(45, 360, 45)  # degrees, of the rotated versions of a normal image


def pixels_of(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def checked_pixels(image: Image.Image, what: str) -> Tensor:
    """Return an RGB image, called `what` in messages, as uint8 [3, H, W].

    Raises UserError if its aspect would give it more patches than fit into memory.
    """
    if max(image.size) > LONGEST * min(image.size):
        width, height = image.size
        raise UserError(
            f"{what} has {width} x {height} pixels; allowed is a longer side of at most {LONGEST} "
            "times the shorter one, so crop it"
        )
    return pixels_of(image)


def rotated(image: Tensor, angle: float) -> Tensor:
    """Rotate an image, uint8 [3, H, W], about (W / 2, H / 2): bilinear, reflected at its edges."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()  # [H, W, 3]
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    turned = cv2.warpAffine(
        pixels,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return torch.from_numpy(turned).permute(2, 0, 1).contiguous()


def prepared(image: Tensor) -> Tensor:
    """Return an image, uint8 [3, H, W], as the backbone reads it: float32 [3, 14 h, 14 w].

    Pillow's bicubic filter to a shorter side of 448, the aspect kept; what is beyond a multiple of
    14 on the right and below is cut.
    """
    height, width = image.shape[1:]
    rows, columns = resized(height, width)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture = picture.resize((columns, rows), Image.Resampling.BICUBIC)
    pixels = pixels_of(picture).float() / 255
    mean = torch.tensor(MEAN)[:, None, None]
    std = torch.tensor(STD)[:, None, None]
    pixels = (pixels - mean) / std
    return pixels[:, : rows // PATCH * PATCH, : columns // PATCH * PATCH]


class NativeImages:
    """An image set whose images keep their own size: uint8 [3, H, W]. Masks are S x S."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.side = images.side
        self.labels = images.labels
        self.masked = images.masked
        self.nouns = images.nouns

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        record = self.images.records[index]
        picture = read_rgb(record.image, record.object.intensity)
        image = checked_pixels(picture, str(record.image))
        return Item(image, pack_mask(self.images.mask(index)), index)


class NormalShots:
    """The normal shots as they are and, if asked, rotated: an image set, version by version.

    Args:
        shots: whose abnormal images are not used.
        info: the object.
        side: S.
        angles: of the rotated versions, in degrees.

    Attributes:
        versions: of each shot.

    """

    def __init__(self, shots: Shots, info: ObjectInfo, side: int, angles: Sequence[int]) -> None:
        own = [
            checked_pixels(read_rgb(r.image, info.intensity), str(r.image)) for r in shots.normal
        ]
        turned = [rotated(image, angle) for angle in angles for image in own]
        self.images = [*own, *turned]  # (1 + angles) K times [3, H, W]
        self.side = side
        self.labels = torch.zeros(len(self.images))
        self.masked = torch.full((len(self.images),), info.masks)
        self.nouns = [info.noun] * len(self.images)
        self.versions = 1 + len(angles)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        empty = torch.zeros(self.side, self.side, dtype=torch.bool)
        return Item(self.images[index], pack_mask(empty), index)

    @property
    def normal(self) -> list[int]:
        """Indices of all versions."""
        return list(range(len(self)))

    @property
    def abnormal(self) -> list[int]:
        """Return none: abnormal shots are not used."""
        return []
