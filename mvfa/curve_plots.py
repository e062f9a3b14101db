"""ROC and precision-recall curves as Plotly figures, in plain JSON values.

The page that shows them sets their width, and text, grid and background colours.
"""

import json
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

Plot = dict[str, Any]

GRANULARITIES = ("image", "pixel")
INK = "#1b1b1b"  # the page draws this colour as its text
# distinguishable with every kind of colour vision (Okabe and Ito), each with its own dash
BRANCH_LINES = {
    "both": (INK, "solid"),
    "text": ("#0072b2", "dash"),
    "memory": ("#d55e00", "dot"),
}
CURVES = {
    "roc": ("ROC", "false positive rate", "true positive rate"),
    "pr": ("Precision and recall", "recall", "precision"),
}
AREAS = {"roc": "auroc", "pr": "average_precision"}  # the metric that is the area under a curve


def plain(figure: go.Figure) -> Plot:
    """Return a figure as JSON values."""
    return dict(json.loads(figure.to_json()))


def layout(title: str, across: str, up: str) -> go.Layout:
    """Return the layout that all plots share."""
    axis = {"zeroline": False, "automargin": True}
    return go.Layout(
        template="none",
        title={"text": title, "font": {"size": 15}, "x": 0.02, "xanchor": "left"},
        xaxis={"title": {"text": across}, **axis},
        yaxis={"title": {"text": up}, **axis},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        margin={"l": 50, "r": 12, "t": 40, "b": 40},
        height=340,
        font={"family": "system-ui, sans-serif", "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
    )


def curve_plot(
    branches: Mapping[str, Mapping[str, Any] | None], granularity: str, kind: str
) -> Plot | None:
    """Return ROC ("roc") or precision-recall ("pr") curves, one for each branch.

    `branches` holds the detailed metrics of each branch, with the points of its curves;
    `granularity` is "image" or "pixel". None where there are no curves.
    """
    title, across, up = CURVES[kind]
    figure = go.Figure(layout=layout(f"{title}, {granularity}s", across, up))
    for branch, (colour, dash) in BRANCH_LINES.items():
        measures = branches.get(branch) or {}
        points = [(round(float(x), 4), round(float(y), 4)) for x, y in measures.get(kind) or []]
        if not points:
            continue
        area = measures.get(AREAS[kind])
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


def curve_plots(details: Mapping[str, Any]) -> dict[str, Plot]:
    """Return the curves of a run's details by "<granularity>-<kind>", those that exist."""
    plots = {
        f"{granularity}-{kind}": curve_plot(details.get(granularity) or {}, granularity, kind)
        for granularity in GRANULARITIES
        for kind in CURVES
    }
    return {name: plot for name, plot in plots.items() if plot}
