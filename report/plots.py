"""Plotly figures of shot curves, as plain JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from mvfa.curve_plots import Plot, layout, plain
from report.study import Study, TableSpec, number
from report.tables import METRIC_TITLES, Table

# distinguishable with every kind of colour vision (Okabe and Ito), each with its own dash
SHOT_LINES = {
    "ours": ("this study", "#0072b2", "solid", "circle"),
    "paper": ("paper", "#d55e00", "dash", "square"),
    "implementation": ("authors' implementation", "#007a59", "dot", "diamond"),
}


def shot_plot(spec: TableSpec, records: Sequence[Mapping[str, Any]], title: str) -> Plot | None:
    """Return AUROC in percent over the number of shots, of one object and metric.

    None where there is no result at all. Error bars are sample standard deviations over runs.
    """
    by_row = {record["row"]: record for record in records}
    points = [
        (k, by_row[row])
        for k, row in sorted(zip(spec.shots, spec.rows, strict=True))
        if row in by_row
    ]
    figure = go.Figure(layout=layout(title, "shots K", "AUROC in percent"))
    for key, (name, colour, dash, symbol) in SHOT_LINES.items():
        scored = [(k, record) for k, record in points if number(record[key]) is not None]
        if not scored:
            continue
        deviations = [number(record["sd"]) for _, record in scored] if key == "ours" else []
        bars = None
        if any(deviations):
            bars = {"type": "data", "array": [sd or 0 for sd in deviations], "visible": True}
        figure.add_scatter(
            x=[k for k, _ in scored],
            y=[round(record[key], 4) for _, record in scored],
            name=name,
            mode="lines+markers",
            error_y=bars,
            line={"color": colour, "dash": dash},
            marker={"symbol": symbol, "size": 8},
        )
    if not figure.data:
        return None
    shots = sorted(set(spec.shots))
    figure.update_xaxes(type="log", tickvals=shots, ticktext=[str(k) for k in shots])
    return plain(figure)


def shot_plots(study: Study, spec: TableSpec, long: Table) -> dict[str, Plot]:
    """Return the shot curves of a table by plot name; empty unless the table is a shot curve."""
    plots = {}
    for obj in spec.objects if spec.shots else ():
        for metric in study.metrics_of(obj):
            title = METRIC_TITLES[metric]
            records = [r for r in long.records if (r["object"], r["metric"]) == (obj, title)]
            plot = shot_plot(spec, records, f"{obj}, {title}")
            if plot:
                plots[f"{spec.name}-{obj}-{metric}"] = plot
    return plots
