"""Rankings of edges beside each other: a table of areas and a figure of faithfulness by size.

A record of a ranking is {ranking, cpu_seconds, peak_gib, curves}, a curve what
`benchmarks.faithfulness.Curve.to_dict` gives with the `sign` under which scores were cut.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from circuitjax.report.plots import COLOURS, save_figure
from circuitjax.report.table import markdown_table

__all__ = ["draw_curves", "rankings_table"]

_SHOWN = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # of larger circuits the areas say enough


def _named(record: Mapping[str, Any], curve: Mapping[str, Any]) -> str:
    return " ".join(word for word in (record["ranking"], curve["sign"]) if word)


def rankings_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: CPR, CMD, CPU seconds, peak memory, and faithfulness at each size."""
    rows = []
    for record in records:
        for curve in record["curves"]:
            by_size = dict(zip(curve["fractions"], curve["faithfulness"], strict=True))
            rows.append(
                [
                    _named(record, curve),
                    float(curve["cpr"]),
                    float(curve["cmd"]),
                    round(record["cpu_seconds"]),
                    f"{record['peak_gib']:.1f}",
                    *(f"{by_size[size]:.2f}" if size in by_size else None for size in _SHOWN),
                ]
            )
    header = ["ranking", "CPR", "CMD", "CPU s", "GiB", *(f"f at {size:.1%}" for size in _SHOWN)]
    return markdown_table(header, rows)


def draw_curves(records: Sequence[Mapping[str, Any]], path: str | pathlib.Path) -> None:
    """Faithfulness of every ranking by the number of edges that are on a path; 1 is the model."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, record in enumerate(records):
        for curve in record["curves"]:
            axes.plot(
                [max(edges, 1) for edges in curve["edges"]],
                curve["faithfulness"],
                color=COLOURS[number % len(COLOURS)],
                linestyle="--" if curve["sign"] == "signed" else "-",
                marker="o",
                markersize=3,
                label=_named(record, curve),
            )
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("residual edges on a path from input to logits")
    axes.set_ylabel("faithfulness of the logit difference")
    axes.legend(fontsize=8)
    save_figure(figure, path)
