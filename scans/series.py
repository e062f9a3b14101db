"""DICOM series as volumes: files grouped by series, frames sorted by where they lie.

Letters: I columns, J rows, K slices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from dataset.dicom import count_frames, iter_frames, read_header, readable
from dataset.dicom_values import has_interest, read_window
from dataset.pixel_values import Pixels
from dataset.wording import shortened
from errors import UserError
from scans.geometry import SAME_PLACE, Plane, heights, read_plane, stack_affine, stack_notes
from scans.volume import DICOM, MOST_VALUES, Values, Volume, finite_values

SIZE = ("Rows", "Columns", "PhotometricInterpretation")  # what slices share
TABLE = "its VOI lookup table is applied, as it has no window"
REMEDY = (
    "read each file as an image by --series no, or put those that belong together into a folder of "
    "their own"
)


@dataclass(frozen=True)
class Header:
    """What a file's header says of it as a slice of a series.

    Args:
        path: the file.
        series: SeriesInstanceUID, "" without one.
        instance: SOPInstanceUID, or the path.
        size: rows, columns and kind of colour, by keyword.
        plane: where the (first) frame lies; None if the header does not say it.
        frames: how many it has; None if the header does not say it.
        table: whether its values go through a table, for want of a window.

    """

    path: Path
    series: str
    instance: str
    size: dict[str, str]
    plane: Plane | None
    frames: int | None
    table: bool

    @property
    def is_slice(self) -> bool:
        """Whether the file may be one slice of several."""
        return bool(self.series) and self.plane is not None and self.frames == 1


def read_facts(path: Path) -> Header:
    """Read what a file's header says. Raises UserError."""
    with readable(path):  # pydicom converts values when they are asked for
        header = read_header(path)
        return Header(
            path,
            str(header.get("SeriesInstanceUID") or ""),
            str(header.get("SOPInstanceUID") or path),
            {keyword: shortened(header.get(keyword)) for keyword in SIZE},
            read_plane(header),
            count_frames(header),
            read_window(header, 0) is None and has_interest(header, 0),
        )


def facts_of_slice(path: Path) -> Header | None:
    """Return what a header says; None for a file that is no slice: unreadable, several frames."""
    try:
        header = read_facts(path)
    except UserError:
        return None  # it is said when the file is read
    return header if header.is_slice else None


def sorted_by_place(planes: Sequence[Plane]) -> list[int]:
    """Return the numbers of frames along the normal of the first, equal ones in their order."""
    if not planes:
        return []
    return [int(k) for k in np.argsort(heights(planes), kind="stable")]


def group_series(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Group DICOM files by SeriesInstanceUID, in the order of their first files.

    Only headers are read. The files of a group are sorted by position along their normal. A file
    that cannot be read, has several frames or does not say where it lies (photographs,
    radiographs) is a group of its own.
    """
    groups: dict[str | Path, list[Path]] = {}
    planes: dict[Path, Plane] = {}
    for path in paths:
        header = facts_of_slice(path)
        if header is not None and header.plane is not None:
            planes[path] = header.plane
        groups.setdefault(path if header is None else header.series, []).append(path)
    result: list[tuple[Path, ...]] = []
    for members in groups.values():
        files = sorted(members)
        order = sorted_by_place([planes[path] for path in files if path in planes])
        result.append(tuple(files[k] for k in order or [0]))
    return result


def refuse_pair(first: Path, second: Path, what: str) -> None:
    """Raise UserError for two files that are no slices of one volume."""
    raise UserError(f"{first} and {second} of one series {what}; {REMEDY}")


def check_alike(headers: Sequence[Header], planes: Sequence[Plane]) -> None:
    """Raise UserError unless files have one orientation, size and kind of colour."""
    first = headers[0]
    for header, plane in zip(headers[1:], planes[1:], strict=True):
        if plane.turned_from(planes[0]):
            refuse_pair(first.path, header.path, "differ in orientation (one may be a localiser)")
        for keyword, one in first.size.items():
            other = header.size[keyword]
            if one != other:
                refuse_pair(first.path, header.path, f"differ in {keyword}, {one} and {other}")
        if plane.spaced_unlike(planes[0]):
            refuse_pair(first.path, header.path, "differ in pixel spacing")


def without_copies(headers: Sequence[Header]) -> list[Header]:
    """Return the headers of files that are no copies (SOPInstanceUID) of an earlier one."""
    first: dict[str, Header] = {}
    for header in headers:
        first.setdefault(header.instance, header)
    return list(first.values())


def assemble(frames: Iterable[Pixels], paths: Sequence[Path]) -> tuple[Volume, list[str]]:
    """Stack frames [J, I] or [J, I, 3] to a volume without a place; return it and notes on it.

    `paths`: the files, in the order of the frames. Raises UserError for frames that differ in size.
    """
    kept = []
    total = 0
    windows = []
    fulls = []
    bits = 0
    pixels = None
    for pixels in frames:
        kept.append(pixels.values.astype(np.float32))
        total += pixels.values.size
        if total > MOST_VALUES:
            raise UserError(f"{paths[0]} and its series have over {MOST_VALUES} values: cut it up")
        windows.append(pixels.window)
        fulls.append(pixels.full)
        bits = max(bits, pixels.bits)
    if pixels is None or len({frame.shape for frame in kept}) != 1:
        raise UserError(f"{paths[0]}: its frames differ in size; {REMEDY}")
    stack = np.stack(kept)  # [K, J, I] or [K, J, I, 3]
    values: Values = stack.transpose(2, 1, 0, *range(3, stack.ndim))
    values, note = finite_values(paths[0], values)
    notes = [note] if note else []
    if len(set(windows)) > 1:
        notes.append("the slices have windows of their own; that of the middle one is used for all")
    volume = Volume(
        values,
        np.eye(4),
        DICOM,
        tuple(paths),
        modality=pixels.modality,
        window=windows[len(windows) // 2],
        inverted=pixels.inverted,
        full=(min(low for low, _ in fulls), max(high for _, high in fulls)),
        bits=bits,
    )
    return volume, notes


def read_file(path: Path) -> Volume:
    """Read one file, of one frame or several, as a volume. Raises UserError.

    Frames that the file does not place, that lie at one place, or that are turned against each
    other (cine, phases, segments) keep their order; the affine is then the identity.
    """
    table = read_facts(path).table
    volume, notes = assemble(iter_frames(path), [path])
    notes += [TABLE] * table
    count = volume.shape[2]
    order = list(range(count))
    with readable(path):
        header = read_header(path)
        planes = [plane for k in order if (plane := read_plane(header, k)) is not None]
    reason = ""
    if len(planes) < count:
        reason = "the file does not say where its frames lie"
    elif any(plane.turned_from(planes[0]) for plane in planes):
        reason = "its frames differ in orientation"
    elif np.diff(np.sort(heights(planes))).min(initial=np.inf) < SAME_PLACE:
        reason = "several of its frames lie at one place"
    if reason:
        notes.append(f"{reason}; they are read in its order, without a geometry")
        return replace(volume, notes=tuple(notes), frames=tuple(order))
    gaps = np.diff(heights(planes))
    if not ((gaps > 0).all() or (gaps < 0).all()):
        order = sorted_by_place(planes)
        planes = [planes[k] for k in order]
    return replace(
        volume,
        values=volume.values[:, :, order],
        affine=stack_affine(planes),
        notes=(*notes, *stack_notes(planes)),
        frames=tuple(order),
    )


def single_frame(path: Path) -> Pixels:
    """Read the one frame of a file. Raises UserError."""
    frames = iter_frames(path)
    pixels = next(frames)
    if next(frames, None) is not None:
        raise UserError(f"{path} has several frames, unlike others of its series; {REMEDY}")
    return pixels


def read_series(paths: Sequence[Path]) -> Volume:
    """Read DICOM files of one series, or one file alone, as a volume.

    Args:
        paths: the files, in any order.

    Returns:
        The volume, [I, J, K] columns, rows, slices, after the modality step. The slices of a
        series are sorted along their normal. Frames of one file are so too unless they already
        follow it, in either direction: `Volume.frames` has their numbers. Uneven spacing, a tilted
        gantry and several windows are told in its notes; copies of a file are left out.

    Raises:
        UserError: files are no images of one orientation and size, two lie at one place, one does
            not say where it lies, or all are too large.

    """
    if len(paths) == 1:
        return read_file(paths[0])
    headers = without_copies([read_facts(path) for path in paths])
    copies = len(paths) - len(headers)
    planes = []
    for header in headers:
        if header.plane is None:
            raise UserError(f"{header.path} does not say where it lies in its series; {REMEDY}")
        planes.append(header.plane)
    check_alike(headers, planes)
    order = sorted_by_place(planes)
    files = [headers[k].path for k in order]
    planes = [planes[k] for k in order]
    for pair, gap in zip(pairwise(files), np.diff(heights(planes)), strict=True):
        if gap < SAME_PLACE:
            refuse_pair(*pair, "lie at one place (phases, echoes?)")
    volume, notes = assemble(map(single_frame, files), files)
    notes += [TABLE] * headers[0].table
    if copies:
        notes.append(f"{copies} files are copies of others (SOPInstanceUID) and left out")
    return replace(volume, affine=stack_affine(planes), notes=(*notes, *stack_notes(planes)))
