"""Plotly figures as plain JSON values: shot curves, ROC curves and precision-recall curves."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from report.study import DONE, Cell, Study, TableSpec, number
from report.tables import METRIC_TITLES, Table

# colours that stay apart for every kind of colour vision (Okabe and Ito), and a dash for each besides
BRANCHES = {"both": ("#1b1b1b", "solid"), "text": ("#0072b2", "dash"), "memory": ("#d55e00", "dot")}
SHOT_LINES = {
    "ours": ("this study", "#0072b2", "solid", "circle"),
    "paper": ("paper", "#d55e00", "dash", "square"),
    "implementation": ("authors' implementation", "#007a59", "dot", "diamond"),
}
CURVES = {
    "roc": ("ROC", "false positive rate", "true positive rate"),
    "pr": ("Precision and recall", "recall", "precision"),
}

Plot = dict[str, Any]


def plain(figure: go.Figure) -> Plot:
    """A figure as JSON values."""
    return dict(json.loads(figure.to_json()))


def layout(title: str, across: str, up: str) -> go.Layout:
    """The look that all plots share; the page sets the width."""
    return go.Layout(
        template="none",
        title={"text": title, "font": {"size": 15}, "x": 0.02, "xanchor": "left"},
        xaxis={
            "title": {"text": across},
            "gridcolor": "#e4e4e4",
            "zeroline": False,
            "automargin": True,
        },
        yaxis={
            "title": {"text": up},
            "gridcolor": "#e4e4e4",
            "zeroline": False,
            "automargin": True,
        },
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        margin={"l": 50, "r": 12, "t": 40, "b": 40},
        height=340,
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1b1b1b"},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        hovermode="closest",
    )


def shot_plot(spec: TableSpec, records: Sequence[Mapping[str, Any]], title: str) -> Plot | None:
    """AUROC in percent over the number of shots, of one object and metric; None where there is no figure at all."""
    by_row = {record["row"]: record for record in records}
    points = [
        (k, by_row[row])
        for k, row in sorted(zip(spec.shots, spec.rows, strict=True))
        if row in by_row
    ]
    figure = go.Figure(layout=layout(title, "shots K", "AUROC in percent"))
    for key, (name, colour, dash, symbol) in SHOT_LINES.items():
        kept = [(k, record) for k, record in points if number(record[key]) is not None]
        if not kept:
            continue
        deviations = [number(record["sd"]) for _, record in kept] if key == "ours" else []
        bars = (
            {"type": "data", "array": [d or 0 for d in deviations], "visible": True}
            if any(deviations)
            else None
        )
        figure.add_scatter(
            x=[k for k, _ in kept],
            y=[round(record[key], 4) for _, record in kept],
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
    """The shot curves of a table by plot name; empty unless the table is a shot curve."""
    plots = {}
    for obj in spec.objects if spec.shots else ():
        for metric in study.metrics_of(obj):
            told = METRIC_TITLES[metric]
            records = [r for r in long.records if (r["object"], r["metric"]) == (obj, told)]
            plot = shot_plot(spec, records, f"{obj}, {told}")
            if plot:
                plots[f"{spec.name}-{obj}-{metric}"] = plot
    return plots


def curve_plot(cell: Cell, level: str, kind: str) -> Plot | None:
    """ROC ("roc") or precision over recall ("pr") of the branches of a cell, at "image" or "pixel" level."""
    told, across, up = CURVES[kind]
    figure = go.Figure(layout=layout(f"{told}, {level} level", across, up))
    for branch, (colour, dash) in BRANCHES.items():
        measures = cell.measures(level, branch)
        points = [(round(float(x), 4), round(float(y), 4)) for x, y in measures.get(kind) or []]
        if not points:
            continue
        area = number(measures.get("auroc" if kind == "roc" else "average_precision"))
        name = branch if area is None else f"{branch} ({100 * area:.2f})"
        xs, ys = zip(*points, strict=True)
        figure.add_scatter(
            x=list(xs), y=list(ys), name=name, mode="lines", line={"color": colour, "dash": dash}
        )
    if not figure.data:
        return None
    if kind == "roc":
        figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"color": "#8a8a8a", "width": 1})
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(range=[-0.02, 1.02])
    return plain(figure)


def curve_plots(cell: Cell) -> dict[str, Plot]:
    """All curves of a done cell by "<level>-<kind>"; those that it lacks are left out."""
    if cell.state != DONE:
        return {}
    plots = {
        f"{level}-{kind}": curve_plot(cell, level, kind)
        for level in ("image", "pixel")
        for kind in CURVES
    }
    return {name: plot for name, plot in plots.items() if plot}
