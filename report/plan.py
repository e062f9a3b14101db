"""The tables and figures of the paper and of the study: their rows, their objects, and what was published of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mvfa.recipe import RECIPES
from report.study import OBJECTS, Published, Source, TableSpec

PAPER_SHOT = 4  # of table 1, table 5 and the additions
LEVELS = (6, 12, 18, 24)  # blocks with adapters
PAPER, OTHERS = "MVFA", "MVFA (implementation)"  # methods in paper_results.csv
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
)
FEW_ROW, ZERO_ROW = f"MVFA, {PAPER_SHOT}-shot", "MVFA, zero-shot"
PROJECTOR_ROW, ALL_ROW = "MVFA, projectors instead of adapters", "all levels"
NORMAL_ROW = f"{PAPER_SHOT} normal shots, zero-shot adapters"
ALONE = tuple(f"level {i + 1}, trained alone" for i in range(len(LEVELS)))
AMONG = tuple(f"level {i + 1}, trained with the others" for i in range(len(LEVELS)))
BRANCH_ROWS = {
    "both branches": "both",
    "without the memory branch": "text",
    "without the text branch": "memory",
}

SWITCHES = {  # rows, and the recipe fields of which the paper's value is taken
    "released code": (),
    "image score: maximum over patches": ("image_score",),
    "mixing 0.9 / 0.1, ReLU, projector at the last level": ("keep", "mix", "slope", "projector"),
    "image loss: maximum, taken as probability": ("bce_pool", "bce_input"),
    "memory without class tokens": ("bank_class_token",),
    "mean over levels": ("level_reduction",),
    "QuickGELU, CLIP's image scaling": ("activation", "scaling"),
}
ALL_SWITCHES = "all of these"


def switch_flags(names: Iterable[str]) -> list[str]:
    """Flags that set recipe fields to the paper's values."""
    values = {name: getattr(RECIPES["paper"], name) for name in names}
    told = {k: ("yes" if v else "no") if isinstance(v, bool) else str(v) for k, v in values.items()}
    return [part for name, value in told.items() for part in (f"--{name}", value)]


@dataclass(frozen=True)
class Wanted:
    """What a study is asked for.

    `shared` are the flags of every run that change results, `steering` those of trainings only, by setting.
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
    shared: tuple[str, ...]
    steering: dict[str, tuple[str, ...]]
    places: tuple[str, ...]  # flags that change no result
    pictures: int  # a run
    published: Path | None = (
        None  # the folder of the authors' adapters, where these are tested and nothing is trained
    )


TITLES = {  # and captions
    "table1": ("Table 1: few-shot", "Four normal and four abnormal images of the object."),
    "figure3": (
        "Figure 3: number of shots",
        "AUROC by the number K of normal and of abnormal shots. Published: K = 4 from table 1, others as quoted.",
    ),
    "table2": (
        "Table 2: zero-shot",
        "Trained on the test splits of the benchmark's other objects.",
    ),
    "table4": (
        "Table 4: projectors instead of adapters",
        "Zero-shot. A projector reads the stream as an adapter does but mixes nothing into it.",
    ),
    "table5": (
        "Table 5: levels",
        "4-shot. Adapters at one level alone; or at all four, of which one is scored. The paper has averages only.",
    ),
    "figure5": ("Figure 5: heat maps", "The pictures of these runs are in the gallery."),
    "branches": ("Addition: one branch alone", "The runs of table 1, scored by one branch."),
    "normal": (
        "Addition: normal shots only",
        "No abnormal image of the object: its normal shots fill the memory, the adapters are zero-shot ones.",
    ),
    "allshots": (
        "Addition: all available shots",
        "As many normal and abnormal shots as the smaller of the two folders of valid/ has.",
    ),
    "skin": ("Addition: a new modality", "Skin, which the paper does not have."),
    "switches": (
        "Addition: paper against released code",
        "The runs of table 1, with one choice of the paper at a time.",
    ),
}


def published(wanted: Wanted) -> dict[str, list[Published]]:
    """The rows of every table and what was published of them."""
    few = Published(FEW_ROW, Source("Table 1", "4", PAPER), Source("README few-shot", "4", OTHERS))
    zero = Published(
        ZERO_ROW, Source("Table 2", "0", PAPER), Source("README zero-shot", "0", OTHERS)
    )
    projectors = Published(PROJECTOR_ROW, Source("Table 4", "0", PROJECTOR_ROW))
    levels = [
        Published(row, Source("Table 5", "4", f"MVFA, level {i + 1} only, {kind}-level training"))
        for kind, rows in (("single", ALONE), ("multi", AMONG))
        for i, row in enumerate(rows)
    ]
    return {
        "table1": [few],
        "figure3": [Published(f"K = {k}", shot_source(k)) for k in wanted.shots],
        "table2": [zero],
        "table4": [zero, projectors],
        "table5": [*levels, Published(ALL_ROW, Source("Table 5", "4", "MVFA, all levels"))],
        "figure5": [few, zero],
        "branches": [Published(row) for row in BRANCH_ROWS],
        "normal": [Published(NORMAL_ROW)],
        "allshots": [Published("all shots")],
        "skin": [Published(FEW_ROW), Published(ZERO_ROW)],
        "switches": [Published(row) for row in (*SWITCHES, ALL_SWITCHES)],
    }


def shot_source(k: int) -> Source:
    """Where a point of figure 3 was published."""
    return Source("Table 1" if k == PAPER_SHOT else "Figure 3", str(k), PAPER)


def specs(wanted: Wanted) -> tuple[TableSpec, ...]:
    """The tables asked for."""
    rows = published(wanted)
    return tuple(
        TableSpec(
            name,
            *TITLES[name],
            rows=tuple(p.row for p in rows[name]),
            objects=objects_of(name, wanted),
            published=tuple(rows[name]),
            shots=wanted.shots if name == "figure3" else (),
            gallery=name == "figure5",
        )
        for name in TABLES
        if name in wanted.tables
    )


def objects_of(table: str, wanted: Wanted) -> tuple[str, ...]:
    """The objects of a table, in the paper's order."""
    if table == "skin":
        return tuple(obj for obj in SKIN if obj in wanted.objects) or SKIN[:1]
    return tuple(obj for obj in OBJECTS if obj in wanted.objects)
