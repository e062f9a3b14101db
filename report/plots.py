"""Plotly figures as plain JSON values: shot curves, ROC curves and precision-recall curves."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from report.study import DONE, Cell, Study, TableSpec, number
from report.tables import GRANULARITIES, METRIC_TITLES, Table

# distinguishable with every kind of colour vision (Okabe and Ito), each with its own dash
BRANCH_LINES = {
    "both": ("#1b1b1b", "solid"),
    "text": ("#0072b2", "dash"),
    "memory": ("#d55e00", "dot"),
}
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
    """Return a figure as JSON values."""
    return dict(json.loads(figure.to_json()))


def layout(title: str, across: str, up: str) -> go.Layout:
    """Return the layout that all plots share; the page sets the width."""
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


def curve_plot(cell: Cell, granularity: str, kind: str) -> Plot | None:
    """Return a cell's ROC ("roc") or precision-recall ("pr") curves, one for each branch.

    `granularity` is "image" or "pixel". None where there are no curves.
    """
    title, across, up = CURVES[kind]
    figure = go.Figure(layout=layout(f"{title}, {granularity}s", across, up))
    for branch, (colour, dash) in BRANCH_LINES.items():
        measures = cell.measures(granularity, branch)
        points = [(round(float(x), 4), round(float(y), 4)) for x, y in measures.get(kind) or []]
        if not points:
            continue
        area = number(measures.get("auroc" if kind == "roc" else "average_precision"))
        xs, ys = zip(*points, strict=True)
        figure.add_scatter(
            x=list(xs),
            y=list(ys),
            name=branch if area is None else f"{branch} ({100 * area:.2f})",
            mode="lines",
            line={"color": colour, "dash": dash},
        )
    if not figure.data:
        return None
    if kind == "roc":
        figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"color": "#8a8a8a", "width": 1})
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(range=[-0.02, 1.02])
    return plain(figure)


def curve_plots(cell: Cell) -> dict[str, Plot]:
    """Return the curves of a done cell by "<granularity>-<kind>", those that exist."""
    if cell.state != DONE:
        return {}
    plots = {
        f"{granularity}-{kind}": curve_plot(cell, granularity, kind)
        for granularity in GRANULARITIES
        for kind in CURVES
    }
    return {name: plot for name, plot in plots.items() if plot}
