"""Zero-shot training set: the test splits of the other five objects (SPEC section 4)."""

from pathlib import Path

from dataset.catalog import BENCHMARK, ObjectInfo
from dataset.folder import ImageSet, list_split


def others(info: ObjectInfo) -> list[ObjectInfo]:
    """List the objects that a zero-shot model of `info` trains on: the benchmark's others."""
    return [other for other in BENCHMARK if other.name != info.name]


def zero_shot_set(data_path: Path, info: ObjectInfo, side: int) -> ImageSet:
    """Return the test images, with masks, of all benchmark objects but `info`.

    Images and masks are resized to side x side pixels. Raises UserError for the first missing
    folder.
    """
    records = [record for other in others(info) for record in list_split(data_path, other, "test")]
    return ImageSet(records, side)
