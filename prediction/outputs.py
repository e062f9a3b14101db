"""Write what belongs to one source: overlay, maps in its own geometry, DICOM objects."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from errors import UserError
from mvfa.detector import Detector
from mvfa.detector_result import Result
from prediction.discovery import Source
from prediction.options import PredictOptions
from prediction.reading import Loaded
from prediction.run_folder import DICOM, MAPS, OVERLAYS
from utils import write_whole

JPEG_QUALITY = 90
ZIP_QUALITY = 65557  # libtiff's name for the level of deflate; it is not written to the file
OFFSETS = 273  # tag: where each strip begins
LENGTHS = 279  # tag: its bytes
REMARK = "MVFA anomaly map, research only, not for clinical use"


def jpeg(image: Image.Image) -> bytes:
    """Return an image as a JPEG file that says it is for research only."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, comment=REMARK)
    return file.getvalue()


def tiff(values: npt.NDArray[np.float32]) -> bytes:
    """Return a map [H, W] float32 as a TIFF file; equal maps give equal files.

    In memory: to a file libtiff would print lines of its own on a full disk. There it leaves a byte
    of no meaning after the last strip if that ends at an odd place; it is set to 0.
    """
    file = io.BytesIO()
    Image.fromarray(values).save(
        file,
        "TIFF",
        compression="tiff_adobe_deflate",
        tiffinfo={ZIP_QUALITY: 1},  # two thirds of the time, and the same size
        description=REMARK,
    )
    file.seek(0)
    tags = TiffImageFile(file).tag_v2
    end = max(map(sum, zip(tags[OFFSETS], tags[LENGTHS], strict=True)))
    data = bytearray(file.getvalue())
    if end % 2:
        data[end] = 0
    return bytes(data)


def save_tiff(path: Path, values: npt.NDArray[np.float32]) -> None:
    """Write a map [H, W] float32 to a TIFF file; equal maps give equal files."""
    write_bytes(path, tiff(values))


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file, whole or not at all; the run's log, written after it, flushes its name."""
    write_whole(path, partial(Path.write_bytes, data=data), flush_folder=False)
    return path


def write_outputs(
    source: Source,
    loaded: Loaded,
    results: Sequence[Result],
    options: PredictOptions,
    detector: Detector,
) -> list[str]:
    """Write the files of a scored source; return remarks on what could not be written."""
    name = source.name
    if options.overlays:
        best = max(range(len(results)), key=lambda k: results[k].score)
        write_bytes(options.out / OVERLAYS / f"{name}.jpg", jpeg(results[best].overlay()))
    if options.maps:
        write_maps(options.out / MAPS, name, loaded, results)
    if options.dicom_out:
        return write_dicom_objects(source, loaded, results, options, detector)
    return []


def stacked(results: Sequence[Result]) -> npt.NDArray[np.float32]:
    """Return the maps [n, H, W] float32 of the slices of a volume."""
    return np.stack([result.map for result in results])


def write_maps(folder: Path, name: str, loaded: Loaded, results: Sequence[Result]) -> None:
    """Write a TIFF file of an image's size, or a NIfTI file in a volume's geometry."""
    if loaded.volume is None or loaded.place is None:
        save_tiff(folder / f"{name}.tif", results[0].map)
        return
    from scans.nifti import write_map

    path = folder / name / "map.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_map(path, loaded.volume, loaded.place(stacked(results)))


def write_dicom_objects(
    source: Source,
    loaded: Loaded,
    results: Sequence[Result],
    options: PredictOptions,
    detector: Detector,
) -> list[str]:
    """Write DICOM objects beside a DICOM source; return why, where there are none."""
    from dataset.dicom import is_dicom

    if not is_dicom(source.paths[0]):
        return ["--dicom_out: not a DICOM file"]
    from prediction.dicom_frames import frames_of
    from scans.dicom_out import write_dicom

    try:
        maps, above, overlays = frames_of(loaded, results)
        write_dicom(
            options.out / DICOM / source.name,
            options.dicom_out,
            source.paths if loaded.volume is None else loaded.volume.paths,
            maps,
            above,
            overlays,
            text=f"{detector.settings.object}, score {max(r.score for r in results):.4f}, "
            f"threshold {results[0].threshold:.4f}",
            frames=() if loaded.volume is None else loaded.volume.frames,
        )
    except UserError as error:
        return [str(error)]
    return []
