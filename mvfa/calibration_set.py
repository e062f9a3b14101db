"""The images that scores are calibrated with (docs/calibration.md).

A folder of normal images that the user gives; else the images of `valid/` that are no shots; else
the normal shots, each left out of the memory bank in turn.

Letters: K normal shots, L levels, M rows of the memory bank, R rows of one image, S image side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataset.cases import listed_cases
from dataset.catalog import ObjectInfo
from dataset.folder import ImageSet, Record, list_split
from dataset.layout import LABELS, image_folder, list_images
from dataset.shots import Shots
from errors import UserError
from mvfa.calibration import LEFT_OUT, NORMALS, VALID
from mvfa.distributed import World
from mvfa.inputs import check_images, note_wide_images
from mvfa.options import Options

VERSIONS = 11  # augmented versions of a shot (SPEC section 4)


@dataclass(frozen=True)
class CalibrationSet:
    """Images with labels, in a form that scores them one by one.

    Args:
        images: the images.
        source: where they are from, a key of `mvfa.calibration.SOURCES`.
        bank: of LEFT_OUT the memory bank of all of them, see `leave_one_out`.

    """

    images: ImageSet
    source: str
    bank: Sequence[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def banks(self) -> Iterator[list[Tensor] | None]:
        """Yield the memory bank of each image; None: that of the model."""
        if self.source != LEFT_OUT:
            yield from [None] * len(self)
            return
        assert self.bank is not None, "shots are left out of a memory bank"
        yield from leave_one_out(self.bank, len(self))

    def __iter__(self) -> Iterator[tuple[Tensor, list[Tensor] | None]]:
        """Yield images [3, S, S] uint8 and their banks."""
        for index, bank in enumerate(self.banks()):
            yield self.images[index].image, bank

    @property
    def names(self) -> list[str]:
        """File names of the images, which may show cases."""
        return [record.name for record in self.images.records]

    @property
    def cases(self) -> list[str | None]:
        """Cases of the images by the object's cases.csv; None where it does not list one."""
        if self.source == NORMALS:
            return [None] * len(self)  # images from outside the object's folder
        folder = self.images.records[0].top
        listed = listed_cases(self.images.records, folder)
        return [listed.get(record.image) for record in self.images.records]

    @property
    def labels(self) -> list[int]:
        """Labels of the images, 1 abnormal."""
        return [record.label for record in self.images.records]


def valid_records(options: Options, target: ObjectInfo, shots: Shots) -> list[Record]:
    """Return the images of `valid/` that are no shots, with whatever labels there are."""
    folders = [image_folder(options.data_path, target.name, "valid", s) for s in LABELS]
    if not any(list_images(folder) for folder in folders):
        return []
    taken = {record.image for record in (*shots.normal, *shots.abnormal)}
    records = list_split(options.data_path, target, "valid")
    return [record for record in records if record.image not in taken]


def folder_records(folder: Path, target: ObjectInfo) -> list[Record]:
    """Return the images of a folder of normal images. Raises UserError if there are none."""
    records = [Record(folder, path.name, None, 0, target) for path in list_images(folder)]
    if not records:
        raise UserError(f"--normals {folder}: no images there; name a folder of normal images")
    return records


def calibration_images(
    options: Options, target: ObjectInfo, shots: Shots, world: World, *, any_label: bool = False
) -> tuple[ImageSet, str] | None:
    """Return the images to calibrate with, checked, and where they are from (C1).

    Normal images must be among those of `valid/`, unless `any_label`. None if there are neither
    images nor two normal shots, of which one can be left out. Raises UserError for an image that
    cannot be used.
    """
    if options.normals is not None:
        records = folder_records(options.normals, target)
        source = NORMALS
    else:
        records = valid_records(options, target, shots)
        source = VALID
        if not any(any_label or record.label == 0 for record in records):
            left_out = ImageSet(list(shots.normal), options.img_size)  # checked by `load_shots`
            return (left_out, LEFT_OUT) if len(left_out) > 1 else None
    images = ImageSet(records, options.img_size)
    check_images(images, "images to calibrate with", world)
    if images.wide_images:
        note_wide_images(images, "images to calibrate with", world)
    return images, source


def in_image_order(
    bank: Sequence[Tensor], images: int, size: int, world: World
) -> Sequence[Tensor]:
    """Return a memory bank that several processes built, its rows in the order of the images.

    bank: L times [M, E], as `build_memory` returns it for `images` images, `size` at a time.
    """
    if world.size == 1:
        return bank
    ranks = [World(rank, world.size) for rank in range(world.size)]
    members = [i for rank in ranks for own, _ in rank.share(range(images), size) for i in own]
    order = torch.tensor(members).argsort().to(bank[0].device)
    return [rows.unflatten(0, (images, -1))[order].flatten(0, 1) for rows in bank]


def leave_one_out(bank: Sequence[Tensor], shots: int) -> Iterator[list[Tensor]]:
    """Yield, for each of K shots, the memory bank without the shot's augmented versions.

    bank: L times [M, E] of all K shots, M = 11 K R, version by version as `utils.augment` orders
    them.
    """
    for left_out in range(shots):
        kept = [shot for shot in range(shots) if shot != left_out]
        # [M, E] -> [11, K, R, E] -> [11 (K - 1) R, E]
        yield [rows.unflatten(0, (VERSIONS, shots, -1))[:, kept].flatten(0, 2) for rows in bank]


def calibration_set(
    options: Options,
    target: ObjectInfo,
    shots: Shots,
    bank: Sequence[Tensor] | None,
    world: World,
) -> CalibrationSet:
    """Return the images to calibrate a detector with. Raises UserError if there are none."""
    found = calibration_images(options, target, shots, world)
    if found is None:
        raise UserError(
            f"nothing to calibrate with: valid/ of {target.name} has no normal images that are no "
            "shots; pass --normals DIR, a folder of normal images"
        )
    images, source = found
    return CalibrationSet(images, source, bank if source == LEFT_OUT else None)
