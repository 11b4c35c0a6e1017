"""What a page says of the run beside its circuit: figures, the curve of loss against k, the audit.

Both are fields of the typed records that a run and an audit write; a figure that was not measured is
null there, and left out here.
"""

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
_COLUMNS = ("group", "name", "figure", "threshold", "passed", "note")
_LIMIT = 400  # characters of a cell


def figures_of(report: Mapping[str, Any] | None) -> list[list[str]]:
    """[label, text] of a report's figures."""
    if report is None:
        return []
    rows = [["Status", report["status"].replace("_", " ") + _aimed(report)]]
    for key, label, unit in _FIGURES:
        value = report.get(key)
        if value is not None:
            ends = report.get("intervals", {}).get(key)
            between = "" if ends is None else f" ({ends[0]:.4f} to {ends[1]:.4f})"
            rows.append([label, f"{value:.4f}{between} {unit}".strip()])
    random = report.get("loss_without_random")
    if random:
        text = f"{min(random):.4f} to {max(random):.4f} nats, {len(random)} sets"
        rows.append(["Loss without matched random sets", text])
    test = report.get("necessity")
    if test:
        text = f"p = {test['p']:.3g}, {test['exceeded']:g} of {test['draws']} sets hurt as much"
        rows.append(["Test against random sets", text])
    if report.get("beats_model"):
        rows.append(["Note", "the circuit does the task better than the model it was cut from"])
    return rows


def _aimed(report: Mapping[str, Any]) -> str:
    value = report["target_value"]
    if value is None:
        return ""
    unit = {"loss": "nats", "kl": "nats of KL"}.get(report["target"], report["target"])
    return f", target {value:g} {unit}"


def curve_of(
    report: Mapping[str, Any] | None, chosen_job: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Loss, or the KL that was aimed at, against size, of every job of a report; None where it has none.

    Args:
      report: its `jobs` have `seed`, `hyper`, `k` where the ranking was cut, and a `curve` of points
        with `k`, `parts`, `raw` and `loss` (task loss, and calibrated) and `kl`.
      chosen_job: `seed` and hyperparameters of the job that became the circuit, from its provenance.

    Returns:
      `measure` (what the points are), `unit`, `target` and `unpruned` (nats or None), `chosen` (index
      of the job that became the circuit, or None), `jobs`: `label`, `k` (where it was cut, or None
      where gates were closed one by one after it), `reached` (the target), `points`
      [size, loss, calibrated loss].
    """
    if report is None:
        return None
    by_kl, chosen = report["target"] == "kl", None
    jobs: list[dict[str, Any]] = []
    for row in report["jobs"]:
        names = ("parts", "kl", "kl") if by_kl else ("parts", "raw", "loss")
        read = [[point[name] for name in names] for point in row["curve"]]
        points = sorted(point for point in read if None not in point)
        if not points:
            continue
        if {"seed": row["seed"], **row["hyper"]} == chosen_job:
            chosen = len(jobs)
        # A circuit whose gates were closed one by one after the cut is no first k of the ranking.
        size = next((p["parts"] for p in row["curve"] if p["k"] == row["k"]), None)
        facts = {"label": _job_label(row), "k": size, "reached": row["reached"]}
        jobs.append({**facts, "points": points})
    if not jobs:
        return None
    return {
        "measure": "KL to the model" if by_kl else "task loss",
        "unit": f"{report['grain']} kept",
        "target": report["target_value"] if report["target"] in ("loss", "kl") else None,
        "unpruned": 0.0 if by_kl else report["loss_unpruned"],
        "chosen": chosen,
        "jobs": jobs,
    }


def audit_table(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The named checks of an audit; None where there is no audit.

    Args:
      audit: its `checks` have `group`, `name`, `figure`, `threshold`, `at_most`, `unit`, `note` and
        `passed`.

    Returns:
      `title`: whose checks they are; `columns`, `rows` of texts, and `passed` (true, false or None) of
      each row.
    """
    if audit is None:
        return None
    texts = [_cells(check) for check in audit["checks"]]
    columns = [name for name in _COLUMNS if any(cells.get(name) for cells in texts)]
    rows = [[cells.get(name, "") for name in columns] for cells in texts]
    return {
        "title": "Audit" if "supersets" in audit else "Checks of the run",
        "columns": columns,
        "rows": rows,
        "passed": [c["passed"] for c in audit["checks"]],
    }


def _cells(check: Mapping[str, Any]) -> dict[str, str]:
    """One check as texts: unit and direction stand beside the numbers they belong to."""
    cells = {name: _text(check.get(name)) for name in _COLUMNS}
    unit = f" {check['unit']}" if check.get("unit") else ""
    if cells["figure"] and check.get("low") is not None and check.get("high") is not None:
        cells["figure"] += f" ({_text(check['low'])} to {_text(check['high'])})"
    for name in ("figure", "threshold"):
        cells[name] += unit if cells[name] else ""
    if cells["threshold"] and "at_most" in check:
        cells["threshold"] = f"{'≤' if check['at_most'] else '≥'} {cells['threshold']}"
    return cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


def _job_label(row: Mapping[str, Any]) -> str:
    k_coef = row["hyper"].get("k_coef")
    setting = "" if k_coef is None else f", k_coef {k_coef:.2g}"
    return f"seed {row['seed']}{setting}"
