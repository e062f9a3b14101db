"""The tables and figures of the paper and of the study: rows, objects, and published results.

This module needs no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataset.catalog import PAPER_ORDER
from mvfa.defaults import FEW, ZERO
from mvfa.methods.catalog import CLIP, METHODS, MVFA, PATCH_MEMORY
from mvfa.recipe import APRIL_GAN, LEVELS, RECIPES
from report.study import Published, Source, TableSpec

PAPER_SHOT = 4  # K of table 1, table 5 and the additions
PAPER = "MVFA"  # methods in paper_results.csv
IMPLEMENTATION = "MVFA (implementation)"
SKIN = ("Skin", "Skin_HAM10000", "Skin_ISIC2019")  # the first is the default

TABLES = (
    "table1",
    "figure3",
    "table2",
    "table4",
    "table5",
    "figure5",
    "branches",
    "normal",
    "allshots",
    "skin",
    "switches",
    "rivals",
)
SHORTCUTS = "shortcuts"  # a table of scores that need no run
FEW_ROW = f"MVFA, {PAPER_SHOT}-shot"
ZERO_ROW = "MVFA, zero-shot"
APRIL_ROW = f"April-GAN form, {PAPER_SHOT}-shot"
PROJECTOR_ROW = "MVFA, projectors instead of adapters"
ALL_LEVELS_ROW = "all levels"
ALL_SHOTS_ROW = "all shots"
NORMAL_ROW = f"{PAPER_SHOT} normal shots, zero-shot adapters"
ALONE = tuple(f"level {i + 1}, trained alone" for i in range(len(LEVELS)))
AMONG = tuple(f"level {i + 1}, trained with the others" for i in range(len(LEVELS)))
BRANCH_ROWS = {
    "both branches": "both",
    "without the memory branch": "text",
    "without the text branch": "memory",
}

SWITCHES = {  # rows, and the recipe fields that take the paper's value
    "released code": (),
    "image score: maximum over patches": ("image_score",),
    "mixing 0.9 / 0.1, ReLU, projector at the last level": ("keep", "mix", "slope", "projector"),
    "image loss: maximum, taken as probability": ("bce_pool", "bce_input"),
    "memory without class tokens": ("bank_class_token",),
    "mean over levels": ("level_reduction",),
    "QuickGELU, CLIP's image scaling": ("activation", "scaling"),
}
ALL_SWITCHES = "all of these"
MASK_ROW = "mask rule: any grey"  # the released code counts those above half

TITLES = {  # and captions
    "table1": ("Table 1: few-shot", "Four normal and four abnormal images of the object."),
    "figure3": (
        "Figure 3: number of shots",
        "AUROC by the number K of normal and of abnormal shots. K = 4 is from table 1.",
    ),
    "table2": (
        "Table 2: zero-shot",
        "Trained on the test splits of the benchmark's other objects.",
    ),
    "table4": (
        "Table 4: projectors instead of adapters",
        "Zero-shot. A projector reads the tokens as an adapter does but adds nothing to them.",
    ),
    "table5": (
        "Table 5: levels",
        "4-shot. Adapters at one level, or at all with one scored. The paper has averages only.",
    ),
    "figure5": (
        "Figure 5: heat maps",
        "Few-shot and zero-shot runs of the same objects; their heat maps are below.",
    ),
    "branches": ("Addition: one branch alone", "The runs of table 1, scored by one branch."),
    "normal": (
        "Addition: normal shots only",
        "The object's normal shots fill the memory bank; the adapters are zero-shot ones.",
    ),
    "allshots": (
        "Addition: all available shots",
        "As many normal and abnormal shots as the smaller of the two folders of valid/ has.",
    ),
    "skin": ("Addition: a new modality", "Skin, which the paper does not have."),
    "switches": (
        "Addition: paper against released code",
        "The runs of table 1, with one choice of the paper at a time; last, all greys of masks.",
    ),
    "rivals": (
        "Addition: other methods",
        "The same images, shots, truths and metrics for every method.",
    ),
}


@dataclass(frozen=True)
class MethodRow:
    """A row of the table that compares methods.

    Args:
        row: its name.
        setting: "few" or "zero".
        flags: of its runs, beside those of every run of the setting.
        branch: whose scores it shows.

    """

    row: str
    setting: str
    flags: tuple[str, ...] = ()
    branch: str = "both"


# what a method's row is split into, by method
SPLIT = {CLIP: {"text and memory": "both", "text": "text", "memory": "memory"}}


def few_rows(method: str) -> list[MethodRow]:
    """Return the rows of a method that has shots: of both labels if it is trained, else normal."""
    title = METHODS[method].title
    if method == MVFA:
        return [MethodRow(FEW_ROW, FEW), MethodRow(APRIL_ROW, FEW, ("--recipe", APRIL_GAN))]
    flags: tuple[str, ...] = ("--method", method)
    if METHODS[method].keys:
        return [MethodRow(f"{title}, {PAPER_SHOT}-shot", FEW, flags)]
    flags += ("--abnormal_shot", "0")
    if method in SPLIT:
        return [
            MethodRow(f"{title}, {part}", FEW, flags, branch)
            for part, branch in SPLIT[method].items()
        ]
    return [MethodRow(f"{title}, {PAPER_SHOT} normal shots", FEW, flags)]


def zero_row(method: str) -> MethodRow:
    """Return the row of a method without an image of the object."""
    flags = () if method == MVFA else ("--method", method)
    return MethodRow(f"{METHODS[method].title}, zero-shot", ZERO, flags)


# of every method in the catalog; the first is the one that the others are compared with
METHOD_ROWS = (
    *(row for name, info in METHODS.items() if info.runs("test_few") for row in few_rows(name)),
    *(zero_row(name) for name, info in METHODS.items() if info.runs("test_zero")),
)


@dataclass(frozen=True)
class StudyOptions:
    """Which tables, objects and runs a study has.

    `run_flags` are the flags of every run that change results, `training_flags` those of trainings
    only, by setting ("few", "zero"); `neutral_flags` change no result. `published` is the folder of
    the authors' adapters: these are then tested, and nothing is trained.
    """

    tables: tuple[str, ...]
    objects: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    draws: tuple[int, ...]
    data_path: Path
    fewshot_path: Path
    model_name: str | None
    clip_path: Path | None
    run_flags: tuple[str, ...]
    training_flags: dict[str, tuple[str, ...]]
    neutral_flags: tuple[str, ...]
    pictures: int  # of each run
    published: Path | None = None
    disjoint_cases: bool = False  # whether few-shot tests are also scored without the shots' cases
    dino_model: str | None = METHODS[PATCH_MEMORY].model
    dino_path: Path | None = None


def switch_flags(names: Iterable[str]) -> list[str]:
    """Return flags that set recipe fields to the paper's values."""
    flags = []
    for name in names:
        value = getattr(RECIPES["paper"], name)
        if isinstance(value, bool):
            value = "yes" if value else "no"
        flags += [f"--{name}", str(value)]
    return flags


def published_rows(options: StudyOptions) -> dict[str, list[Published]]:
    """Return the rows of every table, each with the sources of its published results."""
    few = Published(
        FEW_ROW,
        Source("Table 1", "4", PAPER),
        Source("README few-shot", "4", IMPLEMENTATION),
    )
    zero = Published(
        ZERO_ROW,
        Source("Table 2", "0", PAPER),
        Source("README zero-shot", "0", IMPLEMENTATION),
    )
    levels = [
        Published(row, Source("Table 5", "4", f"MVFA, level {i + 1} only, {kind}-level training"))
        for kind, rows in (("single", ALONE), ("multi", AMONG))
        for i, row in enumerate(rows)
    ]
    every_level = Published(ALL_LEVELS_ROW, Source("Table 5", "4", "MVFA, all levels"))
    return {
        "table1": [few],
        "figure3": [Published(f"K = {k}", shot_source(k)) for k in options.shots],
        "table2": [zero],
        "table4": [zero, Published(PROJECTOR_ROW, Source("Table 4", "0", PROJECTOR_ROW))],
        "table5": [*levels, every_level],
        "figure5": [few, zero],
        "branches": [Published(row) for row in BRANCH_ROWS],
        "normal": [Published(NORMAL_ROW)],
        "allshots": [Published(ALL_SHOTS_ROW)],
        "skin": [Published(FEW_ROW), Published(ZERO_ROW)],
        "switches": [Published(row) for row in (*SWITCHES, ALL_SWITCHES, MASK_ROW)],
        "rivals": [
            {FEW_ROW: few, ZERO_ROW: zero}.get(row.row, Published(row.row)) for row in METHOD_ROWS
        ],
    }


def shot_source(k: int) -> Source:
    """Return where the point of figure 3 with K shots was published."""
    return Source("Table 1" if k == PAPER_SHOT else "Figure 3", str(k), PAPER)


def table_specs(options: StudyOptions) -> tuple[TableSpec, ...]:
    """Return the tables that were asked for, in the paper's order, additions last."""
    rows = published_rows(options)
    return tuple(
        TableSpec(
            name,
            *TITLES[name],
            rows=tuple(p.row for p in rows[name]),
            objects=objects_of(name, options),
            published=tuple(rows[name]),
            shots=options.shots if name == "figure3" else (),
            heat_maps=name == "figure5",
            methods=name == "rivals",
        )
        for name in TABLES
        if name in options.tables
    )


def objects_of(table: str, options: StudyOptions) -> tuple[str, ...]:
    """Return the objects of a table: in the paper's order, then those that the paper has not."""
    if table == "skin":
        return tuple(obj for obj in SKIN if obj in options.objects) or SKIN[:1]
    known = tuple(obj for obj in PAPER_ORDER if obj in options.objects)
    return (*known, *new_objects(options))


def new_objects(options: StudyOptions) -> tuple[str, ...]:
    """Return the objects that neither the paper nor the table skin has."""
    return tuple(obj for obj in options.objects if obj not in (*PAPER_ORDER, *SKIN))
