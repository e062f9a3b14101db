"""Published results of other methods, and whether they may stand beside those of MVFA.

A result may if its protocol is that of one of MVFA's tables.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvfa.defaults import FEW, ZERO
from mvfa.pages import NONE
from report.compact import OURS, CellText, Compact, Line, pair
from report.experiments import PAPER, PAPER_SHOT
from report.study import DONE, METRICS, Cell, Study, TableSpec
from report.tables import METRIC_TITLES, Column, Table, mean, table

RIVALS = Path(__file__).parent / "rivals.csv"
PIXELS = 240  # image side of the paper, at which pixels are scored
MASK_RULE = "half"  # of the released code
SAME_LISTS = "same lists"  # trained on the shots of the published lists
OTHER_OBJECTS = "the benchmark's other objects"
DATA = {SAME_LISTS: "the published lists"}  # in words; other data are their own
SETTINGS = {FEW: "few-shot", ZERO: "zero-shot"}  # in words; another setting is its own
RIVAL_COLUMNS = (
    Column("method", "Method"),
    Column("object", "Object"),
    Column("metric", "Metric"),
    Column("value", "Published", 2),
    Column("comparable", "Comparable"),
    Column("why", "Why"),
    Column("setting", "Setting"),
    Column("shots", "Shots"),
    Column("trained_on", "Trained on"),
    Column("pixels", "Image side in pixels", 0),
    Column("backbone", "Backbone"),
    Column("mask_rule", "Mask rule"),
    Column("source", "Source"),
    Column("note", "Note"),
)


@dataclass(frozen=True)
class Protocol:
    """What decides whether two results are of the same task and the same truth.

    Args:
        setting: "few", "zero", or another one in words.
        shots: normal + abnormal ones, as "4+4"; "0" in zero-shot.
        trained_on: the data that the method learned from.
        pixels: side of the images, at which pixels are counted.
        mask_rule: which grey values of a mask are foreground: "half" or "any".

    """

    setting: str
    shots: str
    trained_on: str
    pixels: int
    mask_rule: str

    @property
    def title(self) -> str:
        """The protocol in words."""
        shots = f", {self.shots} shots" if self.setting == FEW else ""
        setting = SETTINGS.get(self.setting, self.setting)
        data = f"trained on {DATA.get(self.trained_on, self.trained_on)}"
        return f"{setting}{shots}, {data}, {self.pixels} px, mask rule {self.mask_rule}"


@dataclass(frozen=True)
class Rival:
    """One published result, in percent, with its protocol and its source."""

    method: str
    obj: str
    metric: str
    value: float
    protocol: Protocol
    backbone: str
    source: str
    note: str


@dataclass(frozen=True)
class SideBySide:
    """Results of one protocol: the paper's, those of others, and the study's own.

    `reasons` say why the study's own are left out; empty where they are there.
    """

    spec: TableSpec
    protocol: Protocol
    compact: Compact
    reasons: tuple[str, ...]


def load_rivals(path: Path = RIVALS) -> list[Rival]:
    """Read rivals.csv. Raises ValueError for a metric that is not one of METRICS."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if unknown := {row["metric"] for row in rows} - set(METRICS):
        raise ValueError(f"{path}: metrics {sorted(unknown)}; allowed: {', '.join(METRICS)}")
    return [
        Rival(
            method=row["method"],
            obj=row["object"],
            metric=row["metric"],
            value=float(row["value"]),
            protocol=Protocol(
                row["setting"],
                row["shots"],
                row["trained_on"],
                int(row["pixels"]),
                row["mask_rule"],
            ),
            backbone=row["backbone"],
            source=row["source"],
            note=row["note"],
        )
        for row in rows
    ]


def mvfa_protocol(shot: int) -> Protocol:
    """Return the protocol of MVFA's results with K shots of each label; 0: zero-shot."""
    if shot:
        return Protocol(FEW, f"{shot}+{shot}", SAME_LISTS, PIXELS, MASK_RULE)
    return Protocol(ZERO, "0", OTHER_OBJECTS, PIXELS, MASK_RULE)


def differences(theirs: Protocol, ours: Protocol, metric: str) -> list[str]:
    """Return in words why results of two protocols cannot stand side by side; empty if they can.

    The truth of an image is the folder it is in. That of a pixel depends on the mask rule and on
    the size at which masks are counted.
    """
    reasons = []
    if theirs.setting != ours.setting:
        setting = SETTINGS.get(theirs.setting, theirs.setting)
        reasons.append(f"setting {setting}, not {SETTINGS[ours.setting]}")
    elif theirs.shots != ours.shots:
        reasons.append(f"{theirs.shots} shots, not {ours.shots}")
    if theirs.trained_on != ours.trained_on:
        data = DATA.get(ours.trained_on, ours.trained_on)
        reasons.append(f"trained on {theirs.trained_on}, not on {data}")
    if metric == "pixel_auroc":
        if theirs.mask_rule != ours.mask_rule:
            reasons.append(f"another truth: mask rule {theirs.mask_rule}, not {ours.mask_rule}")
        if theirs.pixels != ours.pixels:
            reasons.append(f"pixels of {theirs.pixels} px images, not {ours.pixels} px")
    return reasons


def nearest(rival: Rival, protocols: Sequence[Protocol]) -> tuple[Protocol, list[str]]:
    """Return which of MVFA's protocols differs least from a result's, and how it differs."""
    pairs = [(ours, differences(rival.protocol, ours, rival.metric)) for ours in protocols]
    return min(pairs, key=lambda pair: len(pair[1]))


def protocols_of(specs: Sequence[TableSpec]) -> dict[Protocol, tuple[TableSpec, str]]:
    """Return the protocols in which MVFA was published, each with the first table and row of it."""
    found: dict[Protocol, tuple[TableSpec, str]] = {}
    for spec in specs:
        for source in spec.published:
            if source.paper is not None and source.paper.method == PAPER:
                found.setdefault(mvfa_protocol(int(source.paper.shot)), (spec, source.row))
    return found


def rival_table(study: Study, rivals: Sequence[Rival]) -> Table:
    """Return the published results of the study's objects, each with a verdict: comparable or not.

    By object and metric, comparable ones first.
    """
    objects = list(dict.fromkeys(obj for spec in study.specs for obj in spec.objects))
    protocols = [mvfa_protocol(PAPER_SHOT), mvfa_protocol(0)]
    protocols += [p for p in protocols_of(study.specs) if p not in protocols]
    records = []
    for rival in rivals:
        if rival.obj not in objects:
            continue
        ours, reasons = nearest(rival, protocols)
        verdict = "; ".join(reasons) or f"as MVFA's: {ours.title}"
        setting = SETTINGS.get(rival.protocol.setting, rival.protocol.setting)
        records.append(
            vars(rival)
            | vars(rival.protocol)
            | {"setting": setting, "object": rival.obj, "metric": METRIC_TITLES[rival.metric]}
            | {"comparable": "no" if reasons else "yes", "why": verdict}
        )
    records.sort(key=lambda r: (objects.index(r["object"]), r["metric"], r["comparable"] == "no"))
    return table("published", RIVAL_COLUMNS, records)


def own_protocol(cell: Cell) -> Protocol:
    """Return the protocol of a done run of this study, as far as its results record it."""
    options = cell.metrics.get("options") or {}
    shot = int(options.get("shot") or 0)
    return replace(
        mvfa_protocol(shot),
        pixels=int(options.get("img_size") or PIXELS),
        mask_rule=str(cell.metrics.get("mask_rule", MASK_RULE)),
    )


def own_reasons(study: Study, cells: Sequence[Cell], protocol: Protocol) -> list[str]:
    """Return why this study's results of a row cannot stand beside published ones."""
    if study.demo:
        return ["demo images"]
    found = [
        reason
        for cell in cells
        if cell.state == DONE
        for reason in differences(own_protocol(cell), protocol, "pixel_auroc")
    ]
    return list(dict.fromkeys(found))


def rival_cells(
    values: Mapping[tuple[str, str], float], study: Study, objects: Sequence[str]
) -> tuple[CellText, ...]:
    """Return the cells of one method: an object each, then the average where none is missing.

    `values` are percents by (object, metric).
    """
    averages: list[float | None] = []
    for metric in METRICS:
        found = [values.get((obj, metric)) for obj in objects if metric in study.metrics_of(obj)]
        if found:
            averages.append(None if None in found else mean(found))
    cells = [[values.get((obj, metric)) for metric in study.metrics_of(obj)] for obj in objects]
    return tuple(CellText(pair(found) or NONE) for found in (*cells, averages))


def comparable(rivals: Sequence[Rival], protocol: Protocol) -> dict[str, list[Rival]]:
    """Return the results that may stand beside those of a protocol, by method."""
    methods: dict[str, list[Rival]] = {}
    for rival in rivals:
        if not differences(rival.protocol, protocol, rival.metric):
            methods.setdefault(rival.method, []).append(rival)
    return methods


def side_by_side(
    study: Study, compacts: Mapping[str, Compact], rivals: Sequence[Rival]
) -> list[SideBySide]:
    """Return a table for each protocol with comparable results of others.

    `compacts` holds the compact form of each of the study's tables, by name.
    """
    tables = []
    for protocol, (spec, row) in protocols_of(study.specs).items():
        methods = comparable([r for r in rivals if r.obj in spec.objects], protocol)
        if not methods:
            continue
        cells = [cell for obj in spec.objects for cell in study.at(spec.name, row, obj)]
        reasons = own_reasons(study, cells, protocol)
        compact = compacts[spec.name]
        kept = [
            line
            for line in compact.lines
            if line.row == row and not (reasons and line.source == OURS)
        ]
        others = []
        for method, results in methods.items():
            values = {(r.obj, r.metric): r.value for r in results}
            origins = dict.fromkeys(
                f"{r.source}: {r.note}" if r.note else r.source for r in results
            )
            found = rival_cells(values, study, spec.objects)
            others.append(Line(method, "rival", found, "; ".join(origins)))
        lines = tuple(sorted([*kept, *others], key=lambda line: line.source == OURS))
        shown = Compact(compact.columns, lines, () if reasons else compact.notes)
        tables.append(SideBySide(spec, protocol, shown, tuple(reasons)))
    return tables
