"""Zero-shot training set: the test splits of the other five objects (SPEC section 4)."""

from pathlib import Path

from dataset.catalog import BENCHMARK, ObjectInfo
from dataset.folder import ImageSet, list_split


def others(info: ObjectInfo) -> list[ObjectInfo]:
    """The objects that a zero-shot model of `info` is trained on: those of the benchmark but itself."""
    return [other for other in BENCHMARK if other.name != info.name]


def zero_shot_set(data_path: Path, info: ObjectInfo, side: int) -> ImageSet:
    """Test images, masks included, of all objects but `info`. UserError names the first folder that is missing."""
    records = [record for other in others(info) for record in list_split(data_path, other, "test")]
    return ImageSet(records, side)
