"""Tables of a suite: one row per cell, one line per group of tasks, and comparisons of groups.

A row is a plain mapping, the fields of a cell beside those of `record_of`. Losses are in nats on test
pairs but for `loss_validation`, where the circuit was cut.

A group is what is held fixed while tasks vary: (model, grain, ranking, target). A task's edges in a
group are the geometric mean over its seeds; tasks that missed the target in some seed, whose empty
circuit meets it, or that failed, are counted apart and have no edges. The p-value of a circuit's
necessity is adjusted after Benjamini and Hochberg over the cells of its group.
"""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from circuitjax.core.statistics import adjusted
from circuitjax.report.statistics import bootstrap_interval, geometric_mean
from circuitjax.report.table import markdown_table

__all__ = [
    "CELL",
    "COLUMNS",
    "Group",
    "Point",
    "Ratio",
    "Row",
    "compare",
    "csv_text",
    "edges_by_task",
    "groups_of",
    "markdown_report",
    "record_of",
    "summary_rows",
    "sweep",
    "with_adjusted",
]

Row = Mapping[str, Any]

CELL = ("model", "task", "grain", "ranking", "target", "seed")
_REPORT = (
    *("status", "nodes", "edges", "nodes_total", "edges_total", "loss_unpruned", "loss_empty"),
    *("loss_validation", "loss_circuit", "loss_without_circuit", "accuracy_circuit", "kl_to_model"),
)
_P = ("necessity_p", "necessity_adjusted")
COLUMNS = (*CELL, *_REPORT, "random_low", "random_median", "random_high", *_P, "note")
_SHOWN = (
    *("task", "seed", "status", "nodes", "edges", "loss_unpruned", "loss_circuit"),
    *("loss_without_circuit", "random_median", "necessity_adjusted", "kl_to_model"),
)


class Group(NamedTuple):
    """What is held fixed while tasks vary."""

    model: str
    grain: str
    ranking: str
    target: float | None

    def __str__(self) -> str:
        ranked = "" if self.ranking == "learned" else f" ranked by {self.ranking}"
        aim = "" if self.target is None else f", target {self.target:g}"
        return f"{self.model}, {self.grain}{ranked}{aim}"


class Point(NamedTuple):
    """Geometric mean of edges at one target, with its bootstrap interval over tasks."""

    target: float
    edges: float
    low: float
    high: float
    tasks: int


class Ratio(NamedTuple):
    """How many times the edges of another group a group has, over the tasks both reach.

    Attributes:
      ratio: geometric mean over tasks of other / one.
      low, high: its bootstrap interval.
      tasks: how many.
    """

    ratio: float
    low: float
    high: float
    tasks: int


def record_of(report: Any) -> dict[str, Any]:
    """What a suite keeps of a run's `Report`; the losses of all random sets and the seconds too."""
    random = sorted(report.loss_without_random)
    low, middle, high = (
        (random[0], statistics.median(random), random[-1]) if random else (None, None, None)
    )
    return {
        **{name: getattr(report, name) for name in _REPORT},
        "circuit": report.circuit,
        "random_low": low,
        "random_median": middle,
        "random_high": high,
        "random": random,
        "necessity_p": None if report.necessity is None else report.necessity.p,
        "seconds_by_stage": dict(report.seconds),
        "note": "",
    }


def csv_text(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Rows as CSV with a header; floats to six significant digits, None and NaN empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_plain(row.get(name)) for name in columns])
    return out.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def with_adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with its `necessity_adjusted`; None where a row has no p-value."""
    found: dict[int, float] = {}
    for mine in groups_of(rows).values():
        known = [row for row in mine if row.get("necessity_p") is not None]
        values = adjusted([row["necessity_p"] for row in known])
        found |= {id(row): value for row, value in zip(known, values, strict=True)}
    return [{**row, "necessity_adjusted": found.get(id(row))} for row in rows]


def groups_of(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows by group, in the order of their first rows."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        key = Group(row["model"], row["grain"], row["ranking"], row["target"])
        found.setdefault(key, []).append(row)
    return found


def edges_by_task(rows: Sequence[Row]) -> dict[str, float]:
    """{task: geometric mean of its edges over seeds} of the tasks that reached the target in all."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(row)
    return {
        task: geometric_mean([row["edges"] for row in mine])
        for task, mine in by_task.items()
        if all(row["status"] == "reached" and row["edges"] > 0 for row in mine)
    }


def summary_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line per group: tasks, how many reached the target, the geometric mean of their edges."""
    lines = []
    for group, mine in groups_of(rows).items():
        edges = list(edges_by_task(mine).values())
        low, high = bootstrap_interval(edges)
        lines.append(
            {
                **group._asdict(),
                "tasks": len({row["task"] for row in mine}),
                "reached": len(edges),
                "edges_geometric_mean": geometric_mean(edges),
                "edges_low": low,
                "edges_high": high,
            }
        )
    return lines


def compare(one: Sequence[Row], other: Sequence[Row]) -> Ratio:
    """How many times more edges the other group has; see `Ratio`."""
    mine, theirs = edges_by_task(one), edges_by_task(other)
    ratios = [theirs[task] / edges for task, edges in mine.items() if task in theirs]
    return Ratio(geometric_mean(ratios), *bootstrap_interval(ratios), len(ratios))


def sweep(series: Mapping[str, Sequence[Row]]) -> dict[str, list[Point]]:
    """Edges against target for several labelled series, by target.

    At each target only the tasks that every series reaches there count, so that the series can be
    compared; how many that are is part of the point. From one target to the next they may be others.
    Targets that some series lacks, or that no task reaches in all, are left out.

    Args:
      series: {label: rows of one model, grain and ranking, at any targets}.
    """
    edges = {
        label: {group.target: edges_by_task(mine) for group, mine in groups_of(rows).items()}
        for label, rows in series.items()
    }
    shared = set.intersection(*({t for t in by if t is not None} for by in edges.values()))
    found: dict[str, list[Point]] = {label: [] for label in series}
    for target in sorted(shared):
        tasks = sorted(set.intersection(*(set(by[target]) for by in edges.values())))
        for label, by in edges.items():
            if tasks:
                values = [by[target][task] for task in tasks]
                point = (geometric_mean(values), *bootstrap_interval(values), len(values))
                found[label].append(Point(target, *point))
    return found


def markdown_report(rows: Sequence[Row], failures: Mapping[str, str]) -> str:
    """The whole suite for people: a line per group, comparisons with the first, a table per group.

    Args:
      rows: of finished cells.
      failures: {key of a cell: why it failed}.
    """
    rows = with_adjusted(rows)
    groups = groups_of(rows)
    header = ("group", "tasks", "reached", "edges", "95% interval over tasks")
    lines = []
    for group, one in zip(groups, summary_rows(rows), strict=True):
        interval = _interval(one["edges_low"], one["edges_high"])
        mean = one["edges_geometric_mean"]
        shown = "-" if math.isnan(mean) else f"{mean:.1f}"
        lines.append([str(group), one["tasks"], one["reached"], shown, interval])
    parts = ["Geometric mean of edges over the tasks that reached their target:"]
    parts.append(markdown_table(header, lines))
    compared = _comparisons(groups)
    if compared:
        parts.append("Edges against another group's, over the tasks that both reach:")
        parts.append(markdown_table(("group", "against", "times the edges", "tasks"), compared))
    for group, mine in groups.items():
        parts.append(f"### {group}")
        parts.append(markdown_table(_SHOWN, [[row.get(name) for name in _SHOWN] for row in mine]))
    if failures:
        parts.append("### Failed")
        parts.append("\n".join(f"- `{key}`: {error}" for key, error in failures.items()))
    return "\n\n".join(parts) + "\n"


def _comparisons(groups: Mapping[Group, Sequence[Row]]) -> list[list[Any]]:
    """Groups that differ in one thing but the target, each against the first of them."""
    found = []
    for name in ("model", "grain", "ranking"):
        firsts: dict[tuple[Any, ...], Group] = {}
        for group in groups:
            held = tuple(v for n, v in group._asdict().items() if n != name)
            first = firsts.setdefault(held, group)
            ratio = compare(groups[first], groups[group])
            alike = "edges" not in {first.grain, group.grain} or first.grain == group.grain
            if first != group and ratio.tasks and alike:  # residual edges are no weights
                shown = f"{ratio.ratio:.2f} {_interval(ratio.low, ratio.high, 2)}".rstrip(" -")
                found.append([str(group), str(first), shown, ratio.tasks])
    return found


def _interval(low: float, high: float, digits: int = 1) -> str:
    return "-" if math.isnan(low) else f"({low:.{digits}f} to {high:.{digits}f})"
