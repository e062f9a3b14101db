"""The images that scores are calibrated with (docs/calibration.md).

A folder of normal images that the user gives; else the images of `valid/` that are no shots; else
the normal shots, each left out of the memory bank in turn.

Letters: K normal shots, L levels, M rows of the memory bank, S image side.
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
from dataset.medical_few import SupportSource
from dataset.shots import Shots
from errors import UserError
from mvfa.calibration import LEFT_OUT, NORMALS, VALID
from mvfa.distributed import World
from mvfa.inputs import check_images, image_cache, note_wide_images
from mvfa.methods.base import Method
from mvfa.options import Options


@dataclass(frozen=True)
class CalibrationSet:
    """Images with labels, in a form that scores them one by one.

    Args:
        images: the images.
        source: where they are from, a key of `mvfa.calibration.SOURCES`.
        bank: of LEFT_OUT the memory bank of all of them, see `leave_one_out`.
        owners: of LEFT_OUT which shot each row of the bank is of, [M].

    """

    images: ImageSet
    source: str
    bank: Sequence[Tensor] | None = None
    owners: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def banks(self) -> Iterator[list[Tensor] | None]:
        """Yield the memory bank of each image; None: that of the model."""
        if self.source != LEFT_OUT:
            yield from [None] * len(self)
            return
        assert self.bank is not None, "shots are left out of a memory bank"
        assert self.owners is not None
        yield from leave_one_out(self.bank, self.owners, len(self))

    def pairs(self, method: Method) -> Iterator[tuple[Tensor, list[Tensor] | None]]:
        """Yield images, uint8 [3, S, S] or as the method reads them, and their banks."""
        images = method.source(self.images)
        for index, bank in enumerate(self.banks()):
            yield images[index].image, bank

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
    options: Options,
    target: ObjectInfo,
    shots: Shots,
    world: World,
    *,
    any_label: bool = False,
    memory: bool = True,
) -> tuple[ImageSet, str] | None:
    """Return the images to calibrate with, checked, and where they are from (C1).

    Normal images must be among those of `valid/`, unless `any_label`. None if there are neither
    images nor two normal shots, of which one can be left out of the method's `memory`. Raises
    UserError for an image that cannot be used.
    """
    if options.normals is not None:
        records = folder_records(options.normals, target)
        source = NORMALS
    else:
        records = valid_records(options, target, shots)
        source = VALID
        if not any(any_label or record.label == 0 for record in records):
            left_out = ImageSet(list(shots.normal), options.img_size)  # checked by `load_shots`
            return (left_out, LEFT_OUT) if memory and len(left_out) > 1 else None
    images = ImageSet(records, options.img_size, image_cache(options))
    check_images(images, "images to calibrate with", world)
    if images.wide_images:
        note_wide_images(images, "images to calibrate with", world)
    return images, source


def shot_of_rows(
    method: Method, images: SupportSource, shots: int, size: int, world: World
) -> Tensor:
    """Return which of K normal shots each row of a memory bank is of: [M], in the bank's order.

    images: all versions of the shots, version by version; the bank was built by `world.size`
    processes, `size` images at a time, as `build_memory` does.
    """
    ranks = [World(rank, world.size) for rank in range(world.size)]
    order = [i for rank in ranks for own, _ in rank.share(images.normal, size) for i in own]
    counts = torch.tensor([method.bank_rows(images[i].image) for i in order])
    first = min(images.normal)
    owners = torch.tensor([(i - first) % shots for i in order])
    return owners.repeat_interleave(counts)


def leave_one_out(bank: Sequence[Tensor], owners: Tensor, shots: int) -> Iterator[list[Tensor]]:
    """Yield, for each of K shots, the memory bank without the rows of the shot's versions.

    bank: L times [M, E] of all K shots; owners [M]: of `shot_of_rows`.
    """
    for left_out in range(shots):
        kept = owners != left_out
        yield [rows[kept.to(rows.device)] for rows in bank]


def calibration_set(
    options: Options,
    target: ObjectInfo,
    shots: Shots,
    bank: Sequence[Tensor] | None,
    owners: Tensor | None,
    world: World,
) -> CalibrationSet:
    """Return the images to calibrate a detector with. Raises UserError if there are none."""
    found = calibration_images(options, target, shots, world, memory=bank is not None)
    if found is None:
        raise UserError(
            f"nothing to calibrate with: valid/ of {target.name} has no normal images that are no "
            "shots; pass --normals DIR, a folder of normal images"
        )
    images, source = found
    if source == LEFT_OUT:
        return CalibrationSet(images, source, bank, owners)
    return CalibrationSet(images, source)
