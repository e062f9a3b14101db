"""Zero-shot training set: the test splits of other objects (SPEC section 4)."""

from collections.abc import Sequence
from pathlib import Path

from dataset.catalog import BENCHMARK, ObjectInfo
from dataset.folder import ImageSet, list_split
from dataset.image_cache import ImageCache


def others(name: str) -> list[ObjectInfo]:
    """List the objects that a zero-shot model of an object trains on: the benchmark's others."""
    return [other for other in BENCHMARK if other.name != name]


def zero_shot_set(
    data_path: Path, objects: Sequence[ObjectInfo], side: int, cache: ImageCache | None = None
) -> ImageSet:
    """Return the test images, with masks, of some objects, in their order.

    Images and masks are resized to side x side pixels. Raises UserError for the first missing
    folder.
    """
    records = [record for info in objects for record in list_split(data_path, info, "test")]
    return ImageSet(records, side, cache)
