"""Read a source: the RGB images that are scored, and where their maps belong.

Letters: n slices, H and W of an image, I, J, K of a volume.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.intensity import Intensity
from dataset.pixels import Pixels, dicom_pixels, pixels_to_rgb, read_pixels
from errors import UserError
from prediction.discovery import DICOM, IMAGE, SERIES, Source, kind_of
from prediction.options import PredictOptions
from scans.volume import Slices, Volume, slice_pixels

READERS = ("pydicom", "highdicom", "nibabel", "PIL")

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Loaded:
    """A source as it is scored.

    Args:
        images: RGB, one for an image, one for each scored slice of a volume.
        numbers: the slices' numbers, from 0; None for an image.
        volume: the volume; None for an image.
        place: puts maps [n, H, W] of the slices back: [I, J, K] float32, NaN where nothing was
            scored; None for an image.
        notes: what is to be said about it.
        wide: whether its values were scaled to 8 bit.
        fingerprint: of its files, from before they were read; None where it is not needed.

    """

    images: list[Image.Image]
    numbers: list[int] | None = None
    volume: Volume | None = None
    place: Callable[[Maps], Maps] | None = None
    notes: tuple[str, ...] = ()
    wide: bool = False
    fingerprint: str | None = None


@dataclass(frozen=True)
class Reading:
    """How sources are read: the flags, with what the detector says where they say nothing."""

    intensity: Intensity
    window: tuple[float, float] | None  # low and high
    prepare: str
    liver_mask: Path | None
    axis: str | None
    index: int | None
    slices: tuple[int, int] | None

    @classmethod
    def of(cls, options: PredictOptions, trained: Intensity, prepare: str) -> "Reading":
        """Return how files are read for a detector of an intensity and a preparation."""
        window = None
        if options.window is not None:
            from dataset.dicom import window_range

            window = window_range(*options.window)
        return cls(
            intensity=options.intensity or trained,
            window=window,
            prepare=options.prepare or prepare,
            liver_mask=options.liver_mask,
            axis=options.axis,
            index=options.volume,
            slices=options.slices,
        )


def quiet_readers() -> None:
    """Keep back what the packages that read files print: a file that fails is one line here.

    For the whole process, since the readers' own settings are not safe in threads.
    """
    for package in READERS:
        for category in (UserWarning, RuntimeWarning):
            warnings.filterwarnings("ignore", category=category, module=package)
        logging.getLogger(package).setLevel(logging.CRITICAL + 1)


def windowed(pixels: Pixels, window: tuple[float, float] | None) -> Pixels:
    """Return pixels with another window than the file's, if one is given."""
    return pixels if window is None else replace(pixels, window=window)


def used_intensity(reading: Reading) -> Intensity:
    """Return how values become 8 bit: a window that is given comes before anything else."""
    return Intensity("range", *reading.window) if reading.window else reading.intensity


def file_pixels(path: Path) -> Pixels:
    """Read the pixels of an image file; a DICOM file is known by its content, too. UserError."""
    return dicom_pixels(path) if kind_of(path) == DICOM else read_pixels(path)


def read_image(path: Path, reading: Reading) -> Loaded:
    """Read an image file. Raises UserError."""
    pixels = windowed(file_pixels(path), reading.window)
    image = pixels_to_rgb(pixels, used_intensity(reading))
    return Loaded([image], wide=pixels.wide)


def read_volume(source: Source, reading: Reading) -> Volume:
    """Read a volume or a DICOM series. Raises UserError."""
    if source.kind == SERIES:
        from scans.series import read_series

        return read_series(source.paths)
    from scans.nifti import read_nifti

    return read_nifti(source.paths[0], reading.index)


def prepared_slices(volume: Volume, reading: Reading) -> Loaded:
    """Return the slices of a volume as BMAD's were made. Raises UserError."""
    from scans.nifti import read_nifti
    from scans.preparation import Prepared

    mask = None if reading.liver_mask is None else read_nifti(reading.liver_mask)
    prepared = Prepared(reading.prepare, volume, liver_mask=mask, slices=reading.slices)
    return Loaded(
        images=[Image.fromarray(prepared[k]) for k in range(len(prepared))],
        numbers=list(prepared.indices),
        volume=volume,
        place=prepared.place,
        notes=(*volume.notes, *prepared.notes),
        wide=True,
    )


def plain_slices(volume: Volume, reading: Reading) -> Loaded:
    """Return the slices of a volume along an axis, but those of one value. Raises UserError."""
    slices = Slices(volume, reading.axis)
    first, last = reading.slices or (0, len(slices) - 1)
    if last >= len(slices):
        raise UserError(
            f"--slices {first}:{last}: {volume.paths[0]} has {len(slices)} slices, 0 to "
            f"{len(slices) - 1}"
        )
    numbers = []
    images = []
    wide = False
    for k in range(first, last + 1):
        pixels = windowed(slice_pixels(volume, slices, k), reading.window)
        if pixels.values.min() == pixels.values.max():
            continue
        wide = wide or pixels.wide
        numbers.append(k)
        images.append(pixels_to_rgb(pixels, used_intensity(reading)))
    flat = last + 1 - first - len(numbers)
    notes = volume.notes
    if flat:
        notes = (*notes, f"{flat} of {last + 1 - first} slices are of one value and not scored")

    def place(maps: Maps) -> Maps:
        whole = np.full((len(slices), *maps.shape[1:]), np.nan, np.float32)
        whole[numbers] = maps
        return slices.place(whole)

    return Loaded(images, numbers, volume, place, notes, wide)


def load(source: Source, reading: Reading) -> Loaded:
    """Read a source. Raises UserError if it cannot be read or has nothing to score."""
    if source.kind == IMAGE:
        return read_image(source.paths[0], reading)
    volume = read_volume(source, reading)
    loaded = (
        plain_slices(volume, reading)
        if reading.prepare == "none"
        else prepared_slices(volume, reading)
    )
    if not loaded.images:
        raise UserError(f"{source.paths[0]} has no slice to score: each is of one value")
    return loaded
