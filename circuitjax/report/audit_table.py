"""Many audits side by side: what each check said of each circuit, what polish took, what it all cost."""

import pathlib
from collections.abc import Sequence
from typing import Any

from circuitjax.audit.check import LEVEL
from circuitjax.audit.record import FORMAT, OLDER, AuditFigures, CheckFigures
from circuitjax.core.schema import read_record
from circuitjax.core.statistics import adjusted
from circuitjax.report.statistics import geometric_mean
from circuitjax.report.table import markdown_table

__all__ = [
    "checks_table",
    "controls_table",
    "hypotheses_table",
    "polish_table",
    "read_audit",
    "read_audits",
]


def read_audit(path: pathlib.Path) -> AuditFigures:
    """Reads an `audit.json` of this version or the one before, which has no tests and no intervals.

    Raises:
      ValueError: none there, one that was changed, or of another version: one line.
    """
    return read_record(AuditFigures, path, FORMAT, OLDER)


def read_audits(directory: pathlib.Path) -> list[AuditFigures]:
    """The figures of all finished audits below a directory, by model and task.

    Raises:
      ValueError: no directory, no audit below it, one that cannot be read, or two of one task.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory: give one that holds audits")
    found: dict[tuple[str, str], AuditFigures] = {}
    for path in sorted(directory.rglob("audit.json")):
        figures = read_audit(path)
        key = (figures.model, figures.task)
        if key in found:
            raise ValueError(
                f"two audits of {key[1]} on {key[0]} lie below {directory}: name a directory with one"
            )
        found[key] = figures
    if not found:
        raise ValueError(f"no finished audit lies below {directory}: run experiments.audit first")
    return [found[key] for key in sorted(found)]


def checks_table(audits: Sequence[AuditFigures]) -> str:
    """A row per check, a column per circuit, its figure in bold where the check fails."""
    names: dict[tuple[str, str], CheckFigures] = {}
    for audit in audits:
        for check in audit.checks:
            names.setdefault((check.group, check.name), check)

    def cell(audit: AuditFigures, key: tuple[str, str]) -> str | None:
        mine = [c for c in audit.checks if (c.group, c.name) == key]
        if not mine or mine[0].figure is None:
            return None
        text = f"{mine[0].figure:.3g}"
        return text if mine[0].passed else f"**{text}**"

    rows: list[list[Any]] = [
        [
            f"{group}: {name}",
            f"{'<=' if check.at_most else '>='} {check.threshold:.3g}",
            *(cell(audit, (group, name)) for audit in audits),
        ]
        for (group, name), check in names.items()
    ]
    held = [sum(bool(c.passed) for c in audit.checks) for audit in audits]
    taken = [sum(c.passed is not None for c in audit.checks) for audit in audits]
    counts = (f"{a} of {b}" for a, b in zip(held, taken, strict=True))
    rows.append(["hold", "", *counts])
    return markdown_table(["check", "wanted", *_columns(audits)], rows)


def hypotheses_table(audits: Sequence[AuditFigures]) -> str:
    """A row per hypothesis test, a column per circuit: p-values adjusted over all tests of all of them.

    After Benjamini and Hochberg; in bold those that reject their null hypothesis at 5%.
    """
    found = [(name, test) for name, one in enumerate(audits) for test in one.tests]
    values = adjusted([test.p for _, test in found])
    cells: dict[tuple[str, int], str] = {}
    for (place, test), value in zip(found, values, strict=True):
        text = f"{value:.3g}"
        cells[test.name, place] = f"**{text}**" if value <= LEVEL else text
    rows: list[list[Any]] = [
        [name, *(cells.get((name, place)) for place in range(len(audits)))]
        for name in dict.fromkeys(test.name for _, test in found)
    ]
    needed = [None if a.minimality is None else f"{a.minimality.needed:.2f}" for a in audits]
    rows.append(["share of parts needed", *needed])
    return markdown_table(["test", *_columns(audits)], rows)


def polish_table(audits: Sequence[AuditFigures]) -> str:
    """Nodes and edges before and after polish, with losses; the last row has geometric means."""
    columns = ("nodes", "edges", "loss_validation", "loss_test")
    header = ["task"]
    for column in columns:
        header += [column.removeprefix("loss_"), "polished"]
    keys = [f"{column}_{when}" for column in columns for when in ("before", "after")]
    mine = [audit for audit in audits if audit.polish]
    rows: list[list[Any]] = [
        [name, *(getattr(audit.polish, key) for key in keys)]
        for name, audit in zip(_columns(mine), mine, strict=True)
    ]
    if rows:
        counts = zip(*(row[1:5] for row in rows), strict=True)
        means = [round(geometric_mean([max(1, value) for value in column])) for column in counts]
        rows.append(["geometric mean", *means, None, None, None, None])
    return markdown_table(header, rows)


def controls_table(audits: Sequence[AuditFigures]) -> str:
    """Nodes or edges that each search needed; "-" where it never met the target. And seconds."""
    rows: list[list[Any]] = []
    for name, audit in zip(_columns(audits), audits, strict=True):
        runs = audit.runs
        own = [str(r.size) if r.reached else "-" for r in runs if r.world == "task"]
        others = []
        for world in ("nonsense", "shuffled", "weights"):
            found = [run for run in runs if run.world == world]
            text = None if not found else str(found[0].size) if found[0].reached else "never"
            others.append(text)
        stable = audit.stability
        shared = [None, None] if stable is None else [stable.jaccard, stable.core]
        total = round(sum(audit.seconds.values()))
        rows.append(
            [name, f"{audit.size} {audit.unit}", " ".join(own) or None, *shared, *others, total]
        )
    stability = ("other seeds", "Jaccard", "core")
    controls = ("nonsense", "shuffled labels", "random weights")
    return markdown_table(["task", "size", *stability, *controls, "seconds"], rows)


def _columns(audits: Sequence[AuditFigures]) -> list[str]:
    models = {audit.model for audit in audits}
    return [a.task if len(models) == 1 else f"{a.model}/{a.task}" for a in audits]
