"""What a suite ends in: its tables and figures, and the data of each figure.

    rows, circuits -> suite.csv, suite.md, summary.csv, timings.csv, figures/*.{csv,png,pdf}

suite.csv, suite.md, summary.csv and the figures are functions of the cells' outcomes alone: whoever
writes them writes the same bytes. What a clock measured is in timings.csv only.
"""

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from circuitjax.audit.reruns import jaccard
from circuitjax.circuit.record import read_record
from circuitjax.core.files import write_bytes
from circuitjax.prune.config import SelectionConfig
from circuitjax.report import suite_figures
from circuitjax.report.suite_table import (
    COLUMNS,
    Group,
    Row,
    csv_text,
    edges_by_task,
    groups_of,
    markdown_report,
    summary_rows,
    sweep,
    with_adjusted,
)

__all__ = ["Parts", "Picture", "overlaps_of", "parts_of", "pictures_of", "write_report"]


class Parts(NamedTuple):
    """What a circuit consists of.

    Attributes:
      nodes: addresses.
      edges: (source, target).
    """

    nodes: frozenset[str]
    edges: frozenset[tuple[str, str]]


class Picture(NamedTuple):
    """A figure with its data.

    Attributes:
      name: of its files.
      figure: to be saved.
      rows: its data, a mapping per line of the CSV.
    """

    name: str
    figure: Figure
    rows: list[dict[str, Any]]


def parts_of(circuit: pathlib.Path) -> Parts:
    """Nodes and edges of a saved circuit of any grain, from its `circuit.json` alone."""
    record, _ = read_record(circuit)
    return Parts(frozenset(record.nodes), frozenset((one, other) for one, other, _ in record.edges))


def overlaps_of(
    rows: Sequence[Row], circuits: Mapping[tuple[Any, ...], Parts]
) -> list[dict[str, Any]]:
    """Jaccard overlaps of the circuits of every two seeds, one line per group and task.

    Args:
      rows: of cells; those that did not reach their target are passed over.
      circuits: by (model, task, grain, ranking, target, seed).
    """
    found = []
    for group, mine in groups_of(rows).items():
        for task in dict.fromkeys(row["task"] for row in mine):
            seeds = [r["seed"] for r in mine if r["task"] == task and r["status"] == "reached"]
            keys = [(group.model, task, *group[1:], seed) for seed in seeds]
            known = [circuits[key] for key in keys if key in circuits]
            pairs = list(itertools.combinations(known, 2))
            if pairs:
                found.append(
                    {
                        **group._asdict(),
                        "task": task,
                        "seeds": len(known),
                        "nodes": [jaccard(one.nodes, other.nodes) for one, other in pairs],
                        "edges": [jaccard(one.edges, other.edges) for one, other in pairs],
                    }
                )
    return found


def pictures_of(
    rows: Sequence[Row], circuits: Mapping[tuple[Any, ...], Parts] | None = None
) -> list[Picture]:
    """Every figure that the rows have the data for; of several targets, most show only the default.

    Args:
      rows: of finished cells.
      circuits: see `overlaps_of`.
    """
    groups = groups_of(rows)
    shown = _headline(groups)
    found = [*_comparisons(shown), *_sweeps(groups), *_necessities(shown)]
    overlaps = overlaps_of([row for mine in shown.values() for row in mine], circuits or {})
    by_group: dict[Group, list[dict[str, Any]]] = {}
    for line in overlaps:
        group = Group(*(line[name] for name in Group._fields))
        by_group.setdefault(group, []).append(line)
    for group, lines in by_group.items():
        figure = suite_figures.stability(lines, f"{group}: overlap between seeds")
        data = [
            {"task": line["task"], "pair": pair, "nodes": nodes, "edges": edges}
            for line in lines
            for pair, (nodes, edges) in enumerate(zip(line["nodes"], line["edges"], strict=True))
        ]
        found.append(Picture(_file_name("stability", *group), figure, data))
    return found


def write_report(
    directory: pathlib.Path,
    rows: Sequence[Row],
    failures: Mapping[str, str],
    timings: Sequence[Mapping[str, Any]],
    circuits: Mapping[tuple[Any, ...], Parts] | None = None,
) -> str:
    """Writes everything, each file atomically, and returns the Markdown.

    Args:
      directory: of the suite.
      rows: of finished cells, in the order of the table.
      failures: {key of a cell: why it failed}; they have rows of status `failed` too.
      timings: a mapping per cell; the first's names are the columns.
      circuits: see `overlaps_of`.
    """
    markdown = markdown_report([row for row in rows if row["status"] != "failed"], failures)
    summary = summary_rows(rows)
    for picture in pictures_of([row for row in rows if row["status"] != "failed"], circuits):
        stem = directory / "figures" / picture.name
        suite_figures.save_vector(picture.figure, stem)
        text = csv_text(list(picture.rows[0]), picture.rows)
        write_bytes(stem.with_name(f"{stem.name}.csv"), text.encode())
    for name, text in (
        ("suite.md", markdown),
        ("summary.csv", csv_text(list(summary[0]) if summary else [], summary)),
        ("timings.csv", csv_text(list(timings[0]) if timings else [], timings)),
        ("suite.csv", csv_text(COLUMNS, with_adjusted(rows))),
    ):
        write_bytes(directory / name, text.encode())
    return markdown


def _headline(groups: Mapping[Group, Sequence[Row]]) -> dict[Group, Sequence[Row]]:
    """The groups of one target, where there are several: that nearest to the default."""
    targets = {group.target for group in groups if group.target is not None}
    if not targets:
        return dict(groups)
    near = min(targets, key=lambda target: abs(math.log(target / SelectionConfig().value)))
    return {group: mine for group, mine in groups.items() if group.target in (None, near)}


# What two series of one figure may differ in, and what the figure is then called.
_VARIED = (("model", "models"), ("ranking", "rankings"))


def _sweeps(groups: Mapping[Group, Sequence[Row]]) -> list[Picture]:
    """Loss against edges, where a model, grain and ranking has more than one target."""
    found = []
    for varied, label in _VARIED:
        families: dict[tuple[str, ...], dict[str, list[Row]]] = {}
        for group, mine in groups.items():
            held = tuple(str(v) for n, v in group._asdict().items() if n not in (varied, "target"))
            series = families.setdefault(held, {})
            series.setdefault(str(getattr(group, varied)), []).extend(mine)
        for held, series in families.items():
            points = sweep(series)
            alone = varied == "ranking" and len(series) < 2  # it is among those of the models
            if alone or any(len(mine) < 2 for mine in points.values()):
                continue
            figure = suite_figures.loss_vs_edges(points, f"Circuits: {', '.join(held)}")
            data = [
                {varied: which, **point._asdict()}
                for which, mine in points.items()
                for point in mine
            ]
            found.append(Picture(_file_name("loss_vs_edges_of", label, *held), figure, data))
    return found


def _comparisons(groups: Mapping[Group, Sequence[Row]]) -> list[Picture]:
    """Edges by task, where groups differ in nothing but the model or the ranking."""
    found = []
    for varied, label in _VARIED:
        families: dict[tuple[Any, ...], dict[str, Sequence[Row]]] = {}
        for group, mine in groups.items():
            held = tuple(value for name, value in group._asdict().items() if name != varied)
            families.setdefault(held, {})[str(getattr(group, varied))] = mine
        for held, series in families.items():
            edges = {which: edges_by_task(mine) for which, mine in series.items()}
            if len(series) < 2 or not any(edges.values()):
                continue
            tasks = {
                which: dict.fromkeys(r["task"] for r in mine) for which, mine in series.items()
            }
            missed = {which: [t for t in tasks[which] if t not in edges[which]] for which in series}
            aim = "" if held[-1] is None else f", target {held[-1]:g} nats"
            figure = suite_figures.edges_by_series(edges, missed, f"{', '.join(held[:-1])}{aim}")
            data = [
                {"task": task, **{which: mine.get(task) for which, mine in edges.items()}}
                for task in dict.fromkeys(itertools.chain(*tasks.values()))
            ]
            found.append(Picture(_file_name("edges_by", label, *held), figure, data))
    return found


def _necessities(groups: Mapping[Group, Sequence[Row]]) -> list[Picture]:
    """Inverse pruning, for learned circuits that reached their target, at the first seed of each."""
    found = []
    for group, mine in groups.items():
        first: dict[str, Row] = {}
        for row in mine:
            if row["status"] == "reached" and row.get("random"):
                first.setdefault(row["task"], row)
        if group.ranking != "learned" or not first:
            continue
        rows = list(first.values())
        figure = suite_figures.necessity(rows, f"{group}: nodes replaced in the whole model")
        data = [
            {
                **{name: row[name] for name in ("task", "loss_unpruned", "loss_without_circuit")},
                **{f"random_{index}": loss for index, loss in enumerate(row["random"])},
            }
            for row in rows
        ]
        found.append(Picture(_file_name("necessity", *group), figure, data))
    return found


def _file_name(*words: Any) -> str:
    return "_".join(f"{word:g}" if isinstance(word, float) else str(word) for word in words if word)
