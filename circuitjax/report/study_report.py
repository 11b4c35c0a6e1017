"""What a study of pruning runs ends in: its figures and the picture of its progress."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from circuitjax.report.plots import save_figure

__all__ = ["plot_study", "study_figures"]


def study_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of all runs: fewest edges by round and in all, failures, seconds.

    Args:
      rows: observations in the order of their ids.
    """
    rounds = 1 + max(row["round"] for row in rows)
    by_round: list[int | None] = []
    for number in range(rounds):
        edges = [r["edges"] for r in rows if r["round"] == number and not r["failed"]]
        by_round.append(min(edges, default=None))
    met = [edges for edges in by_round if edges is not None]
    first = {row["round"]: row for row in reversed(rows)}.values()
    return {
        "runs": len(rows),
        "rounds": rounds,
        "failed": sum(bool(row["failed"]) for row in rows),
        "fewest_edges": min(met, default=None),
        "fewest_edges_first_round": by_round[0],
        "fewest_edges_last_round": by_round[-1],
        "fewest_edges_by_round": by_round,
        "seconds_training": round(sum(row["seconds_training_round"] for row in first), 1),
        "seconds_selection": round(sum(row["seconds_selection_round"] for row in first), 1),
    }


def plot_study(path: str | pathlib.Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Edges of every run in the order asked for, the fewest so far, and the runs that failed.

    Args:
      path: PNG to write.
      rows: observations in the order of their ids.
      title: of the figure.
    """
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    edges = np.array([np.nan if row["failed"] else max(row["edges"], 1) for row in rows], float)
    numbers = np.arange(len(rows))
    kinds = np.array([row["origin"] for row in rows])
    for kind, marker, colour, label in (
        ("centre", "D", "#000000", "the search centre"),
        ("first", "s", "#E69F00", "drawn around the centre"),
        ("model", "o", "#0072B2", "proposed by the model"),
        ("remeasure", "^", "#CC79A7", "measured again"),
    ):
        chosen = (kinds == kind) & np.isfinite(edges)
        if chosen.any():
            axes.scatter(
                numbers[chosen], edges[chosen], s=16, marker=marker, color=colour, label=label
            )
    failed = numbers[~np.isfinite(edges)]
    if len(failed):
        axes.plot(
            failed,
            np.full(len(failed), 0.02),
            linestyle="none",
            marker="x",
            markersize=4,
            color="#D55E00",
            transform=axes.get_xaxis_transform(),
            label=f"missed the target ({len(failed)})",
        )
    if np.isfinite(edges).any():
        fewest = np.fmin.accumulate(edges)
        axes.step(numbers, fewest, where="post", color="#009E73", label="fewest so far")
        axes.set_yscale("log")
    axes.set_xlabel("pruning run")
    axes.set_ylabel("edges at the target loss")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    save_figure(figure, path)
