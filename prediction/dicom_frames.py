"""Maps, regions and overlays of a DICOM source, frame by frame as its files are.

Letters: F frames of the source, H and W of a frame, n scored slices.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mvfa.detector_result import Result
from mvfa.overlays import native_map
from prediction.reading import Loaded

Frames = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.uint8]]


def regions(result: Result) -> npt.NDArray[np.float32]:
    """Return what is above the threshold at the image's size: [H, W] float32, 0 or 1."""
    above = (result.scored_map > result.threshold).astype(np.float32)
    return np.asarray(native_map(above, result.image.size) >= 0.5, np.float32)


def in_frames(loaded: Loaded, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return values [n, H, W] of scored slices as frames [F, H, W] of the source, else NaN."""
    if loaded.place is None:
        return values
    return np.ascontiguousarray(loaded.place(values).transpose(2, 1, 0))  # from [W, H, F]


def frames_of(loaded: Loaded, results: Sequence[Result]) -> Frames:
    """Return maps [F, H, W], regions [F, H, W] and overlays [F, H, W, 3]; empty where not scored.

    For objects without masks, whose threshold is not one of pixels, the regions are empty.
    """
    maps = np.nan_to_num(in_frames(loaded, np.stack([result.map for result in results])))
    if results[0].masks:
        above = in_frames(loaded, np.stack([regions(result) for result in results])) >= 0.5
    else:
        above = np.zeros(maps.shape, np.bool_)
    colours = np.stack([np.asarray(result.overlay()) for result in results])  # [n, H, W, 3]
    channels = [in_frames(loaded, colours[..., c].astype(np.float32)) for c in range(3)]
    overlays = np.nan_to_num(np.stack(channels, axis=-1)).round().astype(np.uint8)
    return maps, above, overlays
