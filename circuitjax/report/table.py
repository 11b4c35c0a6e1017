"""Plain-text and Markdown tables."""

import textwrap
from collections.abc import Sequence
from typing import Any

__all__ = ["markdown_table", "summary_lines"]

_COLUMNS = 110  # of the summary


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table with aligned columns; floats get three decimals, a bar stays within its cell."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return "-" if value is None else str(value).replace("|", "\\|")

    cells = [list(header), *([text(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def summary_lines(report: Any) -> str:
    """What a pruning run prints at its end, of its `Report`; losses in nats on the test split.

    In parentheses stand bootstrap intervals at 95% over the test items.
    """

    def told(name: str) -> str:
        interval = report.intervals.get(name)
        between = "" if interval is None else f" ({interval[0]:.4f} to {interval[1]:.4f})"
        return f"{getattr(report, name):.4f}{between}"

    rows = [
        ("status", f"{report.status} ({_target(report)}{_validation(report)})"),
        ("nodes", f"{report.nodes} of {report.nodes_total}"),
        ("edges", f"{report.edges} of {report.edges_total}"),
        ("loss, whole model", told("loss_unpruned")),
        ("loss, circuit", told("loss_circuit")),
        ("loss, circuit uncalibrated", told("loss_circuit_uncalibrated")),
        ("loss, empty circuit", told("loss_empty")),
        ("loss without the circuit", told("loss_without_circuit")),
    ]
    random = report.loss_without_random
    if random:
        low, high = min(random), max(random)
        rows.append(
            ("loss without random sets", f"{low:.4f} to {high:.4f} ({len(random)} matched sets)")
        )
    test = report.necessity
    if test is not None:
        counted = f"{test.exceeded:g} of {test.draws} random sets hurt as much"
        rows.append(("necessity", f"p = {test.p:.3g} ({counted})"))
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in report.seconds.items())
    accuracy = f"{report.accuracy_unpruned:.3f} / {report.accuracy_circuit:.3f}"
    rows += [
        ("accuracy, model / circuit", accuracy),
        ("KL(model || circuit)", f"{told('kl_to_model')} nats"),
        ("seconds", seconds),
    ]
    if report.conditions:
        under = ", ".join(
            f"{name} {figures.loss:.3f}" for name, figures in report.conditions.items()
        )
        rows.append(("loss under", under))
    if report.certificate is not None and report.certificate.kind != "none":
        tried = f"{report.certificate.singles} gates and {report.certificate.pairs} pairs tried"
        rows.append(("minimal", f"{report.certificate.kind} ({tried})"))
    if report.beats_model:
        rows.append(("note", "the circuit does the task better than the model it was cut from"))
    if report.checks:
        rows.append(("checks", _checks(report.checks)))
    width = max(len(name) for name, _ in rows)
    ranked = "" if report.ranking == "learned" else f", ranked by {report.ranking}"
    how = f"grain {report.grain}, {report.ablation} ablation{ranked}"
    heading = f"{report.task} on {report.model} ({how})"
    return "\n".join([heading, *(_row(name.ljust(width), value) for name, value in rows)])


def _row(name: str, value: str) -> str:
    """A line of the table, or several where the value is long."""
    head = f"  {name}  "
    wrapped = textwrap.wrap(value, _COLUMNS - len(head), break_long_words=False) or [""]
    return head + f"\n{' ' * len(head)}".join(wrapped)


def _checks(checks: Sequence[Any]) -> str:
    """The short form of an audit in one line: how many hold, and which do not."""
    taken = [check for check in checks if check.passed is not None]
    failed = [
        f"{check.name} {check.figure:.2f} ({'<=' if check.at_most else '>='} {check.threshold:.2g})"
        for check in taken
        if not check.passed
    ]
    held = f"{len(taken) - len(failed)} of {len(taken)} hold"
    return held + (f"; not: {', '.join(failed)}" if failed else "")


def _validation(report: Any) -> str:
    """What is compared with the target: the status is of validation, all other figures of test."""
    found = {"loss": report.loss_validation, "kl": report.kl_validation}.get(report.target)
    return "" if found is None else f"; {found:.4f} on validation"


def _target(report: Any) -> str:
    if report.target == "match_soft":
        return "as many gates as are expected to be open"
    unit = {"loss": " nats", "kl": " nats of KL"}.get(report.target, f" {report.target}")
    asked = report.config.get("search", {}).get("selection", {})
    beside = f" and {asked['kl']:g} nats of KL" if asked.get("kl") is not None else ""
    sure = f", with confidence {asked['confidence']:g}" if asked.get("confidence") else ""
    return f"target {report.target_value:g}{unit}{beside}{sure}"
