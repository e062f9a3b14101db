"""Bring a dataset to the layout of dataset/layout.py, so that it works as an object by its folder.

    CSV, MVTec's layout, BMAD's own, HAM10000, ISIC 2019  ->  <data>/<name>_AD

Everything is read and checked first. The folder is then built beside its place and renamed, so that
it is complete or absent.
"""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from dataset.cases import COLUMNS, TABLE
from dataset.catalog import SETTINGS
from dataset.layout import image_folder, mask_folder, object_folder
from errors import UserError
from preparation.convert_plan import Conversion, Place, Request, plan, setting_lines, summary
from preparation.convert_sources import (
    ABNORMAL_NAMES,
    AUTO,
    LAYOUTS,
    MVTEC_MASKS,
    Source,
    folder_names,
    read_bmad,
    read_mvtec,
    subfolders,
)
from preparation.convert_tables import (
    HAM_TABLE,
    ISIC_TABLE,
    find_table,
    read_csv,
    read_ham10000,
    read_isic2019,
)
from utils import part_of, writable

TABLES = {"ham10000": HAM_TABLE, "isic2019": ISIC_TABLE}


def convert(request: Request) -> Conversion:
    """Convert a dataset, and return what was written.

    Raises UserError, before anything is written, for the first kind of mistake in the dataset.
    """
    target = object_folder(request.data_path, request.name)
    check_target(request, target)
    source = read_source(request)
    conversion = plan(request, source)
    writable(request.data_path, "--data_path")
    try:
        with part_of(target) as part:
            write_files(request, conversion, part)
            replace_folder(part, target)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}); free some space, or choose another "
            "--data_path"
        ) from error
    return conversion


def check_target(request: Request, target: Path) -> None:
    """Raise UserError if the folder exists and may not be replaced, or holds the source."""
    source = request.source.resolve()
    if source.is_relative_to(target.resolve()):
        raise UserError(
            f"{request.source} is in {target}, which is to be written; choose another --data_path "
            "or --obj"
        )
    if os.path.lexists(target) and not request.overwrite:
        raise UserError(f"{target} exists; pass --overwrite, or choose another --obj")


def read_source(request: Request) -> Source:
    """Read a dataset in the layout that was asked for, or the one it has. Raises UserError."""
    source = request.source
    if not source.exists():
        raise UserError(f"no file or folder {source}; SOURCE is a CSV or the folder of a dataset")
    layout = find_layout(source) if request.layout == AUTO else request.layout
    if layout in ("mvtec", "bmad"):
        if not source.is_dir():
            raise UserError(f"{source} is a file; the layout {layout} is one of folders")
        if request.normal or request.abnormal:
            raise UserError(
                f"--normal and --abnormal are of tables; {layout} has folders of labels"
            )
        return read_mvtec(source) if layout == "mvtec" else read_bmad(source)
    if request.abnormal and layout == "csv" and not request.normal:
        raise UserError("--abnormal needs --normal: together they say which classes are which")
    readers = {"csv": read_csv, "ham10000": read_ham10000, "isic2019": read_isic2019}
    return readers[layout](table_file(source, layout), request.normal, request.abnormal)


def table_file(source: Path, layout: str) -> Path:
    """Return the table of a dataset, which is the source or lies in it. Raises UserError."""
    if source.is_file():
        return source
    if layout in TABLES:
        found = find_table(source, TABLES[layout])
        if found is None:
            raise UserError(
                f"{source} has no {TABLES[layout]}.csv; put it there, or name the table"
            )
        return found
    tables = sorted(source.glob("*.csv"))
    if len(tables) != 1:
        raise UserError(f"{source} has {len(tables)} .csv files; name the table itself")
    return tables[0]


def find_layout(source: Path) -> str:
    """Return the layout that a dataset has. Raises UserError if it is none of LAYOUTS."""
    folder = source if source.is_dir() else source.parent
    for layout, stem in TABLES.items():
        table = find_table(folder, stem)
        if table is not None and source in (folder, table):
            return layout
    if source.is_file():
        return "csv"
    folders = subfolders(source)
    if MVTEC_MASKS in folders:
        return "mvtec"
    if ABNORMAL_NAMES & folder_names(source):
        return "bmad"
    if "test" in folders:
        return "mvtec"
    if sorted(source.glob("*.csv")):
        return "csv"
    raise UserError(f"{source} has none of the layouts {' '.join(LAYOUTS)}; see docs/data.md")


def write_files(request: Request, conversion: Conversion, top: Path) -> None:
    """Write an object's folder to `top`: images, masks, object.toml and what was done."""
    base = object_folder(top, request.name)
    rows = []
    for place in conversion.places:
        folder = image_folder(top, request.name, place.split, place.state)
        place_file(place.entry.image, folder / place.name, request.link)
        if place.entry.mask is not None:
            place_file(place.entry.mask, mask_folder(folder) / place.mask_name, request.link)
        target = (folder / place.name).relative_to(base)
        rows.append(
            [place.entry.image, place.entry.mask or "", target, place.entry.label, place.case]
        )
    if lines := setting_lines(conversion):
        (base / SETTINGS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if conversion.case_table:
        write_cases(base / TABLE, request.name, conversion.places)
    with open_table(base / "conversion.csv") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "mask", "image", "label", "case"])
        writer.writerows(rows)
    content = {key: value for key, value in vars(request).items() if key != "jobs"}
    content |= {"layout": conversion.layout, "summary": summary(conversion)}
    text = json.dumps(content, indent=2, default=str, ensure_ascii=False)
    data = text.encode(errors="backslashreplace")  # as JSON escapes them
    (base / "conversion.json").write_bytes(data + b"\n")


def open_table(path: Path) -> TextIO:
    """Open a table of file names for writing; those that are not UTF-8 stand there as they are."""
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def write_cases(path: Path, name: str, places: Sequence[Place]) -> None:
    """Write the cases and slice numbers of an object's images to its cases.csv."""
    with open_table(path) as table:
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for place in places:
            folder = image_folder(Path(), name, place.split, place.state)
            file = (folder / place.name).relative_to(object_folder(Path(), name))
            writer.writerow([file.as_posix(), place.case, place.entry.slice])


def place_file(source: Path, target: Path, link: bool) -> None:
    """Copy a file, or link it: a hard link, else a symbolic one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        shutil.copyfile(source, target)
        return
    real = source.resolve()
    try:
        target.hardlink_to(real)
    except OSError:  # another file system
        target.symlink_to(real)


def replace_folder(part: Path, target: Path) -> None:
    """Move the only folder of `part` to its place; an earlier one is removed after that."""
    (built,) = part.iterdir()
    if not os.path.lexists(target):
        built.rename(target)
        return
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        built.rename(target)
    except OSError:
        old.rename(target)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old)
