"""The figures of a suite, for a paper: each a function of plain records that returns a figure.

    loss_vs_edges    edges of circuits against the loss they were cut at  (Gao et al. 2025, Figure 2)
    edges_by_series  edges of every task, by model, grain or ranking      (Figure 31)
    necessity        loss of the model without the circuit, and without random sets of nodes  (Figure 32)
    stability        overlap of the circuits of several seeds

Series differ in colour (Okabe and Ito's palette) and in marker. Nothing is hidden by a limit of an axis.
"""

import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from circuitjax.core.files import write_bytes
from circuitjax.report.plots import COLOURS
from circuitjax.report.statistics import bootstrap_interval, geometric_mean
from circuitjax.report.suite_table import Point, Row

__all__ = ["edges_by_series", "loss_vs_edges", "necessity", "save_vector", "stability"]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_WIDTH = 5.5  # inches, a column of text
_ROW = 0.22  # inches per task


def save_vector(figure: Figure, stem: pathlib.Path) -> list[pathlib.Path]:
    """Writes a figure as PNG (300 dpi) and as PDF with its letters as text, each atomically.

    Args:
      figure: as the functions here return it.
      stem: path without its ending.

    Returns:
      The two paths.
    """
    written = []
    for ending, facts in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        content = io.BytesIO()
        with mpl.rc_context({"pdf.fonttype": 42}):
            figure.savefig(content, format=ending[1:], dpi=300, bbox_inches="tight", metadata=facts)
        path = stem.with_name(stem.name + ending)
        write_bytes(path, content.getvalue())
        written.append(path)
    return written


def loss_vs_edges(series: Mapping[str, Sequence[Point]], title: str) -> Figure:
    """Target loss against the geometric mean of edges, one line per series.

    Bands are bootstrap intervals over tasks. At the right stands how many tasks a target's points are
    means of: those that every series reaches.

    Args:
      series: {label: points by target}, see `suite_table.sweep`.
      title: of the figure.
    """
    height = 3.4
    figure, axes = _axes(height, title)
    handles = []
    for index, (label, points) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        targets = [point.target for point in points]
        handles += axes.plot(
            [point.edges for point in points],
            targets,
            color=colour,
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=5,
            linewidth=1.4,
            label=label,
        )
        known = [point for point in points if not math.isnan(point.low)]
        axes.fill_betweenx(
            [point.target for point in known],
            [point.low for point in known],
            [point.high for point in known],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    counts = {point.target: point.tasks for points in series.values() for point in points}
    for target, count in counts.items():
        place = axes.get_yaxis_transform()
        axes.text(1.02, target, f"{count}", transform=place, fontsize=7, va="center", color="0.35")
    axes.text(1.02, 1.02, "tasks", transform=axes.transAxes, fontsize=7, color="0.35")
    axes.set(xscale="log", yscale="log", ylabel="target task loss (nats)")
    axes.set_xlabel("edges in the circuit (geometric mean over tasks)")
    axes.yaxis.set_minor_locator(NullLocator())
    ticks = sorted(counts)
    axes.set_yticks(ticks, [f"{target:g}" for target in ticks])
    axes.grid(alpha=0.25, linewidth=0.4)
    _legend_below(axes, handles, height)
    return figure


def edges_by_series(
    edges: Mapping[str, Mapping[str, float]], missed: Mapping[str, Sequence[str]], title: str
) -> Figure:
    """Edges of every task's circuit, a marker per series; a last row for the geometric means.

    A task that a series does not reach has a cross at the right, in the series' colour, on its side of
    the row. Means are over the tasks that all series reach, with their bootstrap intervals.

    Args:
      edges: {label: {task: edges}} of the tasks reached; rows are sorted by the first series.
      missed: {label: tasks it does not reach}.
      title: of the figure.
    """
    first = next(iter(edges.values()))
    tasks = {task for found in (*edges.values(), *missed.values()) for task in found}
    rows = sorted(tasks, key=lambda task: (first.get(task, math.inf), task))
    shared = [task for task in rows if all(task in mine for mine in edges.values())]
    height = 1.3 + _ROW * (len(rows) + 1)
    figure, axes = _axes(height, title)
    for place, task in enumerate(rows):
        found = [mine[task] for mine in edges.values() if task in mine]
        if len(found) > 1:
            axes.plot([min(found), max(found)], [place] * 2, color="0.8", linewidth=1, zorder=1)
    handles = []
    for index, (label, mine) in enumerate(edges.items()):
        colour = COLOURS[index % len(COLOURS)]
        marker = _MARKERS[index % len(_MARKERS)]
        reached = [place for place, task in enumerate(rows) if task in mine]
        values = [mine[rows[place]] for place in reached]
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 5,
            "linestyle": "none",
        }
        handles += axes.plot(values, reached, zorder=2, label=label, **style)
        crosses = [place for place, task in enumerate(rows) if task in missed[label]]
        shift = 0.3 * (index - (len(edges) - 1) / 2) / max(len(edges) - 1, 1)
        axes.plot(
            [0.985] * len(crosses),
            [place + shift for place in crosses],
            transform=axes.get_yaxis_transform(),
            color=colour,
            marker="x",
            markersize=4,
            linestyle="none",
        )
        if shared:
            values = [mine[task] for task in shared]
            mean, interval = geometric_mean(values), bootstrap_interval(values)
            axes.plot([mean], [len(rows)], **{**style, "markersize": 7})
            if not math.isnan(interval[0]):
                axes.plot(interval, [len(rows)] * 2, color=colour, linewidth=1.4)
    if any(missed.values()):
        cross: dict[str, Any] = {
            "color": "0.3",
            "marker": "x",
            "markersize": 4,
            "linestyle": "none",
        }
        handles.append(Line2D([], [], label="missed the target", **cross))
    axes.axhline(len(rows) - 0.5, color="0.6", linewidth=0.6)
    axes.set_yticks(range(len(rows) + 1), [*rows, f"geometric mean of {len(shared)}"])
    axes.set_ylim(len(rows) + 0.5, -0.5)
    axes.set(xscale="log", xlabel="edges in the circuit")
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * (right / left) ** 0.06)  # room for the crosses
    axes.grid(axis="x", alpha=0.25, linewidth=0.4)
    _legend_below(axes, handles, height)
    return figure


def necessity(rows: Sequence[Row], title: str) -> Figure:
    """Loss of the whole model with a circuit's nodes replaced, beside random sets of their size.

    Args:
      rows: one per task, of one group; `random` holds the losses without each random set.
      title: of the figure.
    """
    rows = sorted(rows, key=lambda row: -row["loss_without_circuit"])
    height = 1.3 + _ROW * len(rows)
    figure, axes = _axes(height, title)
    places = range(len(rows))
    random = [(loss, place) for place in places for loss in rows[place]["random"]]
    handles = axes.plot(
        [loss for loss, _ in random],
        [place for _, place in random],
        color="0.55",
        marker="o",
        markersize=3.5,
        markerfacecolor="none",
        markeredgewidth=0.6,
        linestyle="none",
        label="without a random set of its size",
    )
    handles += axes.plot(
        [row["loss_without_circuit"] for row in rows],
        places,
        color=COLOURS[1],
        marker="D",
        markersize=5,
        linestyle="none",
        label="without the circuit",
    )
    handles += axes.plot(
        [row["loss_unpruned"] for row in rows],
        places,
        color=COLOURS[0],
        marker="|",
        markersize=9,
        markeredgewidth=1.6,
        linestyle="none",
        label="whole model",
    )
    handles.append(
        axes.axvline(
            math.log(2), color="black", linestyle="--", linewidth=0.8, label="chance (ln 2)"
        )
    )
    axes.set_yticks(places, [row["task"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("task loss (nats)")
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.grid(axis="x", alpha=0.25, linewidth=0.4)
    _legend_below(axes, handles, height)
    return figure


def stability(overlaps: Sequence[Row], title: str) -> Figure:
    """Jaccard overlap of the circuits that several seeds give, by task: every pair, and the mean.

    Args:
      overlaps: one per task: `task`, and `nodes`, `edges`, lists with the overlap of every pair.
      title: of the figure.
    """
    rows = sorted(overlaps, key=lambda row: -float(np.mean(row["nodes"])))
    height = 1.3 + _ROW * len(rows)
    figure, axes = _axes(height, title)
    handles = []
    for index, (kind, shift) in enumerate((("nodes", -0.16), ("edges", 0.16))):
        colour, marker = COLOURS[index], _MARKERS[index]
        pairs = [(x, place + shift) for place, row in enumerate(rows) for x in row[kind]]
        axes.plot(
            [x for x, _ in pairs],
            [y for _, y in pairs],
            color=colour,
            marker=marker,
            markersize=3.5,
            markerfacecolor="none",
            markeredgewidth=0.6,
            alpha=0.7,
            linestyle="none",
        )
        handles += axes.plot(
            [float(np.mean(row[kind])) for row in rows],
            [place + shift for place in range(len(rows))],
            color=colour,
            marker=marker,
            markersize=5.5,
            linestyle="none",
            label=f"{kind}: mean (open: pairs of seeds)",
        )
    axes.set_yticks(range(len(rows)), [row["task"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Jaccard overlap of two seeds' circuits")
    axes.grid(axis="x", alpha=0.25, linewidth=0.4)
    _legend_below(axes, handles, height)
    return figure


def _axes(height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots()
    axes.tick_params(labelsize=8)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_fontsize(9)
    axes.set_title(title, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _legend_below(axes: Axes, handles: Sequence[Line2D], height: float) -> None:
    below = -0.5 / (0.77 * height)  # under the label of the axis, whatever the number of rows
    axes.legend(
        handles=handles,
        fontsize=8,
        frameon=False,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, below),
    )
