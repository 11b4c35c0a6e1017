"""The pictures of an audit: what each part does, supersets, sizes of controls, faithfulness."""

import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure

from circuitjax.audit.record import AuditFigures
from circuitjax.report.plots import save_figure

__all__ = ["PICTURES", "plot_audit"]

PICTURES = ("effects", "supersets", "searches", "faithfulness")
# Okabe and Ito's palette, and a marker for each: told apart without colour.
_BLUE, _RED, _GREEN, _PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_WORLDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "task": ("the task", _BLUE),
        "templates": ("fewer templates", _GREEN),
        "nonsense": ("nonsense", _RED),
        "shuffled": ("shuffled labels", _PINK),
        "weights": ("random weights", "#E69F00"),
    }
)


def plot_audit(
    directory: pathlib.Path,
    figures: AuditFigures,
    odds: tuple[np.ndarray, np.ndarray],
) -> None:
    """Draws every picture there are figures for, each as PNG and SVG.

    Args:
      directory: to write to.
      figures: of `audit.audit_circuit`.
      odds: log odds `[M]` of the model and of the circuit on the test examples, nats.
    """
    drawn: dict[str, Callable[[], Figure]] = {
        "effects": lambda: _effects(figures),
    }
    if figures.agreement is not None:
        drawn["faithfulness"] = lambda: _faithfulness(figures, *odds)
    if figures.supersets:
        drawn["supersets"] = lambda: _supersets(figures)
    if figures.runs:
        drawn["searches"] = lambda: _searches(figures)
    for name, draw in drawn.items():
        figure = draw()
        figure.suptitle(f"{figures.task} on {figures.model}", fontsize=10)
        for suffix in ("png", "svg"):
            save_figure(figure, directory / f"{name}.{suffix}")


def _effects(figures: AuditFigures) -> Figure:
    """Sorted effects of nodes and of edges."""
    found = figures.effects
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    idle = 0.01 * figures.target
    for axes, kind, values in zip(
        figure.subplots(1, 2, sharey=True),
        ("nodes", "edges"),
        (list(found.nodes.values()), [edge[2] for edge in found.edges]),
        strict=True,
    ):
        effects = np.sort(values)[::-1]
        rank = np.arange(1, len(effects) + 1)
        for sign, colour, marker, label in (
            (effects >= 0, _BLUE, "o", "closing it hurts"),
            (effects < 0, _RED, "x", "closing it helps"),
        ):
            axes.plot(rank[sign], effects[sign], marker, color=colour, markersize=3, label=label)
        axes.axhspan(-idle, idle, color="0.88", label="under 1% of the target")
        axes.axhline(0, color="0.5", linewidth=0.6)
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set(xlabel=f"{kind}, by effect ({len(effects)})")
        axes.set_title(
            f"{kind}: {100 * (getattr(found, f'idle_{kind}') or 0):.0f}% idle", fontsize=9
        )
        axes.grid(alpha=0.25, linewidth=0.4)
    figure.axes[0].set_ylabel("rise of the loss without it (nats)")
    figure.axes[0].legend(fontsize=7)
    return figure


def _supersets(figures: AuditFigures) -> Figure:
    """Loss against the fraction of the rest that is left in, and the adversary's path."""
    found, target = figures.supersets, figures.target
    assert found is not None
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    means = [np.mean(losses) for losses in found.random]
    left.plot(found.fractions, means, color=_BLUE, marker="o", label="random: mean")
    for fraction, losses in zip(found.fractions, found.random, strict=True):
        left.plot([fraction] * len(losses), losses, "_", color=_BLUE, alpha=0.7, markersize=9)
    left.plot(
        found.adversarial_fraction,
        found.adversarial,
        "X",
        color=_RED,
        markersize=8,
        label=f"worst known (by {found.adversarial_from})",
    )
    left.set(
        xlabel="fraction of the rest that is left in", ylabel="what the circuit was cut to (nats)"
    )
    for number, path in enumerate(found.search):  # records of earlier versions have other starts
        line, label = ("-", "first start") if number == 0 else ("--", "other starts")
        right.plot(range(len(path)), path, line, color=_RED, marker=".", label=label)
    right.set(xlabel="step of the adversarial search")
    for axes in (left, right):
        axes.axhline(target, color="black", linestyle=":", linewidth=1, label=f"target {target:g}")
        axes.axhline(figures.chance, color="grey", linestyle="-.", linewidth=0.8, label="chance")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25, linewidth=0.4)
    # Below both: curves may lie anywhere within them.
    named = {
        label: handle
        for axes in (left, right)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=6,
        fontsize=7,
        handlelength=3,  # a dashed line shorter than that looks solid
    )
    return figure


def _searches(figures: AuditFigures) -> Figure:
    """Sizes of all searches, and how alike the seeds' circuits are."""
    runs, stable = figures.runs, figures.stability
    figure = Figure(figsize=(9.4, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    names = []
    for place, run in enumerate(runs):
        name, colour = _WORLDS[run.world]
        names.append(f"{name}, seed {run.seed}" if run.world == "task" else name)
        # Where no size solves it, the bar ends with the model.
        size = max(run.size, 1) if run.reached else figures.size_total
        hatch = None if run.reached else "////"
        left.barh(place, size, color=colour, alpha=0.8, hatch=hatch)
        text = f" {run.nodes} nodes, {run.edges} edges"
        if not run.reached:
            text = f" never solved: {run.loss:.2f} nats at best"
        over_the_line = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
        left.text(size * 1.07, place, text, va="center", fontsize=7, bbox=over_the_line)
    left.axvline(figures.size, color="black", linewidth=1, linestyle=":")
    left.set_yticks(range(len(names)), names, fontsize=7)
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlim(0.8, 150 * figures.size_total)
    left.set_xticks([10**power for power in range(8) if 10**power <= figures.size_total])
    left.set_xlabel(f"{figures.unit} at the target; dotted: the audited circuit", fontsize=8)
    if stable:
        matrix = np.array(stable.matrix)
        labels = ["circuit", *(f"seed {seed}" for seed in stable.seeds)]
        right.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                shade = "white" if value > 0.55 else "black"
                right.text(
                    column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade
                )
        right.set_xticks(range(len(labels)), labels, fontsize=7, rotation=40, ha="right")
        right.set_yticks(range(len(labels)), labels, fontsize=7)
        right.set_title(f"Jaccard of the {figures.unit}", fontsize=9)
    return figure


def _faithfulness(figures: AuditFigures, model: np.ndarray, circuit: np.ndarray) -> Figure:
    """Log odds of one completion over the other prompt by prompt, heads, layers."""
    inside, evidence = figures.agreement, figures.evidence
    assert inside is not None
    # A pair's second prompt has the other completion for its right one.
    paired = evidence.correlation_within is not None
    names = ("first prompts", "second prompts") if paired else ("examples",)
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    for side, name in enumerate(names):
        sign = -1 if side else 1
        first.plot(
            sign * model[side :: len(names)],
            sign * circuit[side :: len(names)],
            "ox"[side],
            color=(_BLUE, _RED)[side],
            markersize=3,
            alpha=0.5,
            label=name,
            linestyle="none",
        )
    within = evidence.correlation_within
    first.set_title("" if within is None else f"correlation within a side {within:.2f}", fontsize=9)
    first.set(xlabel="log odds of the model (nats)", ylabel="of the circuit (nats)")
    first.legend(fontsize=7)
    heads = sorted(inside.heads.items(), key=lambda item: -item[1])[:24]
    second.barh([name for name, _ in heads], [value for _, value in heads], color=_GREEN)
    second.invert_yaxis()
    second.set_xlim(0, 1)
    second.set_title("divergence of patterns, kept heads", fontsize=9)
    second.set_xlabel("total variation", fontsize=8)
    second.tick_params(axis="y", labelsize=6)
    layers = [(layer, v) for layer, v in enumerate(inside.unexplained) if v is not None]
    third.bar([layer for layer, _ in layers], [v for _, v in layers], color=_PINK)
    third.axhline(1, color="grey", linestyle="-.", linewidth=0.8, label="no better than a constant")
    for layer, value in enumerate(inside.unexplained):
        if value is None:
            third.text(layer, 0.02, "nothing kept", rotation=90, ha="center", fontsize=7)
    third.set_xticks(range(len(inside.unexplained)))
    third.set_title("variance unexplained (median node)", fontsize=9)
    third.set_xlabel("layer")
    third.legend(fontsize=7)
    return figure
