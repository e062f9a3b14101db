"""What the methods of a table cost: time, memory and parameters of their runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from report.study import AVERAGE, DONE, Cell, Study, TableSpec, number
from report.tables import Column, Table, mean, table

MIB = 2**20  # bytes
MEASURED = ("training_seconds", "image_seconds", "bank")
WHOLE = ("parameters", "training_memory", "test_memory")  # shown without decimals
COST_COLUMNS = (
    Column("row", "Row"),
    Column("object", "Object"),
    Column("parameters", "Trained parameters", 0),
    Column("training_seconds", "Training, s", 1),
    Column("image_seconds", "A test image, s", 4),
    Column("bank", "Memory bank, MiB", 1),
    Column("training_memory", "Peak memory of training, MiB", 0),
    Column("test_memory", "of the test, MiB", 0),
    Column("memory", "Memory of"),
    Column("runs", "Runs", 0),
)


def peak(metrics: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return the peak memory of a run in MiB, and whose it is: the GPU's if it used one."""
    peaks = metrics.get("peak_memory_bytes") or {}
    name = next((name for name in peaks if name != "host"), "host")  # the device's, if counted
    value = number(peaks.get(name))
    return (None, "") if value is None else (value / MIB, name)


def cell_cost(cell: Cell) -> dict[str, Any]:
    """Return what a done run cost; None where it has not recorded it.

    A method without trained parameters has trained for no time.
    """
    cost = cell.metrics.get("cost") or {}
    bank = number(cost.get("bank_bytes"))
    parameters = cell.metrics.get("trained_parameters")
    test_memory, memory = peak(cell.metrics)
    return {
        "parameters": parameters,
        "training_seconds": 0.0 if parameters == 0 else number(cell.training.get("seconds")),
        "image_seconds": number(cost.get("image_seconds")),
        "bank": None if bank is None else bank / MIB,
        "training_memory": peak(cell.training)[0],
        "test_memory": test_memory,
        "memory": memory,
    }


def merged(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of several costs, of each value over those that have it."""
    record: dict[str, Any] = {
        name: mean(cost[name] for cost in costs) for name in (*MEASURED, *WHOLE)
    }
    for name in WHOLE:
        record[name] = None if record[name] is None else round(record[name])
    record["memory"] = ", ".join(unique(cost["memory"] for cost in costs))
    return record


def unique(texts: Iterable[str]) -> list[str]:
    """Return texts that are not empty, each once."""
    return [text for text in dict.fromkeys(texts) if text]


def cost_table(study: Study, spec: TableSpec) -> Table:
    """Return what each row of a table cost: on average over its objects, then by object.

    Rows that show branches of one run are there once.
    """
    records = []
    seen: set[tuple[object, ...]] = set()
    for row in spec.rows:
        by_object: list[dict[str, Any]] = []
        for obj in spec.objects:
            cells = [cell for cell in study.at(spec.name, row, obj) if cell.state == DONE]
            folders = tuple(cell.folder for cell in cells)
            if cells and (None in folders or folders not in seen):
                costs = [cell_cost(cell) for cell in cells]
                by_object.append({"object": obj, "runs": len(cells)} | merged(costs))
            seen.add(folders)
        if by_object:
            runs = sum(record["runs"] for record in by_object)
            average = {"object": AVERAGE, "runs": runs} | merged(by_object)
            records += [{"row": row} | record for record in (average, *by_object)]
    return table(f"{spec.name}-costs", COST_COLUMNS, records)


def averages(costs: Table) -> Table:
    """Return the averages over objects of a cost table."""
    columns = tuple(column for column in costs.columns if column.key != "object")
    records = [record for record in costs.records if record["object"] == AVERAGE]
    return table(f"{costs.name}-average", columns, records)
