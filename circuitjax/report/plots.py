"""The two pictures of a pruning run, and a drawing of the circuit for people's eyes."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure  # not pyplot: a library leaves the user's backend alone

__all__ = ["COLOURS", "plot_edges", "plot_loss_vs_k", "plot_training", "save_figure"]

# Okabe and Ito's palette: told apart by readers who do not see all colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINES = ("-", "--", ":")  # when there are more curves than colours


def save_figure(figure: Any, path: str | pathlib.Path) -> None:
    """Writes a figure atomically, as PNG or as whatever else the path ends in."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    # Without a salt and with a date every SVG of the same figure would be another file.
    dated = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    with rc_context({"svg.hashsalt": "circuitjax"}):
        figure.savefig(temporary, dpi=150, bbox_inches="tight", **dated)
    temporary.replace(path)


def plot_loss_vs_k(
    path: str | pathlib.Path,
    curves: Sequence[Mapping[str, Any]],
    *,
    target: float,
    title: str,
    unpruned: float,
    chosen: int,
    unit: str = "nodes kept, k",
) -> None:
    """Validation loss against the number of kept nodes, for every job.

    Args:
      path: PNG to write.
      curves: per job `label`, `curve` [(k, loss, calibrated loss, pairs)], `k` (where it was cut).
      target: the loss asked for, in nats.
      title: of the figure.
      unpruned: loss of the whole model, in nats.
      chosen: index of the job that became the circuit.
      unit: what k counts.
    """
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    for index, job in enumerate(curves):
        points = np.array(job["curve"], float)
        colour = COLOURS[index % len(COLOURS)]
        strong = index == chosen
        axes.plot(
            points[:, 0],
            points[:, 2],
            marker="o",
            markersize=3,
            color=colour,
            linewidth=2.2 if strong else 1,
            alpha=1 if strong else 0.55,
            label=f"{job['label']}{' (chosen)' if strong else ''}",
        )
        if strong:
            axes.plot(points[:, 0], points[:, 1], ":", color=colour, label="the same, uncalibrated")
            axes.axvline(job["k"], color=colour, linewidth=0.8)
            far = np.log1p(job["k"]) > 0.75 * np.log1p(points[:, 0].max())
            axes.annotate(
                f" k = {job['k']} ",
                (job["k"], 0.98),
                xycoords=("data", "axes fraction"),
                ha="right" if far else "left",
                va="top",
                fontsize=9,
                color=colour,
            )
    axes.axhline(target, color="black", linestyle="--", linewidth=1, label=f"target {target:g}")
    axes.axhline(np.log(2), color="grey", linestyle="-.", linewidth=0.8, label="chance (ln 2)")
    axes.axhline(max(unpruned, 1e-4), color="grey", linewidth=0.8, label="whole model")
    axes.set_xscale("symlog", linthresh=1)  # logarithmic, and 0 has a place: the empty circuit
    axes.set(yscale="log", xlabel=unit, ylabel="task loss (nats)")
    axes.set_title(title, fontsize=10)
    sizes = [point[0] for job in curves for point in job["curve"]]
    axes.set_xlim(-0.2 if min(sizes) == 0 else 0.8 * min(sizes), 1.2 * max([*sizes, 1]))
    losses = np.concatenate([np.array(job["curve"], float)[:, 2] for job in curves])
    losses = losses[np.isfinite(losses)]
    top = max(2.0, min(20.0, float(losses.max(initial=2.0)) * 1.5))
    low = max(1e-4, min(target, unpruned, float(losses.min(initial=target))) / 2)
    axes.set_ylim(low, top)
    axes.legend(fontsize=7, loc="lower left")
    axes.grid(alpha=0.25, which="both", linewidth=0.4)
    save_figure(figure, path)


def plot_training(
    path: str | pathlib.Path,
    history: Mapping[str, np.ndarray],
    labels: Sequence[str],
    *,
    target: float | None,
    title: str,
    unit: str = "open nodes",
) -> None:
    """Task loss and open gates during training.

    Args:
      path: PNG to write.
      history: `task` (nats) and `k` (gates), each `[J, steps]`.
      labels: one per job.
      target: loss asked for, in nats; None draws no line.
      title: of the figure.
      unit: what `k` counts.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, label in enumerate(labels):
        colour = COLOURS[index % len(COLOURS)]
        steps = np.arange(1, history["k"].shape[1] + 1)
        line = _LINES[index // len(COLOURS) % len(_LINES)]
        left.plot(steps, history["task"][index], line, color=colour, linewidth=1, label=label)
        right.plot(steps, history["k"][index], line, color=colour, linewidth=1.4, label=label)
    if target is not None:
        left.axhline(target, color="black", linestyle="--", linewidth=1, label=f"target {target:g}")
    left.set(xlabel="step", ylabel="task loss on the batch (nats)", yscale="log")
    right.set(xlabel="step", ylabel=unit, yscale="log")
    right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.25, which="both", linewidth=0.4)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_edges(
    path: str | pathlib.Path,
    curves: Sequence[Sequence[tuple[int, float]]],
    labels: Sequence[str],
    *,
    chosen: tuple[int, int],
    target: float | None,
    title: str,
    unit: str,
) -> None:
    """A validation figure against the number of residual edges kept, for every job.

    Args:
      path: PNG to write.
      curves: per job (edges, figure) points.
      labels: one per job.
      chosen: (job, edges) of the circuit.
      target: value asked for; None draws no line.
      title: of the figure.
      unit: what the figure is, with its unit.
    """
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    for index, (label, curve) in enumerate(zip(labels, curves, strict=True)):
        # Many k may leave the same connected edges.
        points = np.array(sorted({(edges, max(value, 1e-5)) for edges, value in curve}), float)
        colour = COLOURS[index % len(COLOURS)]
        strong = index == chosen[0]
        axes.plot(
            points[:, 0],
            points[:, 1],
            marker="o",
            markersize=3,
            color=colour,
            linestyle=_LINES[index // len(COLOURS) % len(_LINES)],
            linewidth=2.2 if strong else 1,
            alpha=1 if strong else 0.55,
            label=f"{label}{' (chosen)' if strong else ''}",
        )
        if strong:
            axes.axvline(chosen[1], color=colour, linewidth=0.8)
            axes.annotate(
                f" {chosen[1]} edges",
                (chosen[1], 0.98),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize=9,
                color=colour,
            )
    if target is not None:
        axes.axhline(target, color="black", linestyle="--", linewidth=1, label=f"target {target:g}")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.2)
    axes.set(yscale="log", xlabel="residual edges kept", ylabel=unit)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7, loc="lower left")
    axes.grid(alpha=0.25, which="both", linewidth=0.4)
    save_figure(figure, path)
