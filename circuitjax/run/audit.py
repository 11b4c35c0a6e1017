"""An audit in a directory.

audit.md        the verdict as a table, and the figures behind it
*.png, *.svg    pictures
polished/       the circuit without what it does not need
audit.json      every figure; written last, so its presence means "finished"
"""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from circuitjax.audit.audit import AuditConfig, audit_circuit
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.checkpoints import write_bytes, write_json
from circuitjax.model.record import Model
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.report.audit_plots import PICTURES, plot_audit
from circuitjax.report.run_directory import versions
from circuitjax.report.table import markdown_table
from circuitjax.tasks.base import Task

__all__ = ["audit_markdown", "check_lines", "run_audit"]

_OURS = (
    "audit.json",
    "audit.md",
    "polished",
    *(f"{name}.{suffix}" for name in PICTURES for suffix in ("png", "svg")),
)
_UNFINISHED = (
    " An audit polishes for a limited number of rounds, and there was more to try: `cj.polish` on the "
    "circuit in polished/ goes on."
)
_ASTRAY = 10  # times the nodes of the smallest: no circuit of that search


def _check(directory: pathlib.Path, identity: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the directory holds this very audit; refuses what may not be replaced."""
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise ValueError(f"{directory} is a file: choose another --out")
    names = [path.name for path in directory.iterdir()]
    foreign = sorted(n for n in names if n not in _OURS and not n.startswith("."))
    if foreign:
        raise ValueError(
            f"{directory} holds files that are no audit of ours, such as {foreign[0]!r}: choose "
            "another --out"
        )
    try:
        held = json.loads((directory / "audit.json").read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if held == json.loads(json.dumps(identity)):
        return True
    if not overwrite:
        raise ValueError(
            f"{directory} holds another audit: choose another --out, or replace it with --overwrite"
        )
    return False


def run_audit(
    model: Model,
    task: Task,
    circuit: Circuit,
    directory: pathlib.Path,
    config: AuditConfig | None = None,
    *,
    prune: PruneConfig | None = None,
    hyper: Hyper | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Audits a circuit and writes what was found; a finished audit is only read.

    Args:
      model, task, circuit, config, prune, hyper, say: see `audit.audit_circuit`.
      directory: made if need be.
      overwrite: replace another audit.

    Returns:
      The figures, as in audit.json.

    Raises:
      ValueError: see `audit_circuit`; a directory that holds something else.
    """
    config = config or AuditConfig()
    identity = {
        "circuit": circuit.content_hash,
        "task": task.name,
        "audit": repr(config),
        "prune": None if prune is None else prune.to_dict(),
        "hyper": None if hyper is None else hyper.to_dict(),
    }
    if _check(directory, identity, overwrite):
        found: dict[str, Any] = json.loads((directory / "audit.json").read_text(encoding="utf-8"))
        return found
    audit = audit_circuit(model, task, circuit, config, prune=prune, hyper=hyper, say=say)
    figures = {**audit.figures, "identity": identity, "versions": versions()}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "audit.json").unlink(missing_ok=True)
    shutil.rmtree(directory / "polished", ignore_errors=True)
    for name in PICTURES:
        for suffix in ("png", "svg"):
            (directory / f"{name}.{suffix}").unlink(missing_ok=True)
    if audit.polished is not None:
        audit.polished.save(directory / "polished", model)
    plot_audit(directory, figures, audit.differences)
    write_bytes(directory / "audit.md", audit_markdown(figures).encode())
    write_json(directory / "audit.json", figures)
    return figures


def check_lines(checks: list[dict[str, Any]]) -> str:
    """The verdict for a terminal: one check a line."""
    marks = {True: "ok  ", False: "FAIL", None: "-   "}
    width = max((len(f"{c['group']}: {c['name']}") for c in checks), default=0)
    lines = []
    for check in checks:
        name = f"{check['group']}: {check['name']}".ljust(width)
        lines.append(f"  {marks[check['passed']]}  {name}  {_held(check)}")
    return "\n".join(lines)


def _held(check: Mapping[str, Any]) -> str:
    if check["figure"] is None:
        return f"not taken: {check['note']}"
    sign = "<=" if check["at_most"] else ">="
    note = f" ({check['note']})" if check["note"] else ""
    return f"{check['figure']:.3f} {sign} {check['threshold']:.3g} {check['unit']}{note}"


def audit_markdown(figures: Mapping[str, Any]) -> str:
    """The report for people."""
    checks = figures["checks"]
    counts = {mark: sum(c["passed"] is mark for c in checks) for mark in (True, False, None)}
    words = {True: "yes", False: "**no**", None: "-"}
    rows = [
        [
            check["group"],
            check["name"],
            check["figure"],
            f"{'<=' if check['at_most'] else '>='} {check['threshold']:.3g}",
            check["unit"],
            words[check["passed"]],
            check["note"],
        ]
        for check in checks
    ]
    parts = [
        f"# Audit: {figures['task']} on {figures['model']}",
        f"{figures['nodes']} of {figures['nodes_total']} nodes, {figures['edges']} edges; target "
        f"{figures['target_loss']:g} nats. Of {len(checks)} checks {counts[True]} hold, "
        f"{counts[False]} do not, {counts[None]} could not be taken. Losses are in nats; what a "
        "threshold means is for the reader to weigh: there is no total score.",
        markdown_table(["of", "check", "figure", "wanted", "unit", "holds", "note"], rows),
        *_searches(figures),
        *_details(figures),
        "## Seconds",
        ", ".join(f"{name} {value:.0f}" for name, value in figures["seconds"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _searches(figures: Mapping[str, Any]) -> list[str]:
    if not figures["runs"]:
        return []
    budget = figures["settings"]["audit"]
    notes = [f"{name}: {note}" for name, note in figures["worlds"].items() if note]
    rows = [
        [run["world"], run["seed"], run["nodes"], run["edges"], "yes" if run["reached"] else "no",
         run["loss"], run["loss_test"]]
        for run in figures["runs"]
    ]  # fmt: skip
    stable = figures["stability"]
    return [
        "## Other seeds and controls",
        f"All searches share the circuit's hyperparameters and one budget "
        f"({budget['batch_size'] or figures['settings']['prune']['batch_size']} pairs a step), so a "
        "control is compared with the task's own seeds, not with the audited circuit.",
        markdown_table(["search", "seed", "nodes", "edges", "reached", "validation", "test"], rows),
        "\n".join(f"- {note}" for note in notes),
        *_astray(figures),
        f"Seeds share {stable['core']} nodes, {100 * stable['core_share']:.0f}% of the smallest "
        f"circuit; {stable['core_in_circuit']} of them are in the audited one. The core alone: "
        f"{stable['core_loss']:.3f} nats. Jaccard with the audited circuit: "
        f"{stable['with_circuit']:.2f}.",
    ]


def _astray(figures: Mapping[str, Any]) -> list[str]:
    """Says which seeds closed nearly everything and came back with a circuit out of proportion."""
    mine = [run for run in figures["runs"] if run["world"] == "task"]
    least = min(run["nodes"] for run in mine)
    seeds = [str(run["seed"]) for run in mine if run["nodes"] > _ASTRAY * max(least, 1)]
    if not seeds:
        return []
    given = figures["settings"]["audit"]["batch_size"]
    k_coef = figures["settings"]["hyper"]["k_coef"]
    own = figures["settings"]["prune"]["batch_size"]
    mend = f"`--batch_size=0` searches with {own} pairs a step; " if given and given < own else ""
    return [
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} went astray: more than {_ASTRAY} times "
        f"the nodes of the smallest. With k_coef={k_coef:.3g} the search is "
        f"at the edge of closing everything: {mend}a circuit found with a smaller k_coef is steadier."
    ]


def _details(figures: Mapping[str, Any]) -> list[str]:
    rows = [
        [kind, "frozen" if name == "frozen" else "own", losses["loss"], losses["loss_uncalibrated"]]
        for kind, norms in figures["sufficiency"].items()
        for name, losses in norms.items()
    ]
    templates = [
        [name, found["pairs"], found["loss"]] for name, found in figures["templates"].items()
    ]
    effects = sorted(figures["effects"]["nodes"].items(), key=lambda item: -item[1])
    parts = [
        "## Replacements",
        markdown_table(["closed nodes hold", "norms", "calibrated", "uncalibrated"], rows),
        "## Templates",
        markdown_table(["template", "test pairs", "loss"], templates),
        "## The nodes that do most",
        markdown_table(["node", "rise without it"], [list(item) for item in effects[:10]]),
    ]
    polish = figures["polish"]
    if polish:
        parts += [
            "## Polish",
            f"Nodes {polish['nodes_before']} -> {polish['nodes_after']}, edges "
            f"{polish['edges_before']} -> {polish['edges_after']}; test loss "
            f"{polish['loss_test_before']:.3f} -> {polish['loss_test_after']:.3f}."
            + ("" if polish["finished"] else _UNFINISHED),
        ]
    return parts
