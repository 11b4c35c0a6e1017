"""The pictures of a run: how training went, and what was lost at every size of circuit."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure  # not pyplot: a library leaves the user's backend alone

from circuitjax.core.files import write_bytes

__all__ = ["COLOURS", "plot_cut", "plot_training", "save_figure"]

# Okabe and Ito's palette: told apart by readers who do not see all colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINES = ("-", "--", ":")  # when there are more curves than colours
_LEAST = 1e-4  # nats; what is less is drawn here


def save_figure(figure: Any, path: str | pathlib.Path) -> None:
    """Writes a figure atomically, as PNG or as whatever else the path ends in."""
    path, content = pathlib.Path(path), io.BytesIO()
    # Without a salt and with a date every SVG of the same figure would be another file.
    dated = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    with rc_context({"svg.hashsalt": "circuitjax"}):
        figure.savefig(content, format=path.suffix[1:], dpi=150, bbox_inches="tight", **dated)
    write_bytes(path, content.getvalue())


def plot_cut(
    path: str | pathlib.Path,
    curves: Sequence[Sequence[Any]],
    labels: Sequence[str],
    *,
    kind: Literal["loss", "kl"],
    chosen: tuple[int, int],
    target: float | None,
    title: str,
    unpruned: float | None,
    unit: str,
) -> None:
    """Task loss, or KL to the model, against what is kept, for every job.

    Args:
      path: PNG to write.
      curves: per job its points, with fields `k`, `parts` and, in nats, `raw` (task loss without
        calibration), `loss` and `kl`.
      labels: one per job.
      kind: the field that is drawn; beside the loss also what it is without calibration.
      chosen: index of the job that became the circuit, and the k it was cut at.
      target: value asked for, in nats; None draws no line.
      title: of the figure.
      unpruned: loss of the whole model, in nats; None draws no line.
      unit: what `parts` counts.
    """
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    drawn = []
    for index, (label, curve) in enumerate(zip(labels, curves, strict=True)):
        # Many k may leave the same parts on a path.
        by_parts = {point.parts: point for point in curve}
        points = [by_parts[parts] for parts in sorted(by_parts)]
        sizes = [point.parts for point in points]
        values = np.array([getattr(point, kind) for point in points], float)
        drawn.append((sizes, values))
        colour, strong = COLOURS[index % len(COLOURS)], index == chosen[0]
        line = _LINES[index // len(COLOURS) % len(_LINES)]
        axes.plot(
            sizes,
            np.maximum(values, _LEAST),
            line,
            marker="o",
            markersize=3,
            color=colour,
            linewidth=2.2 if strong else 1,
            alpha=1 if strong else 0.55,
            label=f"{label}{' (chosen)' if strong else ''}",
        )
        if not strong:
            continue
        if kind == "loss":
            raw = [point.raw for point in points]
            axes.plot(sizes, raw, ":", color=colour, label="the same, uncalibrated")
        on_curve = next((point.parts for point in curve if point.k == chosen[1]), None)
        kept = chosen[1] if on_curve is None else on_curve
        axes.axvline(kept, color=colour, linewidth=0.8)
        far = np.log1p(kept) > 0.75 * np.log1p(max(sizes))
        axes.annotate(
            f" {kept} " if on_curve is not None else f" {kept}, closed one by one after the cut ",
            (kept, 0.98),
            xycoords=("data", "axes fraction"),
            ha="right" if far else "left",
            va="top",
            fontsize=9,
            color=colour,
        )
    if target is not None:
        axes.axhline(target, color="black", linestyle="--", linewidth=1, label=f"target {target:g}")
    if kind == "loss":
        axes.axhline(np.log(2), color="grey", linestyle="-.", linewidth=0.8, label="chance (ln 2)")
    if unpruned is not None:
        axes.axhline(max(unpruned, _LEAST), color="grey", linewidth=0.8, label="whole model")
    axes.set_xscale("symlog", linthresh=1)  # logarithmic, and 0 has a place: the empty circuit
    name = "task loss" if kind == "loss" else "KL(model || circuit)"
    axes.set(yscale="log", xlabel=unit, ylabel=f"{name} (nats)")
    axes.set_title(title, fontsize=10)
    every = [size for sizes, _ in drawn for size in sizes]
    axes.set_xlim(-0.2 if min(every) == 0 else 0.8 * min(every), 1.2 * max([*every, 1]))
    values = np.concatenate([values for _, values in drawn])
    values = values[np.isfinite(values)]
    lines = [line for line in (target, unpruned) if line is not None]
    low = max(_LEAST, min([*lines, float(values.min(initial=2.0))]) / 2)
    axes.set_ylim(low, max(2.0, min(20.0, float(values.max(initial=2.0)) * 1.5)))
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
