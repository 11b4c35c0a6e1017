"""An audit for people: its verdict in a terminal, and its figures as Markdown."""

from collections.abc import Sequence

from circuitjax.audit.record import AuditFigures, CheckFigures
from circuitjax.report.table import markdown_table

__all__ = ["audit_markdown", "check_lines"]

_UNFINISHED = (
    " An audit polishes for a limited number of rounds, and there was more to try: `cj.polish` on the "
    "circuit in polished/ goes on."
)
_HEADER = ("of", "check", "figure", "95% interval", "wanted", "unit", "holds", "note")
_ASTRAY = 10  # times the size of the smallest: no circuit of that search
_MEASURES = {"calibrated": "calibrated task loss", "task": "task loss", "kl": "KL to the model"}


def check_lines(checks: Sequence[CheckFigures]) -> str:
    """The verdict for a terminal: one check a line."""
    marks = {True: "ok  ", False: "FAIL", None: "-   "}
    width = max((len(f"{c.group}: {c.name}") for c in checks), default=0)
    lines = []
    for check in checks:
        name = f"{check.group}: {check.name}".ljust(width)
        lines.append(f"  {marks[check.passed]}  {name}  {_held(check)}")
    return "\n".join(lines)


def _held(check: CheckFigures) -> str:
    if check.figure is None:
        return f"not taken: {check.note}"
    sign = "<=" if check.at_most else ">="
    note = f" ({check.note})" if check.note else ""
    return f"{check.figure:.3f}{_between(check)} {sign} {check.threshold:.3g} {check.unit}{note}"


def _between(check: CheckFigures) -> str:
    """The figure's interval."""
    if check.low is None or check.high is None:
        return ""
    return f" ({check.low:.3f} to {check.high:.3f})"


def audit_markdown(figures: AuditFigures) -> str:
    """The report for people."""
    checks = figures.checks
    counts = {mark: sum(c.passed is mark for c in checks) for mark in (True, False, None)}
    words = {True: "yes", False: "**no**", None: "-"}
    rows = [
        [
            check.group,
            check.name,
            check.figure,
            _between(check).strip(" ()") or None,
            f"{'<=' if check.at_most else '>='} {check.threshold:.3g}",
            check.unit,
            words[check.passed],
            check.note,
        ]
        for check in checks
    ]
    parts = [
        f"# Audit: {figures.task} on {figures.model}",
        f"{figures.nodes} of {figures.nodes_total} nodes, {figures.edges} of {figures.edges_total} "
        f"edges, a circuit of {figures.grain} under {figures.ablation} ablation; target "
        f"{figures.target:g} nats of the {_MEASURES[figures.measure]}. Of {len(checks)} checks "
        f"{counts[True]} hold, {counts[False]} do not, {counts[None]} could not be taken. "
        "Losses are in nats; what a threshold means is for the reader to weigh: there is no total "
        "score.",
        markdown_table(_HEADER, rows),
        *_tests(figures),
        *_whole_split(figures),
        *_searches(figures),
        *_details(figures),
        "## Seconds",
        ", ".join(f"{name} {value:.0f}" for name, value in figures.seconds.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _tests(figures: AuditFigures) -> list[str]:
    """The hypothesis tests: what each assumes, and what became of it."""
    if not figures.tests:
        return []
    rows = [
        [test.name, test.null, f"{test.p:.3g}",
         None if test.adjusted is None else f"{test.adjusted:.3g}", test.note]
        for test in figures.tests
    ]  # fmt: skip
    parts = [
        "## Tests",
        "p is the chance of what was seen, or more, if the null hypothesis holds; adjusted after "
        "Benjamini and Hochberg for the number of tests. A small p of necessity speaks for the circuit, "
        "a small one of the others against it.",
        markdown_table(["test", "null hypothesis", "p", "adjusted", "note"], rows),
    ]
    found = figures.minimality
    if found is not None:
        idle = [name for name, p in sorted(found.p.items(), key=lambda item: -item[1]) if p > 0.05]
        more = f"; the least likely to be needed: {', '.join(idle[:10])}" if idle else ""
        parts.append(
            f"Of {found.tested} parts tested ({found.parts} in all) {100 * found.needed:.0f}% do more "
            f"than random parts of {found.inflated} inflated circuits, at a false discovery rate of "
            f"5%{more}."
        )
    return parts


def _whole_split(figures: AuditFigures) -> list[str]:
    found = figures.exhaustive
    if found is None:
        return []
    unit = "pairs" if figures.paired else "examples"
    bound = (
        "exactly"
        if found.exact
        else f"95% interval after Clopper and Pearson {found.low:.5f} to {found.high:.5f}"
    )
    rows = [
        [f"`{_one_line(w.prompt)}`", f"`{_one_line(w.right)}`", f"`{_one_line(w.wrong)}`",
         w.odds, w.odds_model]
        for w in found.worst
    ]  # fmt: skip
    return [
        "## The whole held-out split",
        f"{found.prompts} prompts ({found.how}): {found.right:.5f} of them are answered right; of the "
        f"{found.items} {unit} {found.items_right:.5f} wholly ({bound}). Mean loss {found.loss:.4f} "
        f"nats ({found.loss_low:.4f} to {found.loss_high:.4f}).",
        markdown_table(["worst prompts", "right", "wrong", "odds, circuit", "odds, model"], rows),
    ]


def _one_line(text: str) -> str:
    """A text within a cell of a table."""
    return text.encode("unicode_escape").decode().replace("`", "'")


def _searches(figures: AuditFigures) -> list[str]:
    stable = figures.stability
    if not figures.runs or stable is None:
        return []
    items = figures.settings["audit"]["batch_size"]
    items = items or figures.settings["search"]["train"]["batch_size"]
    notes = [f"{name}: {note}" for name, note in figures.worlds.items() if note]
    rows = [
        [run.world, run.seed, run.nodes, run.edges, "yes" if run.reached else "no",
         run.loss, run.loss_test]
        for run in figures.runs
    ]  # fmt: skip
    return [
        "## Other seeds and controls",
        f"All searches share the circuit's hyperparameters and one budget ({items} items a step), so a "
        "control is compared with the task's own seeds, not with the audited circuit.",
        markdown_table(["search", "seed", "nodes", "edges", "reached", "validation", "test"], rows),
        "\n".join(f"- {note}" for note in notes),
        *_astray(figures),
        f"Seeds share {stable.core} {figures.unit}, {100 * stable.core_share:.0f}% of the smallest "
        f"circuit; {stable.core_in_circuit} of them are in the audited one. The core alone: "
        f"{stable.core_loss:.3f} nats. Jaccard with the audited circuit: "
        f"{stable.with_circuit:.2f}.",
    ]


def _astray(figures: AuditFigures) -> list[str]:
    """Says which seeds closed nearly everything and came back with a circuit out of proportion."""
    mine = [run for run in figures.runs if run.world == "task"]
    least = min(run.size for run in mine)
    seeds = [str(run.seed) for run in mine if run.size > _ASTRAY * max(least, 1)]
    if not seeds:
        return []
    given = figures.settings["audit"]["batch_size"]
    k_coef = figures.settings["hyper"]["k_coef"]
    own = figures.settings["search"]["train"]["batch_size"]
    mend = f"`--batch_size=0` searches with {own} items a step; " if given and given < own else ""
    return [
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} went astray: more than {_ASTRAY} times "
        f"the {figures.unit} of the smallest. With k_coef={k_coef:.3g} the search is "
        f"at the edge of closing everything: {mend}a circuit found with a smaller k_coef is steadier."
    ]


def _details(figures: AuditFigures) -> list[str]:
    rows = [
        [kind, "frozen" if name == "frozen" else "own", losses.loss, losses.loss_uncalibrated]
        for kind, norms in figures.sufficiency.items()
        for name, losses in norms.items()
    ]
    templates = [[name, found.items, found.loss] for name, found in figures.templates.items()]
    effects = sorted(figures.effects.nodes.items(), key=lambda item: -item[1])
    parts = [
        "## Replacements",
        markdown_table(["closed nodes hold", "norms", "calibrated", "uncalibrated"], rows),
        "## Templates",
        markdown_table(["template", "test items", "loss"], templates),
        "## The nodes that do most",
        markdown_table(["node", "rise without it"], [list(item) for item in effects[:10]]),
    ]
    polish = figures.polish
    if polish:
        parts += [
            "## Polish",
            f"Nodes {polish.nodes_before} -> {polish.nodes_after}, edges "
            f"{polish.edges_before} -> {polish.edges_after}; test loss "
            f"{polish.loss_test_before:.3f} -> {polish.loss_test_after:.3f}."
            + ("" if polish.finished else _UNFINISHED),
        ]
    return parts
