"""Many audits side by side: what each check said of each circuit, what polish took, what it all cost."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from circuitjax.report.statistics import geometric_mean
from circuitjax.report.table import markdown_table

__all__ = ["checks_table", "controls_table", "polish_table", "read_audits"]


def read_audits(directory: pathlib.Path) -> list[dict[str, Any]]:
    """The figures of all finished audits below a directory, by model and task.

    Raises:
      ValueError: no directory, no audit below it, one that cannot be read, or two of one task.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory: give one that holds audits")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(directory.rglob("audit.json")):
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
            key = (str(figures["model"]), str(figures["task"]))
            missing = {"checks", "polish", "runs", "stability", "seconds"} - set(figures)
            if missing:
                raise KeyError(min(missing))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no audit that can be read: {error!r}") from None
        if key in found:
            raise ValueError(
                f"two audits of {key[1]} on {key[0]} lie below {directory}: name a directory with one"
            )
        found[key] = figures
    if not found:
        raise ValueError(f"no finished audit lies below {directory}: run experiments.audit first")
    return [found[key] for key in sorted(found)]


def checks_table(audits: Sequence[Mapping[str, Any]]) -> str:
    """A row per check, a column per circuit, its figure in bold where the check fails."""
    names: dict[tuple[str, str], Mapping[str, Any]] = {}
    for audit in audits:
        for check in audit["checks"]:
            names.setdefault((check["group"], check["name"]), check)

    def cell(audit: Mapping[str, Any], key: tuple[str, str]) -> str | None:
        mine = [c for c in audit["checks"] if (c["group"], c["name"]) == key]
        if not mine or mine[0]["figure"] is None:
            return None
        text = f"{mine[0]['figure']:.3g}"
        return text if mine[0]["passed"] else f"**{text}**"

    rows: list[list[Any]] = [
        [
            f"{group}: {name}",
            f"{'<=' if check['at_most'] else '>='} {check['threshold']:.3g}",
            *(cell(audit, (group, name)) for audit in audits),
        ]
        for (group, name), check in names.items()
    ]
    held = [sum(bool(c["passed"]) for c in audit["checks"]) for audit in audits]
    taken = [sum(c["passed"] is not None for c in audit["checks"]) for audit in audits]
    counts = (f"{a} of {b}" for a, b in zip(held, taken, strict=True))
    rows.append(["hold", "", *counts])
    return markdown_table(["check", "wanted", *_columns(audits)], rows)


def polish_table(audits: Sequence[Mapping[str, Any]]) -> str:
    """Nodes and edges before and after polish, with losses; the last row has geometric means."""
    columns = ("nodes", "edges", "loss_validation", "loss_test")
    header = ["task"]
    for column in columns:
        header += [column.removeprefix("loss_"), "polished"]
    keys = [f"{column}_{when}" for column in columns for when in ("before", "after")]
    mine = [audit for audit in audits if audit.get("polish")]
    rows: list[list[Any]] = [
        [name, *(audit["polish"][key] for key in keys)]
        for name, audit in zip(_columns(mine), mine, strict=True)
    ]
    if rows:
        counts = zip(*(row[1:5] for row in rows), strict=True)
        means = [round(geometric_mean([max(1, value) for value in column])) for column in counts]
        rows.append(["geometric mean", *means, None, None, None, None])
    return markdown_table(header, rows)


def controls_table(audits: Sequence[Mapping[str, Any]]) -> str:
    """Nodes that each repeated search needed; "-" where it never met the target. And seconds."""
    rows: list[list[Any]] = []
    for name, audit in zip(_columns(audits), audits, strict=True):
        runs = audit["runs"]
        own = [str(r["nodes"]) if r["reached"] else "-" for r in runs if r["world"] == "task"]
        others = []
        for world in ("nonsense", "shuffled", "weights"):
            found = [run for run in runs if run["world"] == world]
            text = None if not found else str(found[0]["nodes"]) if found[0]["reached"] else "never"
            others.append(text)
        stable = audit["stability"]
        shared = [None, None] if stable is None else [stable["jaccard"], stable["core"]]
        total = round(sum(audit["seconds"].values()))
        rows.append([name, audit["nodes"], " ".join(own) or None, *shared, *others, total])
    stability = ("other seeds", "Jaccard", "core")
    controls = ("nonsense", "shuffled labels", "random weights")
    return markdown_table(["task", "nodes", *stability, *controls, "seconds"], rows)


def _columns(audits: Sequence[Mapping[str, Any]]) -> list[str]:
    models = {audit["model"] for audit in audits}
    return [a["task"] if len(models) == 1 else f"{a['model']}/{a['task']}" for a in audits]
