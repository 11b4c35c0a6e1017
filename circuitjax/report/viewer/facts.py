"""What a page says of the run beside its circuit: figures, the curve of loss against k, the audit.

A report or an audit may be of another version, or damaged: what is not understood is left out or
shown as it stands; nothing here raises for it.
"""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["audit_table", "curve_of", "figures_of"]

_FIGURES = (
    ("loss_unpruned", "Loss of the whole model", "nats"),
    ("loss_circuit", "Loss of the circuit", "nats"),
    ("loss_circuit_uncalibrated", "Loss of the circuit, not calibrated", "nats"),
    ("loss_empty", "Loss of the empty circuit", "nats"),
    ("loss_without_circuit", "Loss of the model without it", "nats"),
    ("accuracy_unpruned", "Accuracy of the model", ""),
    ("accuracy_circuit", "Accuracy of the circuit", ""),
    ("kl_to_model", "KL(model || circuit)", "nats"),
    ("argmax_agreement", "Same top token as the model", ""),
)
_COLUMNS = ("group", "name", "figure", "threshold", "passed", "note")  # first, in this order
_LIMIT = 400  # characters of a cell


def figures_of(report: Mapping[str, Any] | None) -> list[list[str]]:
    """[label, text] of a report's figures, those that are there."""
    if not isinstance(report, Mapping):
        return []
    rows = []
    if isinstance(report.get("status"), str):
        target = report.get("target_loss")
        aimed = f", target {target:g} nats" if isinstance(target, int | float) else ""
        rows.append(["Status", report["status"].replace("_", " ") + aimed])
    for key, label, unit in _FIGURES:
        value = report.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            rows.append([label, f"{value:.4f} {unit}".strip()])
    random = report.get("loss_without_random")
    if isinstance(random, list) and random and all(isinstance(x, int | float) for x in random):
        text = f"{min(random):.4f} to {max(random):.4f} nats, {len(random)} sets"
        rows.append(["Loss without matched random sets", text])
    if report.get("beats_model") is True:
        rows.append(["Note", "the circuit does the task better than the model it was cut from"])
    return rows


def curve_of(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Loss against size, of every job of a report; None where it has none.

    Returns:
      `unit`, `target` and `unpruned` (nats or None), `chosen` (index of the job that became the
      circuit, or None), `jobs`: `label`, `k` (where it was cut, or None), `points` [size, loss,
      calibrated loss].
    """
    if not isinstance(report, Mapping) or not isinstance(report.get("jobs"), list):
        return None
    of_edges = report.get("method") == "edges"
    columns = (1, 3, 4) if of_edges else (0, 1, 2)
    jobs: list[dict[str, Any]] = []
    chosen = None
    for row in report["jobs"]:
        curve = row.get("curve") if isinstance(row, Mapping) else None
        read = [_point(point, columns) for point in curve] if isinstance(curve, list) else []
        points = sorted(point for point in read if point is not None)
        if not points:
            continue
        size = row.get("edges") if of_edges else row.get("k_inside") or row.get("k_after")
        same = ("seed", "edges", "loss_validation")
        if chosen is None and all(row.get(name) == report.get(name) for name in same):
            chosen = len(jobs)
        jobs.append({"label": _job_label(row), "k": _number(size), "points": points})
    if not jobs:
        return None
    return {
        "unit": f"{report.get('method', 'nodes')} kept",
        "target": _number(report.get("target_loss")),
        "unpruned": _number(report.get("loss_unpruned")),
        "chosen": chosen,
        "jobs": jobs,
    }


def audit_table(audit: Any) -> dict[str, Any] | None:
    """Named checks of an audit in any of a few shapes; None where there is no audit.

    Args:
      audit: the content of audit.json: a list of checks, or an object that holds one under `checks`,
        `verdict` or `table`, or an object of objects by name.

    Returns:
      `columns`, `rows` of texts, and `passed` (true, false or None) of each row.
    """
    if audit is None:
        return None
    checks = _checks(audit)
    if not checks:
        return {"columns": ["audit.json"], "rows": [[_text(audit)]], "passed": [None]}
    passed = [c["passed"] if isinstance(c.get("passed"), bool) else None for c in checks]
    texts = [_cells(check) for check in checks]
    columns = [name for name in _COLUMNS if any(cells.get(name) for cells in texts)]
    for cells in texts:
        columns += [name for name in cells if name not in (*columns, *_COLUMNS)]
    rows = [[cells.get(name, "") for name in columns] for cells in texts]
    return {"columns": columns, "rows": rows, "passed": passed}


def _cells(check: Mapping[str, Any]) -> dict[str, str]:
    """One check as texts: unit and direction stand beside the numbers they belong to."""
    cells = {str(k): _text(v) for k, v in check.items() if k not in ("unit", "at_most")}
    unit = f" {check['unit']}" if isinstance(check.get("unit"), str) and check["unit"] else ""
    for name in ("figure", "threshold"):
        if isinstance(check.get(name), int | float):
            cells[name] += unit
    if isinstance(check.get("at_most"), bool) and cells.get("threshold"):
        cells["threshold"] = f"{'≤' if check['at_most'] else '≥'} {cells['threshold']}"
    return cells


def _checks(audit: Any) -> list[dict[str, Any]]:
    if isinstance(audit, Mapping):
        for name in ("checks", "verdict", "table"):
            if name in audit:
                found = _checks(audit[name])
                if found:
                    return found
        named = {k: v for k, v in audit.items() if isinstance(v, Mapping)}
        return [{"name": str(k), **v} for k, v in named.items() if "passed" in v or "figure" in v]
    if isinstance(audit, list) and all(isinstance(check, Mapping) for check in audit):
        return [dict(check) for check in audit]
    return []


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


def _number(value: Any) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric and abs(value) < float("inf") else None


def _point(point: Any, columns: tuple[int, ...]) -> list[float] | None:
    if not isinstance(point, list) or len(point) <= max(columns):
        return None
    values = [_number(point[column]) for column in columns]
    return None if None in values else [value for value in values if value is not None]


def _job_label(row: Mapping[str, Any]) -> str:
    hyper = row.get("hyper")
    k_coef = _number(hyper.get("k_coef")) if isinstance(hyper, Mapping) else None
    setting = "" if k_coef is None else f", k_coef {k_coef:.2g}"
    return f"seed {row.get('seed', '?')}{setting}"
