"""Read the images, labels and masks of a dataset that a table lists: a CSV, HAM10000, ISIC 2019."""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.cases import MOST_DIGITS, slice_number
from dataset.layout import SUFFIXES, is_image
from dataset.texts import read_text
from dataset.wording import shortened
from errors import UserError
from preparation.audit_findings import plural
from preparation.convert_sources import (
    FOLDER_LABELS,
    SPLIT_NAMES,
    Entry,
    Source,
    images_below,
    some,
)

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "label")
OPTIONAL = ("mask", "case", "slice", "split")
LABEL_NAMES = FOLDER_LABELS | {"0": 0, "1": 1}
SEPARATORS = ",;\t"
HAM_TABLE = "ham10000_metadata"
HAM_NORMAL = ("nv",)  # melanocytic naevi, two thirds of the images
ISIC_TABLE = "isic_2019_training_groundtruth"
ISIC_CASES = "isic_2019_training_metadata"
ISIC_NORMAL = ("NV",)


def read_table(path: Path, needed: Sequence[str]) -> "pd.DataFrame":
    """Read a table of text with lower-case column names, without space around values.

    Separated by commas, semicolons or tabs. Raises UserError if it cannot be read, or lacks one of
    the `needed` columns.
    """
    import pandas as pd

    text = read_text(path, "it should be a table, CSV")
    separator = max(SEPARATORS, key=text[: text.find("\n")].count)
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except ValueError as error:  # as is what pandas raises
        raise UserError(f"{path} cannot be read as CSV ({shortened(error)}); fix it") from error
    table.columns = [str(name).strip().lower() for name in table.columns]
    if not isinstance(table.index, pd.RangeIndex):  # it took the first fields for one
        raise UserError(
            f"{path} cannot be read as CSV (its rows have more fields than its first line); fix it"
        )
    if twice := sorted(set(table.columns[table.columns.duplicated()])):
        raise UserError(f"{path} has two columns {shortened(' '.join(twice))}; keep one")
    missing = [name for name in needed if name not in table.columns]
    if missing:
        has = shortened(" ".join(table.columns))
        raise UserError(
            f"{path} has no column {' '.join(missing)}; it has {has}; add or rename one"
        )
    if not len(table):
        raise UserError(f"{path} has no rows; a row names an image")
    return table.apply(lambda column: column.str.strip())


def read_csv(path: Path, normal: Sequence[str] | None, abnormal: Sequence[str] | None) -> Source:
    """Read a CSV with the columns image and label, and perhaps mask, case, slice and split.

    Paths are relative to the CSV's folder. Labels are 0 or 1, good or Ungood, normal or abnormal;
    with `normal` (and `abnormal`) they are classes, see `label_classes`. Raises UserError.
    """
    table = read_table(path, COLUMNS)
    folder = path.parent
    refuse_rows(path, table, "no image", table["image"] == "")
    names = table["label"].tolist()
    if normal:
        labels = label_classes(path, names, normal, abnormal)
    else:
        labels = [LABEL_NAMES.get(name.lower()) for name in names]
        unknown = "label that is not 0, 1, good, Ungood, normal or abnormal (or pass --normal)"
        refuse_rows(path, table, unknown, [label is None for label in labels], "label")
    blank = [""] * len(table)
    columns = {name: table[name].tolist() if name in table else blank for name in OPTIONAL}
    images = [folder / name for name in table["image"]]
    masks = [folder / name if name else None for name in columns["mask"]]
    refuse_rows(path, table, "missing image file", [not is_file(image) for image in images])
    wrong = f"image of another type than {' '.join(SUFFIXES)}"
    refuse_rows(path, table, wrong, [not is_image(image) for image in images])
    lost = [mask is not None and not is_file(mask) for mask in masks]
    refuse_rows(path, table, "missing mask file", lost, "mask")
    refuse_rows(path, table, "image that is named twice", table["image"].duplicated())
    splits = [SPLIT_NAMES.get(name.lower(), name) if name else "" for name in columns["split"]]
    odd = [split not in ("", "valid", "test") for split in splits]
    refuse_rows(path, table, "split that is not valid, test or empty", odd, "split")
    slices = [slice_number(text) for text in columns["slice"]]
    odd = [bool(text) and slice_number(text) is None for text in columns["slice"]]
    wrong = f"slice that is no whole number of at most {MOST_DIGITS} digits"
    refuse_rows(path, table, wrong, odd, "slice")
    kinds = names if normal else blank
    refuse_divided(path, columns["case"], splits)
    entries = [
        Entry(image, label, mask if label else None, case, split, kind, number)
        for image, label, mask, case, split, kind, number in zip(
            images, labels, masks, columns["case"], splits, kinds, slices, strict=True
        )
        if label is not None
    ]
    unused = sorted(set(table.columns) - {*COLUMNS, *OPTIONAL})
    notes = [f"columns that are not used: {' '.join(unused)}"] if unused else []
    return Source("csv", entries, notes)


def is_file(path: Path) -> bool:
    """Return whether there is a file; False also for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises OSError for long names


def refuse_divided(path: Path, cases: Sequence[str], splits: Sequence[str]) -> None:
    """Raise UserError if a table puts a case on both sides."""
    sides: dict[str, set[str]] = {}
    for case, split in zip(cases, splits, strict=True):
        if case and split:
            sides.setdefault(case, set()).add(split)
    both = [case for case, found in sides.items() if len(found) > 1]
    if both:
        raise UserError(
            f"{path}: {plural(len(both), 'case')} in valid and in test ({some(both)}); a case is "
            "on one side only: fix the column split, or leave it out"
        )


def refuse_rows(
    path: Path,
    table: "pd.DataFrame",
    what: str,
    bad: Iterable[bool],
    column: str = "image",
) -> None:
    """Raise UserError for the rows of a table that are bad, with the first values of a column."""
    rows = [number for number, value in enumerate(bad) if value]
    if rows:
        values = some(shortened(repr(table[column].iloc[row])) for row in rows)
        lines = some(table.index[row] + 2 for row in rows)  # 1 is the header
        raise UserError(f"{path}: {len(rows):,} x {what}: {values}, lines {lines}; fix the table")


def label_classes(
    path: Path, names: Sequence[str], normal: Sequence[str], abnormal: Sequence[str] | None
) -> list[int | None]:
    """Return the label of each class name, in upper or lower case; None: of neither.

    Without `abnormal` every class that is not normal is abnormal. Raises UserError for a class
    that no image has.
    """
    present = {name.lower(): name for name in names}
    unknown = [name for name in [*normal, *(abnormal or ())] if name.lower() not in present]
    if unknown:
        raise UserError(
            f"{path} has no class {' '.join(unknown)}; its classes are "
            f"{shortened(' '.join(present.values()))}"
        )
    low = {name.lower() for name in normal}
    high = {name.lower() for name in abnormal or present} - low
    return [0 if name.lower() in low else 1 if name.lower() in high else None for name in names]


def read_ham10000(
    table_path: Path, normal: Sequence[str] | None, abnormal: Sequence[str] | None
) -> Source:
    """Read HAM10000: columns image_id, lesion_id (the case) and dx (the class) of its metadata.

    Images are found by name anywhere below the table's folder. Its segmentations outline every
    lesion, normal or not, so they are no anomaly masks. Raises UserError.
    """
    table = read_table(table_path, ("image_id", "lesion_id", "dx"))
    names = table["image_id"].tolist()
    classes = table["dx"].tolist()
    return skin_source(
        "ham10000",
        table_path,
        names,
        classes,
        table["lesion_id"].tolist(),
        normal or HAM_NORMAL,
        abnormal,
    )


def read_isic2019(
    table_path: Path, normal: Sequence[str] | None, abnormal: Sequence[str] | None
) -> Source:
    """Read ISIC 2019: its ground truth has the column image and one of 0 and 1 for each class.

    Lesions (the cases) come from ISIC_2019_Training_Metadata.csv if it lies beside it. Images are
    found by name anywhere below the table's folder. Raises UserError.
    """
    table = read_table(table_path, ("image",))
    columns = [name for name in table.columns if name != "image"]
    chosen = table[columns].apply(lambda column: column.astype(float) == 1)
    refuse_rows(table_path, table, "image without exactly one class", chosen.sum(axis=1) != 1)
    classes = chosen.idxmax(axis=1).str.upper().tolist()
    names = table["image"].tolist()
    found = find_table(table_path.parent, ISIC_CASES)
    cases = [""] * len(names)
    if found is not None:
        lesions = read_table(found, ("image", "lesion_id")).set_index("image")["lesion_id"]
        cases = [lesions.get(name, "") for name in names]
    source = skin_source(
        "isic2019", table_path, names, classes, cases, normal or ISIC_NORMAL, abnormal
    )
    if found is None:
        source.notes.append(f"no {ISIC_CASES}.csv, so lesions with several images are not known")
    return source


def skin_source(
    layout: str,
    path: Path,
    names: Sequence[str],
    classes: Sequence[str],
    cases: Sequence[str],
    normal: Sequence[str],
    abnormal: Sequence[str] | None,
) -> Source:
    """Return the entries of a table of images by name, class and case. Raises UserError."""
    labels = label_classes(path, classes, normal, abnormal)
    files: dict[str, Path] = {}
    for image in images_below(path.parent):
        files.setdefault(image.stem, image)
    wanted = [name for name, label in zip(names, labels, strict=True) if label is not None]
    missing = [name for name in wanted if name not in files]
    if missing:
        raise UserError(
            f"{len(missing):,} of {len(wanted):,} images of {path} are not below {path.parent} "
            f"({some(missing)}); unpack all parts of the dataset there"
        )
    entries = [
        Entry(files[name], label, None, case, "", kind)
        for name, label, case, kind in zip(names, labels, cases, classes, strict=True)
        if label is not None
    ]
    kinds = sorted({entry.kind for entry in entries if entry.label})
    notes = [f"normal: {' '.join(normal)}; abnormal: {' '.join(kinds)}"]
    if left := len(names) - len(entries):
        notes.append(f"images of other classes are left out: {left:,}")
    return Source(layout, entries, notes)


def find_table(folder: Path, stem: str) -> Path | None:
    """Return the file of a folder whose lower-case name is `stem`, with or without .csv."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return next((p for p in paths if p.name.lower() in (stem, f"{stem}.csv")), None)
