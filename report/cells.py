"""Cells of tables: the training and the test that fill each. This module needs no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from dataset.catalog import CATALOG, existing_folder
from dataset.layout import LABELS, image_folder, list_images
from dataset.shots import RANDOM_DRAW
from mvfa.defaults import FEW, ZERO
from mvfa.methods.catalog import METHODS, MVFA, MethodInfo
from mvfa.recipe import LEVELS
from report.experiments import (
    ALL_LEVELS_ROW,
    ALL_SHOTS_ROW,
    ALL_SWITCHES,
    ALONE,
    AMONG,
    APRIL_ROW,
    BRANCH_ROWS,
    FEW_ROW,
    MASK_ROW,
    METHOD_ROWS,
    NORMAL_ROW,
    PAPER_SHOT,
    PROJECTOR_ROW,
    SWITCHES,
    TABLES,
    ZERO_ROW,
    StudyOptions,
    new_objects,
    objects_of,
    switch_flags,
)


def pairs(flags: Sequence[str]) -> list[tuple[str, str]]:
    """Return flags and their values, two by two."""
    return list(zip(flags[::2], flags[1::2], strict=True))


@dataclass(frozen=True)
class Training:
    """One training: its setting ("few" or "zero"), its object, and the flags it alone has."""

    setting: str
    obj: str
    flags: tuple[str, ...]

    @property
    def method(self) -> MethodInfo:
        """The method that is trained."""
        return METHODS[dict(pairs(self.flags)).get("--method", MVFA)]

    @property
    def trains(self) -> bool:
        """Whether the method has anything to train; else its folder holds tests only."""
        return bool(self.method.keys)


@dataclass(frozen=True)
class CellSpec:
    """A table's cell for one seed and draw, and the run that fills it.

    `script` and `flags` are those of the test (`flags` beside the training's); `branch` is the one
    whose scores the cell shows; `shot` is K, and 0 where the run has no shots.
    """

    table: str
    row: str
    obj: str
    seed: int
    draw: int
    training: Training
    script: str
    flags: tuple[str, ...] = ()
    branch: str = "both"
    shot: int = 0


@dataclass(frozen=True)
class CellFactory:
    """Makes the cells of one table, object, seed and draw."""

    options: StudyOptions
    table: str
    obj: str
    seed: int
    draw: int

    def few(
        self, row: str, *flags: str, shot: int = PAPER_SHOT, draw: int | None = None
    ) -> CellSpec:
        """Return the cell of a few-shot run; `flags` are the training's."""
        draw = self.draw if draw is None else draw
        fixed = ("--seed", str(self.seed), "--shot", str(shot), "--iterate", str(draw))
        training = Training(FEW, self.obj, (*fixed, *flags))
        return self.cell(row, training, "test_few", shot)

    def zero(self, row: str, *flags: str) -> CellSpec:
        """Return the cell of a zero-shot run; `flags` are the training's."""
        training = Training(ZERO, self.obj, ("--seed", str(self.seed), *flags))
        return self.cell(row, training, "test_zero", 0)

    def normal(self, row: str) -> CellSpec:
        """Return the cell of a run with normal shots only."""
        flags = ("--shot", str(PAPER_SHOT), "--iterate", str(self.draw), "--abnormal_shot", "0")
        return replace(self.zero(row), script="test_few", flags=flags, shot=PAPER_SHOT)

    def cell(self, row: str, training: Training, script: str, shot: int) -> CellSpec:
        """Return a cell of this table, object, seed and draw."""
        return CellSpec(
            self.table, row, self.obj, self.seed, self.draw, training, script, shot=shot
        )


def level_cells(factory: CellFactory) -> list[CellSpec]:
    """Return the cells of table 5."""
    blocks = tuple(map(str, LEVELS))
    alone = [
        factory.few(row, "--features_list", block) for row, block in zip(ALONE, blocks, strict=True)
    ]
    among = [
        replace(factory.few(row), flags=("--score_levels", block))
        for row, block in zip(AMONG, blocks, strict=True)
    ]
    return [*alone, *among, factory.few(ALL_LEVELS_ROW)]


def switch_cells(factory: CellFactory) -> list[CellSpec]:
    """Return the cells of the table that compares paper and released code."""
    every = [name for names in SWITCHES.values() for name in names]
    rows = {**SWITCHES, ALL_SWITCHES: every}
    # the rows start from the released recipe, whatever --recipe says
    released = ("--recipe", "released") if "paper" in factory.options.run_flags else ()
    cells = [factory.few(row, *released, *switch_flags(names)) for row, names in rows.items()]
    if factory.obj in CATALOG and not CATALOG[factory.obj].masks:
        return cells
    return [*cells, factory.few(MASK_ROW, *released, "--mask_rule", "any")]


def method_cells(factory: CellFactory) -> list[CellSpec]:
    """Return the cells of the table that compares methods."""
    cells = []
    for row in METHOD_ROWS:
        flags = row.flags
        if row.row == APRIL_ROW and "paper" in factory.options.run_flags:
            flags = ("--projector", "all")  # of the paper's recipe, as the other rows are
        make = factory.few if row.setting == FEW else factory.zero
        cells.append(replace(make(row.row, *flags), branch=row.branch))
    return cells


def all_shots_cells(factory: CellFactory) -> list[CellSpec]:
    """Return the cell of the run with all available shots."""
    shot = available_shots(factory.options.data_path, factory.obj)
    return [factory.few(ALL_SHOTS_ROW, shot=shot, draw=RANDOM_DRAW)]


CELLS: dict[str, Callable[[CellFactory], list[CellSpec]]] = {
    "table1": lambda f: [f.few(FEW_ROW)],
    "figure3": lambda f: [f.few(f"K = {k}", shot=k) for k in f.options.shots],
    "table2": lambda f: [f.zero(ZERO_ROW)],
    "table4": lambda f: [f.zero(ZERO_ROW), f.zero(PROJECTOR_ROW, "--projector", "all")],
    "table5": level_cells,
    "figure5": lambda f: [f.few(FEW_ROW), f.zero(ZERO_ROW)],
    "branches": lambda f: [
        replace(f.few(row), branch=branch) for row, branch in BRANCH_ROWS.items()
    ],
    "normal": lambda f: [f.normal(NORMAL_ROW)],
    "allshots": all_shots_cells,
    "skin": lambda f: [f.few(FEW_ROW), f.zero(ZERO_ROW)],
    "switches": switch_cells,
    "rivals": method_cells,
}


def available_shots(data_path: Path, obj: str) -> int:
    """Return how many shots of each label valid/ of an object has: the smaller number."""
    return min(len(list_images(image_folder(data_path, obj, "valid", s))) for s in LABELS)


def cell_specs(options: StudyOptions) -> list[CellSpec]:
    """Return every cell of every table asked for; a run that has no draw is there once.

    Raises UserError if an object that is in no table has no folder.
    """
    for obj in new_objects(options):
        existing_folder(options.data_path, obj)
    specs = []
    for table in (name for name in TABLES if name in options.tables):
        for obj, seed, draw in product(objects_of(table, options), options.seeds, options.draws):
            cells = CELLS[table](CellFactory(options, table, obj, seed, draw))
            first = draw == options.draws[0]
            specs += [cell for cell in cells if first or (cell.shot and table != "allshots")]
    if not options.disjoint_cases:
        return specs
    more = ("--disjoint_cases", "yes")
    return [
        replace(spec, flags=(*spec.flags, *more)) if spec.script == "test_few" else spec
        for spec in specs
    ]
