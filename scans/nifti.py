"""NIfTI files, and what else nibabel reads as a volume; maps written as NIfTI.

Nothing is resampled and no input is written again. Letters: I, J, K a volume's own indices.
"""

import gzip
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.extras import need
from dataset.layout import refuse_special
from dataset.wording import shortened
from errors import UserError
from scans.volume import MOST_VALUES, NIFTI, Volume, finite_values, ras
from utils import write_whole

EXTRA = "scans"
MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
OBLIQUE = 1.0  # degrees from which on it is said
FLAT = 1e-6  # of the product of the voxel's edges: a smaller volume has no geometry
PLACED = (  # fields of a NIfTI header that say where a volume lies
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
    "xyzt_units",
)
SCANNER = 1  # code of coordinates of the scanner
MOST_NIFTI1 = 32767  # indices along an axis
DESCRIPTION = b"MVFA anomaly map, research only"
COMPRESSION = 6
COMPRESSED = (".gz", ".mgz")
MOST_INFLATED = 1032  # bytes that one byte of gzip can stand for


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading a volume into UserError, and keep its warnings back."""
    refuse_special(path)
    logger = need("nibabel.imageglobals", EXTRA).logger
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # it prints what it corrects in a header
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # each format of nibabel has its own
        reason = shortened(error) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as a volume ({reason}); save it as NIfTI, or leave it out"
        ) from error
    finally:
        logger.setLevel(level)


def open_image(path: Path) -> Any:
    """Open a file with nibabel, its values unread. Raises UserError unless it is a volume."""
    nibabel = need("nibabel", EXTRA)
    with readable(path):
        image = nibabel.load(path)
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        raise UserError(
            f"{path} holds {type(image).__name__}, not voxels; allowed are volumes, so leave it out"
        )
    return image


def pick(path: Path, shape: tuple[int, ...], index: int | None) -> tuple[Any, ...]:
    """Return what to take of an array of a shape to get three axes. Raises UserError."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    many = shape[3] if len(shape) == 4 else 1
    shown = " x ".join(map(str, shape))
    if len(shape) > 4 or len(shape) < 2 or 0 in shape:
        raise UserError(f"{path} has the shape {shown}; allowed are 3 axes, or 4 with --volume")
    if len(shape) == 4 and index is None:
        raise UserError(
            f"{path} has the shape {shown}: {many} volumes; choose one by --volume N, N from 0 to "
            f"{many - 1}"
        )
    if index is not None and not 0 <= index < many:
        raise UserError(f"--volume {index}: {path} has {many}; allowed are 0 to {many - 1}")
    if math.prod(shape[:3]) > MOST_VALUES:
        raise UserError(f"{path} has {shown} voxels; at most {MOST_VALUES} are read: cut it up")
    return (..., index) if len(shape) == 4 else (...,)


def refuse_cut_off(path: Path, image: Any) -> None:
    """Raise UserError if the file of the voxels cannot hold as many bytes as its header states.

    nibabel takes memory for them before it reads any.
    """
    stored = image.dataobj
    if not isinstance(stored, need("nibabel.arrayproxy", EXTRA).ArrayProxy):
        return  # of MINC, which is read as it is asked for, and PAR/REC
    with readable(path):
        file = Path(stored.file_like)
        size = file.stat().st_size
        most = size * MOST_INFLATED if file.suffix in COMPRESSED else size
        needed = stored.offset + math.prod(map(int, stored.shape)) * stored.dtype.itemsize
    if needed > most:
        raise UserError(
            f"{path} is cut off, or its header is wrong: it states {needed} bytes, {file.name} has "
            f"{size}; copy it again or leave it out"
        )


def read_values(path: Path, image: Any, index: int | None) -> npt.NDArray[np.float32]:
    """Read the values of a volume, scaled as its header says: [I, J, K] float32. UserError."""
    with readable(path):
        stored = image.get_data_dtype()
        shape = tuple(int(size) for size in image.shape)
    if stored.kind not in "iuf":
        what = "colours (RGB)" if stored.names else str(stored)
        raise UserError(
            f"{path} has voxels of {what}; allowed are whole and floating-point numbers, so save "
            "one channel or the magnitude"
        )
    taken = pick(path, shape, index)
    refuse_cut_off(path, image)
    with readable(path):
        if len(taken) == 2:
            trailing = (0,) * (len(shape) - 4)
            values = np.asarray(image.dataobj[(..., taken[1], *trailing)], np.float32)
        else:
            values = np.asarray(image.dataobj, np.float32)
            values = values.reshape((*shape[:3], 1)[:3])
    return values


def placement(path: Path, image: Any) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the affine [4, 4] to millimetres in RAS, and notes on it. Raises UserError."""
    notes = []
    with readable(path):
        affine = np.asarray(image.affine, np.float64)
        if not has_volume(affine):
            affine = np.asarray(image.header.get_base_affine(), np.float64)
            notes.append("its header says nothing usable of its place; voxel sizes alone are used")
        units = getattr(image.header, "get_xyzt_units", lambda: ("mm", ""))()[0]
    if not has_volume(affine):
        raise UserError(f"{path} has voxels without a size; correct its header or leave it out")
    angle = obliquity(affine)
    if angle >= OBLIQUE:
        notes.append(f"oblique: its axes are turned {angle:.0f} degrees from the patient's")
    return np.diag([*[MILLIMETRES.get(units, 1.0)] * 3, 1.0]) @ affine, notes


def has_volume(affine: npt.NDArray[np.float64]) -> bool:
    """Return whether an affine [4, 4] is finite and gives voxels a volume."""
    if not np.isfinite(affine).all():
        return False
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(abs(np.linalg.det(affine[:3, :3])) > FLAT * np.prod(edges)) and edges.min() > 0


def obliquity(affine: npt.NDArray[np.float64]) -> float:
    """Return the largest angle, in degrees, between an index and the patient's nearest axis."""
    directions = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    return float(np.degrees(np.arccos(directions.max(axis=0).clip(0, 1))).max())


def stored_range(image: Any) -> tuple[float, float] | None:
    """Return the range of the stored type, scaled; None for floating point and odd scalings."""
    dtype = image.get_data_dtype()
    plain = type(image.dataobj) is need("nibabel.arrayproxy", EXTRA).ArrayProxy
    if dtype.kind == "f" or not plain:  # MINC, AFNI and PAR/REC scale slice by slice
        return None
    limits = np.iinfo(dtype)
    slope = float(image.dataobj.slope)
    ends = sorted(slope * float(limit) + image.dataobj.inter for limit in (limits.min, limits.max))
    return float(ends[0]), float(ends[1])


def read_nifti(path: Path, index: int | None = None) -> Volume:
    """Read a volume: NIfTI (.nii, .nii.gz, .hdr and .img), and what else nibabel reads as one.

    Args:
        path: the file.
        index: of a file of four axes, which volume, from 0; 0 or None for others.

    Returns:
        The volume in the file's own order of indices, scaled by the file's slope and intercept,
        its affine in LPS. NaN and infinite values are replaced, which a note says.

    Raises:
        UserError: the file is damaged, no volume, or of colours or complex numbers; four axes
            without `index`, or no such volume; no usable geometry.

    """
    image = open_image(path)
    values = read_values(path, image, index)
    affine, notes = placement(path, image)
    values, note = finite_values(path, values)
    full = stored_range(image)
    return Volume(
        values,
        ras(affine),
        NIFTI,
        (path,),
        full=full or (float(values.min()), float(values.max())),
        bits=8 * image.get_data_dtype().itemsize if full else 32,
        notes=(*notes, *([note] if note else [])),
    )


def map_header(volume: Volume, values: npt.NDArray[np.float32]) -> Any:
    """Return a header for a map of a volume, placed as the volume is.

    NIfTI-2 where the volume is, or too large for NIfTI-1.
    """
    nibabel = need("nibabel", EXTRA)
    source: Any = open_image(volume.paths[0]).header if volume.kind == NIFTI else None
    second = isinstance(source, nibabel.Nifti2Header) or max(values.shape) > MOST_NIFTI1
    header = nibabel.Nifti2Header() if second else nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(values.shape)
    header["descrip"] = DESCRIPTION
    affine = ras(volume.affine)
    if hasattr(source, "get_sform"):  # of NIfTI: bit for bit
        for field in PLACED:
            header[field] = source[field]
        header["pixdim"][:4] = source["pixdim"][:4]
        return header
    header.set_xyzt_units("mm")
    header.set_sform(affine, SCANNER)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    turned = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(turned.T @ turned, np.eye(3), atol=1e-4):  # a quaternion knows no shear
        header.set_qform(affine, SCANNER)
    return header


def write_map(path: Path, volume: Volume, values: npt.NDArray[np.float32]) -> None:
    """Write a map [I, J, K] of a volume as NIfTI float32, whole or not at all.

    It lies where the volume lies: of a NIfTI file with the same affine, codes and units, of others
    with the affine as scanner coordinates. The name ends with .nii or .nii.gz.
    """
    if values.shape != volume.shape:
        raise ValueError(f"a map of shape {values.shape} for a volume of {volume.shape}")
    nibabel = need("nibabel", EXTRA)
    header = map_header(volume, values)
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    image = kind(np.asarray(values, np.float32), None, header)
    data = image.to_bytes()
    if path.suffix == ".gz":
        data = gzip.compress(data, COMPRESSION, mtime=0)
    write_whole(path, partial(Path.write_bytes, data=data))
