"""DICOM objects of a scored scan: segmentation, parametric map and secondary captures.

They are written with highdicom, refer to the scan that they were made of and lie on its frames. All
have new UIDs, belong to the scan's study and patient, and say that they are for research only.

Letters: F frames of a scan, H rows and W columns.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.extras import need
from errors import UserError
from scans.dicom_source import Source, read_source
from utils import write_whole

EXTRA = "scans"
MANUFACTURER = "MVFA"
DESCRIPTIONS = {
    "seg": "MVFA anomaly segmentation, RESEARCH ONLY",
    "pm": "MVFA anomaly map, RESEARCH ONLY",
    "sc": "MVFA anomaly overlay, RESEARCH ONLY",
}
NAMES = {"seg": "segmentation (SEG)", "pm": "parametric map", "sc": "secondary capture"}
SERIES = {"seg": 9101, "pm": 9102, "sc": 9103}  # numbers of the new series
REMARK = "Research only, not for clinical use."
MARK = "RESEARCH ONLY"  # drawn on overlays
SMALLEST_MARKED = 96  # pixels of width from which on the mark fits
LONGEST = 64  # characters of a DICOM long string
REFUSALS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # of highdicom

Maps = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Colours = npt.NDArray[np.uint8]


def equipment(kind: str) -> dict[str, Any]:
    """Return what every new object says about its series and what made it."""
    uid = need("highdicom", EXTRA).UID
    return {
        "series_instance_uid": uid(),
        "series_number": SERIES[kind],
        "series_description": DESCRIPTIONS[kind],
        "content_qualification": "RESEARCH",
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "MVFA, research software",
        "software_versions": "MVFA",
        "device_serial_number": "none",
    }


def segmentation(source: Source, above: Mask, text: str) -> Any:
    """Return a binary segmentation with one segment; empty frames are kept.

    above: [F, H, W], what is above the threshold. Raises ValueError for several frames without a
    position.
    """
    if source.count > 1 and not source.is_placed:
        raise ValueError("its frames have no position in the patient")
    highdicom = need("highdicom", EXTRA)
    codes = need("pydicom.sr.codedict", EXTRA).codes
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MANUFACTURER,
        family=codes.DCM.ArtificialIntelligence,
        version="research",
        parameters={"result": text},
    )
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="anomaly, RESEARCH ONLY",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
    return highdicom.seg.Segmentation(
        source_images=source.datasets,
        pixel_array=above,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        omit_empty_frames=False,
        content_label="ANOMALY",
        content_description=text[:LONGEST],
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        **equipment("seg"),
    )


def parametric_map(source: Source, maps: Maps, text: str) -> Any:
    """Return the maps [F, H, W] as a parametric map of float32, of no unit.

    Raises ValueError for frames without a position: highdicom makes none of them.
    """
    if not source.is_placed:
        raise ValueError("it has no position in the patient")
    highdicom = need("highdicom", EXTRA)
    codes = need("pydicom.sr.codedict", EXTRA).codes
    low = float(maps.min())
    high = max(float(maps.max()), low + 1e-6)
    meaning = highdicom.pm.RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="anomaly map, higher is more abnormal",
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
    )
    shown = highdicom.VOILUTTransformation(window_center=(low + high) / 2, window_width=high - low)
    return highdicom.pm.ParametricMap(
        source_images=source.datasets,
        pixel_array=maps,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[meaning],
        voi_lut_transformations=[shown],
        content_label="ANOMALY",
        content_description=text[:LONGEST],
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        **equipment("pm"),
    )


def marked(colours: Colours) -> Colours:
    """Return an overlay [H, W, 3] with "RESEARCH ONLY" in its lower left corner, if it fits."""
    from PIL import Image, ImageDraw

    height, width = colours.shape[:2]
    if width < SMALLEST_MARKED:
        return colours
    image = Image.fromarray(colours)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = pen.textbbox((0, 0), MARK)
    high = bottom - top + 4
    pen.rectangle((0, height - high, right - left + 4, height), fill=(0, 0, 0))
    pen.text((2 - left, height - high + 2 - top), MARK, fill=(255, 255, 255))
    return np.asarray(image)


def secondary_capture(
    source: Source, frame: int, colours: Colours, text: str, about: dict[str, Any]
) -> Any:
    """Return an overlay [H, W, 3] of a frame as a secondary capture, placed as the frame is."""
    highdicom = need("highdicom", EXTRA)
    new = highdicom.sc.SCImage.from_ref_dataset(
        ref_dataset=source.datasets[0],
        pixel_array=np.ascontiguousarray(marked(colours)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),  # until the source's is set
        transfer_syntax_uid="1.2.840.10008.1.2.1",  # explicit VR, little endian
        sop_instance_uid=highdicom.UID(),
        instance_number=frame + 1,
        **about,
    )
    new.PatientOrientation = source.patient_orientation(frame)
    for keyword, value in source.placement(frame).items():
        setattr(new, keyword, value)
    new.SourceImageSequence = [source.reference(frame)]
    new.DerivationDescription = f"Anomaly map over the image. {REMARK}"
    new.ImageComments = text
    return new


def captures(source: Source, overlays: Colours, frames: Sequence[int], text: str) -> list[Any]:
    """Return what makes the secondary capture of each overlay, one at a time."""
    about = equipment("sc")
    return [
        partial(secondary_capture, source, frame, colours, text, about)
        for frame, colours in zip(frames, overlays, strict=True)
    ]


def spread(values: Any, frames: Sequence[int], count: int) -> Any:
    """Return values [F, ...] of some frames in the order of all `count`, 0 for the others."""
    every = np.zeros((count, *values.shape[1:]), values.dtype)
    every[list(frames)] = values
    return every


def reason_of(error: Exception) -> str:
    """Return highdicom's reason in one line."""
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return reason.replace("'FileDataset' object has no attribute", "its header has no")


def save(path: Path, make: Callable[[], Any]) -> Path:
    """Make a DICOM object and write it, whole or not at all."""
    made = make()
    write_whole(path, partial(made.save_as, enforce_file_format=True))
    return path


def write_dicom(
    folder: Path,
    kinds: Sequence[str],
    sources: Sequence[Path],
    maps: Maps,
    above: Mask,
    overlays: Colours,
    *,
    text: str = "",
    frames: Sequence[int] = (),
) -> list[Path]:
    """Write DICOM objects of a scored scan.

    Args:
        folder: gets seg.dcm, pm.dcm and sc_0001.dcm, sc_0002.dcm ... (by the source's frame).
        kinds: some of "seg", "pm", "sc".
        sources: the files of a series, in the order of the maps, or one file of any frames.
        maps: [F, H, W] float32; NaN, where nothing was scored, is written as 0.
        above: [F, H, W] bool, the regions above the threshold.
        overlays: [F, H, W, 3] uint8, RGB.
        text: what was found by what: object, score, threshold.
        frames: of one file, the number from 0 of the frame of each map; empty: in order. Frames
            without a map are empty in the segmentation and 0 in the parametric map.

    Returns:
        The files written.

    Raises:
        UserError: highdicom cannot make a kind for these files, because they have no position, for
            example; the others are written first, and the message names both.

    """
    source = read_source(sources)
    numbers = list(frames) or list(range(source.count))
    if len(maps) != len(numbers) or maps.shape[1:] != source.shape:
        raise ValueError(f"maps {maps.shape} for {source.count} frames of {source.shape}")
    text = f"{text}. {REMARK}" if text else REMARK
    values = spread(np.nan_to_num(maps.astype(np.float32)), numbers, source.count)
    works: dict[str, list[Callable[[], Any]]] = {
        "seg": [lambda: segmentation(source, spread(above, numbers, source.count), text)],
        "pm": [lambda: parametric_map(source, values, text)],
        "sc": captures(source, overlays, numbers, text),
    }
    written = []
    refused = []
    for kind in kinds:
        names = [f"sc_{n + 1:04d}.dcm" for n in numbers] if kind == "sc" else [f"{kind}.dcm"]
        try:
            for name, make in zip(names, works[kind], strict=True):
                written.append(save(folder / name, make))
        except REFUSALS as error:
            refused.append(f"no {NAMES[kind]} can be made ({reason_of(error)})")
    if refused:
        raise UserError(
            f"{sources[0]}: {'; '.join(refused)}; "
            + ("the others were written" if written else "try --dicom_out sc")
        )
    return written
