"""Pictures of the page: the gallery, heat maps over images, and the worst errors of its runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvfa.embedding import Entry, drawn, embedded, image_uri, overlay_uri, truth_uri
from mvfa.error_cases import error_cases
from mvfa.panels import LABELS
from report.study import DONE, Cell, Study, TableSpec, number

MIDDLE = 0.5  # the threshold of a run that recorded none


def has_pictures(cell: Cell) -> bool:
    """Return whether a cell is done and has pictures."""
    return cell.state == DONE and cell.folder is not None and bool(cell.metrics.get("pictures"))


def gallery_cells(study: Study) -> list[Cell]:
    """Return the runs that the gallery shows.

    The first run of each cell of the tables with heat maps; without such tables, of each object.
    """
    chosen: dict[tuple[str, ...], Cell] = {}
    heat_maps = any(spec.heat_maps for spec in study.specs)
    for spec, row, obj, cells in study.groups():
        if heat_maps and not spec.heat_maps:
            continue
        for cell in filter(has_pictures, cells):
            chosen.setdefault((spec.name, row, obj) if heat_maps else (obj,), cell)
    return list(chosen.values())


def gallery(study: Study) -> list[dict[str, Any]]:
    """Return for each run shown: its name, its threshold in [0, 1], its pictures and its errors."""
    runs = []
    for cell in gallery_cells(study):
        assert cell.folder is not None
        threshold = number(cell.metrics.get("threshold"))
        runs.append(
            {
                "label": cell.label,
                "threshold": MIDDLE if threshold is None else threshold,
                "pictures": [embedded(cell.folder, e) for e in drawn(cell.folder, cell.metrics)],
                "errors": error_cases(cell.folder, cell.metrics),
            }
        )
    return runs


def entries_of(cell: Cell | None, label: str) -> dict[str, Entry]:
    """Return a run's pictures of a label, by the image's file; random ones come first."""
    if cell is None or cell.folder is None:
        return {}
    entries = [e for e in drawn(cell.folder, cell.metrics) if LABELS[e["label"]] == label]
    return {e["file"]: e for e in sorted(entries, key=lambda e: e["rank"] != "random")}


def shared_file(runs: Sequence[Mapping[str, Entry]]) -> str | None:
    """Return the image that most runs have drawn, the first of equal ones; None without any."""
    files = dict.fromkeys(file for run in runs for file in run)
    return max(files, key=lambda file: sum(file in run for run in runs), default=None)


def heat_map_line(cells: Sequence[Cell | None], label: str) -> dict[str, Any] | None:
    """Return one line of a table of heat maps: an image, its true mask, and each run's map over it.

    A map is None where its run has not drawn this image. None where no run has an image of the
    label.
    """
    runs = [entries_of(cell, label) for cell in cells]
    file = shared_file(runs)
    if file is None:
        return None
    maps: list[dict[str, Any] | None] = []
    image: dict[str, Any] = {}
    for cell, run in zip(cells, runs, strict=True):
        if cell is None or file not in run:
            maps.append(None)
            continue
        assert cell.folder is not None
        entry = run[file]
        if not image:
            mask, note = truth_uri(cell.folder, entry)
            image = {"image_uri": image_uri(cell.folder, entry), "rank": entry["rank"]}
            image |= {"mask_uri": mask, "mask_note": note}
        uri = overlay_uri(cell.folder, entry)
        maps.append({"overlay_uri": uri, "score": entry["score"]})
    return {"label": label, "file": file, "maps": maps} | image


def heat_map_rows(study: Study, spec: TableSpec) -> list[dict[str, Any]]:
    """Return a table of heat maps: of each object an abnormal and a normal image.

    Each has a map for each row of `spec`, of its first run with pictures. Objects without any
    picture are left out. Empty unless the table has heat maps.
    """
    rows = []
    for obj in spec.objects if spec.heat_maps else ():
        cells = [
            next(filter(has_pictures, study.at(spec.name, row, obj)), None) for row in spec.rows
        ]
        lines = [line for label in reversed(LABELS) if (line := heat_map_line(cells, label))]
        if lines:
            rows.append({"object": obj, "lines": lines})
    return rows
