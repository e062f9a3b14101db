"""Check the data of whole objects before they are used: every folder, image, mask and shot list.

The cheap part, of the files that one run reads, is dataset/check.py. This one decodes everything,
compares contents and goes on after a fault, and reports findings as errors (a run would be refused,
or its numbers wrong), warnings (probably not what was meant) and notes.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dataset.catalog import CATALOG, ObjectInfo, existing_folder, find_object, has_masks
from dataset.layout import object_folder, object_names
from errors import UserError
from preparation.audit_files import ImageFacts, MaskFacts, Task, cores, look_at_all
from preparation.audit_findings import ERROR, LEVELS, Contents, Finding, plural
from preparation.audit_folders import Group, list_object, strangers
from preparation.audit_lists import case_findings, list_findings
from preparation.audit_pixels import duplicate_findings, image_findings, mask_findings, name_size
from preparation.audit_rules import count_findings, folder_findings, pair_findings

HEADERS = ("object", "split", "state", "images", "masks", "size", "mode")


@dataclass(frozen=True)
class Row:
    """Numbers of one split and state."""

    split: str
    state: str
    images: int
    masks: int
    size: str  # in words, such as "240 x 240" or "3 sizes"
    mode: str


@dataclass(frozen=True)
class ObjectReport:
    """What was found about one object."""

    name: str
    rows: list[Row]
    findings: list[Finding]

    def of(self, level: str) -> list[Finding]:
        """Return the findings of a level."""
        return [finding for finding in self.findings if finding.level == level]


@dataclass(frozen=True)
class Report:
    """What was found about some objects; `files`: how many were decoded."""

    data_path: Path
    objects: list[ObjectReport]
    files: int

    def count(self, level: str) -> int:
        """Return the number of findings of a level."""
        return sum(len(report.of(level)) for report in self.objects)

    @property
    def status(self) -> int:
        """Exit status: 1 if there are errors, else 0."""
        return int(self.count(ERROR) > 0)

    def as_dict(self) -> dict[str, Any]:
        """Return everything that was found, for a JSON file."""
        return {
            "data_path": str(self.data_path),
            "files": self.files,
            "counts": {level: self.count(level) for level in LEVELS},
            "objects": {
                report.name: {
                    "rows": [vars(row) for row in report.rows],
                    "findings": [finding.as_dict() for finding in report.findings],
                }
                for report in self.objects
            },
        }

    def json(self) -> str:
        """Return everything that was found as JSON that ends with a newline."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def text(self) -> str:
        """Return a table, then the findings by level, then how many there are."""
        from tabulate import tabulate

        rows = [
            (report.name, *vars(row).values()) for report in self.objects for row in report.rows
        ]
        lines = [tabulate(rows, HEADERS, tablefmt="simple", intfmt=",", disable_numparse=[5, 6])]
        for level in LEVELS:
            if self.count(level):
                lines += ["", f"{level}s"]
                lines += [f"  {r.name}: {f.line()}" for r in self.objects for f in r.of(level)]
        totals = ", ".join(plural(self.count(level), level) for level in LEVELS)
        lines += ["", f"{totals}; {plural(self.files, 'file')} decoded"]
        return "\n".join(lines) + "\n"


def choose_objects(data_path: Path, names: Sequence[str] | None) -> list[str]:
    """Return the objects to check: those named, else all that have a folder.

    Raises UserError for an object without a folder, and if there is none at all.
    """
    if names:
        for name in names:
            existing_folder(data_path, name)
        return list(dict.fromkeys(names))
    everything = object_names(data_path)
    if not everything:
        raise UserError(
            f"no folder {data_path}/<object>_AD; run python prepare_data.py download, or "
            "pass --data_path DIR"
        )
    return everything


def check_objects(
    data_path: Path, names: Sequence[str] | None, lists: Path, jobs: int | None = None
) -> Report:
    """Check the data of some objects.

    Args:
        data_path: holds `<object>_AD` folders.
        names: the objects; None: all that have a folder.
        lists: holds `<object>/<K>-shot.txt`.
        jobs: threads that decode files; None: one for each core.

    Raises:
        UserError: there is no such object. Faults of the data are findings.

    """
    from tqdm import tqdm

    chosen = choose_objects(data_path, names)
    infos = [object_settings(data_path, name) for name in chosen]
    groups = [list_object(data_path, name) for name in chosen]
    tasks = [file_tasks(info, listed) for (info, _), listed in zip(infos, groups, strict=True)]
    everything = [task for some in tasks for task in some]
    # None: no bar unless standard error is a terminal
    with tqdm(total=len(everything), unit="file", leave=False, disable=None) as bar:
        looked = iter(look_at_all(everything, jobs or cores(), bar.update))
    reports = []
    for (info, problems), listed, some in zip(infos, groups, tasks, strict=True):
        facts = {task.path: next(looked) for task in some}
        contents = gather(data_path, info, listed, facts)
        findings = chain(problems, object_findings(data_path, contents, lists))
        order = sorted(findings, key=lambda finding: LEVELS.index(finding.level))
        reports.append(ObjectReport(info.name, [row(contents, g) for g in listed], order))
    return Report(data_path, reports, len(everything))


def object_settings(data_path: Path, name: str) -> tuple[ObjectInfo, list[Finding]]:
    """Return what is known of an object, and what is wrong with its object.toml."""
    try:
        return find_object(data_path, name), []
    except UserError as error:
        info = CATALOG.get(name) or ObjectInfo(name, name, masks=has_masks(data_path, name))
        return info, [Finding(ERROR, "settings", str(error))]


def file_tasks(info: ObjectInfo, groups: Sequence[Group]) -> list[Task]:
    """Return all files of an object that are to be decoded."""
    tasks = []
    for group in groups:
        tasks += [Task(group.images.folder / name, "") for name in group.images.names]
        if info.masks or not group.label:
            tasks += [Task(group.masks.folder / name, info.mask_rule) for name in group.masks.names]
    return tasks


def gather(
    data_path: Path,
    info: ObjectInfo,
    groups: list[Group],
    facts: dict[Path, ImageFacts | MaskFacts],
) -> Contents:
    """Return the contents of an object's folder, by path below it."""
    top = object_folder(data_path, info.name)
    images: dict[str, ImageFacts] = {}
    masks: dict[str, MaskFacts] = {}
    for path, found in facts.items():
        key = path.relative_to(top).as_posix()
        if isinstance(found, ImageFacts):
            images[key] = found
        else:
            masks[key] = found
    return Contents(info, top, groups, images, masks)


def object_findings(data_path: Path, contents: Contents, lists: Path) -> Iterator[Finding]:
    """Yield everything about one object."""
    yield from folder_findings(contents, strangers(data_path, contents.info.name))
    yield from count_findings(contents)
    yield from pair_findings(contents)
    yield from image_findings(contents)
    yield from mask_findings(contents)
    yield from duplicate_findings(contents)
    yield from list_findings(contents, lists)
    yield from case_findings(contents, lists)


def row(contents: Contents, group: Group) -> Row:
    """Return the table's row of one split and state."""
    facts = [contents.images[group.image(name)] for name in group.images.names]
    readable = [fact for fact in facts if not fact.problem]
    sizes = Counter(name_size(fact.size) for fact in readable)
    modes = Counter(fact.mode for fact in readable)
    return Row(
        group.split,
        group.state,
        len(group.images.names),
        len(group.masks.names),
        one_or_count(sizes, "sizes"),
        one_or_count(modes, "modes"),
    )


def one_or_count(values: Counter[str], noun: str) -> str:
    """Return the only value, or how many there are; "" for none."""
    return next(iter(values), "") if len(values) < 2 else f"{len(values)} {noun}"


def write_report(report: Report, path: str | None) -> None:
    """Print a report, and write it as JSON to a file; "-": print JSON alone. Raises UserError."""
    if path == "-":
        sys.stdout.write(report.json())
        return
    sys.stdout.write(report.text())
    if path is not None:
        try:
            Path(path).write_text(report.json(), encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"--json {path} cannot be written ({error.strerror}); choose another file"
            ) from error
