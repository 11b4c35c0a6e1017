"""The verdict: named checks, each a figure beside its threshold. There is no total score.

    loose = min(2 * target, halfway from the target to chance)      nats

is what "still does the task" means under conditions the circuit was not chosen for: its size was chosen
at the target, so that under any others its loss is above it. Target and chance are of the loss that the
circuit was cut to: the task loss, or the KL to the model. A figure that could not be taken says why.
"""

import math
from collections.abc import Mapping
from typing import Any

from circuitjax.audit.check import LEVEL, Check, checked, ends_of
from circuitjax.audit.record import AuditFigures, Hypothesis, Interval, PolishFigures

__all__ = ["Check", "full_checks", "loose_loss", "short_checks"]

NECESSITY = "p of the circuit among random sets of its shape"
EQUIVALENCE = "p of the circuit against the model, item by item"
INDEPENDENCE = "p of the model's outcome against what is left without the circuit"
RIGHT_OF_SAMPLE = "answered right on a sample of the whole split"
_CHANCE = math.log(2)  # of the task loss of pairs
_REMOVED = 0.1  # share of the circuit that polish may remove
_SLACK = (
    1.25  # times the target: what a test set differs from the validation set that k was chosen on
)


def loose_loss(target: float, chance: float = _CHANCE) -> float:
    """See the module docstring; nats."""
    return min(2 * target, (target + chance) / 2) if target < chance else target


def short_checks(
    figures: Mapping[str, Any], target: float | None, kind: str = "loss", *, paired: bool = True
) -> list[Check]:
    """What a pruning report can say by itself.

    Args:
      figures: of `evidence` and `baseline`.
      target: nats asked for; None where the circuit was cut to something else.
      kind: what the target is of: `loss` or `kl`.
      paired: whether the task's prompts come in pairs.
    """
    checks, known = [], figures.get("intervals", {})

    def ends(name: str) -> dict[str, Any]:
        return ends_of(known.get(name))

    if target is not None:
        name, figure = ("test KL", "kl_to_model") if kind == "kl" else ("test loss", "loss_circuit")
        checks.append(Check("sufficiency", name, figures[figure], _SLACK * target, **ends(figure)))
    checks += [
        checked("necessity", NECESSITY, figures.get("necessity")),
        Check(
            "faithfulness",
            "KL(model || circuit)",
            figures["kl_to_model"],
            0.5,
            **ends("kl_to_model"),
        ),
        Check(
            "faithfulness",
            "agreement of the most probable token",
            figures["argmax_agreement"],
            0.9,
            at_most=False,
            unit="share",
            **ends("argmax_agreement"),
        ),
        Check(
            "faithfulness",
            "loss of the model minus that of the circuit",
            figures["loss_unpruned"] - figures["loss_circuit"],
            0.0,
            note="above 0 the circuit does the task better than the model it was cut from",
        ),
    ]
    # Without pairs there are no two sides that alone would make the correlation large.
    value = figures["correlation_within" if paired else "correlation"]
    checks.append(
        Check(
            "faithfulness",
            f"correlation of logit differences{' within a side' if paired else ''}",
            value,
            0.5,
            at_most=False,
            unit="r",
            note="" if value is not None else "one of them is constant",
        )
    )
    return checks


def full_checks(audit: AuditFigures) -> list[Check]:
    """The whole verdict of an audit's figures."""
    target, skipped = audit.target, audit.skipped
    loose = loose_loss(target, audit.chance)
    kind = "kl" if audit.measure == "kl" else "loss"
    figures = {**vars(audit.baseline), **vars(audit.evidence)}
    tests = {test.name: test for test in audit.tests}
    figures["necessity"] = tests.get("necessity", audit.evidence.necessity)
    checks = short_checks(figures, target, kind, paired=audit.paired)

    def add(
        group: str,
        name: str,
        figure: float | None,
        threshold: float,
        interval: Interval | None = None,
        **more: Any,
    ) -> None:
        checks.append(Check(group, name, figure, threshold, **ends_of(interval), **more))

    confidence = audit.settings.get("audit", {}).get("confidence")
    if confidence is not None:
        add(
            "sufficiency",
            f"test {'KL' if kind == 'kl' else 'loss'} at most, with confidence {confidence:g}",
            audit.bound,
            target,
        )
    calibrated = audit.measure == "calibrated"
    add(
        "sufficiency",
        "test loss without calibration",
        audit.evidence.loss_circuit_uncalibrated if calibrated else None,
        _CHANCE,
        audit.evidence.intervals.get("loss_circuit_uncalibrated") if calibrated else None,
        note="chance is ln 2: above it, it leans to one answer before its calibration"
        if calibrated
        else "the circuit has no calibration",
    )
    for name, norms in audit.sufficiency.items():
        for which, losses in norms.items():
            frozen = ", norms frozen" if which == "frozen" else ""
            add("sufficiency", f"{name} replacement{frozen}", losses.loss, loose, losses.interval)
    for name in ("mean replacement", "interchange replacement", "frozen norms"):
        if name in skipped:
            add("sufficiency", name, None, loose, note=skipped[name])
    templates = audit.templates
    worst = max(templates, key=lambda name: templates[name].loss, default=None)
    loss_of_task = kind == "loss"
    add(
        "sufficiency",
        "loss on its worst template",
        templates[worst].loss if worst is not None and loss_of_task else None,
        loose,
        templates[worst].interval if worst is not None and loss_of_task else None,
        note=skipped.get("loss by template", "the circuit was cut to a KL, not to a loss")
        if worst is None or not loss_of_task
        else worst,
    )
    by_world = {run.world: run for run in audit.runs}
    add(
        "sufficiency",
        "templates held out from a search of its own",
        by_world["templates"].loss_test if "templates" in by_world else None,
        loose,
        by_world["templates"].interval if "templates" in by_world else None,
        note=skipped.get("templates", audit.worlds.get("templates", "")),
    )
    checks += _comparisons(audit, tests)
    _minimality(audit, add)
    inside = audit.agreement
    note = skipped.get("agreement", "")
    add(
        "faithfulness",
        "divergence of attention patterns",
        inside.divergence if inside else None,
        0.2,
        unit="total variation",
        note=note or ("" if inside and inside.divergence is not None else "no head is kept"),
    )
    known = [value for value in inside.unexplained if value is not None] if inside else []
    add(
        "faithfulness",
        "variance unexplained in its worst layer",
        max(known, default=None),
        0.5,
        unit="share",
        note=note,
    )
    around = audit.supersets
    note = skipped.get("supersets", "")
    means = [sum(losses) / len(losses) for losses in (around.random[1:-1] if around else [])]
    place = max(range(len(means)), key=means.__getitem__, default=None)
    known_ends = around.random_intervals if around else None
    add(
        "robustness",
        "random supersets, worst mean over fractions",
        None if place is None else means[place],
        loose,
        None if place is None or known_ends is None else known_ends[place + 1],
        note=note,
    )
    add(
        "robustness",
        "adversarial superset",
        around.adversarial if around else None,
        0.9 * audit.chance,
        around.adversarial_interval if around else None,
        note=note or f"chance is {'ln 2' if audit.chance == _CHANCE else f'{audit.chance:.3g}'}",
    )
    _controls(audit, add)
    return checks


def _comparisons(audit: AuditFigures, tests: Mapping[str, Hypothesis]) -> list[Check]:
    """The tests besides necessity, and the run over the whole split."""
    skipped, found = audit.skipped, audit.minimality
    checks = [
        checked("faithfulness", title, tests.get(name), at_most=False)
        if name in tests
        else Check("faithfulness", title, None, LEVEL, at_most=False, unit="p",
                   note=skipped.get(name, "not tested"))
        for name, title in (("equivalence", EQUIVALENCE), ("independence", INDEPENDENCE))
    ]  # fmt: skip
    sampled = found is not None and found.tested < found.parts
    note = skipped.get("minimality", "not tested")
    if found is not None:
        of = f"{found.tested} of {found.parts} parts" if sampled else f"all {found.parts} parts"
        note = f"{of}, against one random part of each of {found.inflated} inflated circuits"
    checks.append(
        Check(
            "minimality",
            "parts that do no more than random parts",
            None if found is None else 1 - found.needed,
            _REMOVED,
            unit="share",
            note=note,
            low=None if found is None or found.high is None else 1 - found.high,
            high=None if found is None or found.low is None else 1 - found.low,
        )
    )
    whole = audit.exhaustive
    if whole is not None:
        checks.append(
            Check(
                "sufficiency",
                "answered right on the whole split" if whole.exact else RIGHT_OF_SAMPLE,
                whole.items_right,
                0.95,
                at_most=False,
                unit="share",
                note=f"{whole.prompts} prompts, {whole.how}",
                **({} if whole.exact else {"low": whole.low, "high": whole.high}),
            )
        )
    return checks


def _minimality(audit: AuditFigures, add: Any) -> None:
    effects, polish = audit.effects, audit.polish
    for kind, share in (("nodes", effects.idle_nodes), ("edges", effects.idle_edges)):
        add(
            "minimality",
            f"{kind} whose removal costs under 1% of the target",
            share,
            0.1,
            unit="share",
            note="" if share is not None else "there is none",
        )
    note = audit.skipped.get("polish", "")
    removed = held = None
    if polish:
        removed = 1 - polish.size_after / polish.size_before
        held = polish.loss_test_after - max(polish.loss_test_before, polish.target)
        if not polish.reached:
            note = "the circuit misses the target on validation: nothing was removed"
        elif not polish.finished:
            note = f"polish was cut short: at least {100 * removed:.0f}%, and there was more to try"
            removed = removed if removed > _REMOVED else None
    add(
        "minimality",
        f"{audit.unit} that polish removes",
        removed,
        _REMOVED,
        unit="share",
        note=note,
    )
    add(
        "minimality",
        "test loss after polish, above target and circuit",
        held,
        (_SLACK - 1) * audit.target,
        _shifted(polish, held),
        note=note,
    )


def _shifted(polish: PolishFigures | None, held: float | None) -> Interval | None:
    """The interval of the loss after polish, above what `held` is above."""
    if polish is None or held is None or polish.loss_test_interval is None:
        return None
    low, high = polish.loss_test_interval
    return low - polish.loss_test_after + held, high - polish.loss_test_after + held


def _controls(audit: AuditFigures, add: Any) -> None:
    skipped, own = audit.skipped, audit.own_size
    by_world = {run.world: run for run in audit.runs}
    for name, title in (
        ("nonsense", "nonsense task"),
        ("shuffled", "shuffled labels"),
        ("weights", "random weights"),
    ):
        run, ratio = by_world.get(name), None
        note = skipped.get(name, audit.worlds.get(name, ""))
        if run is not None:
            # A control that is never solved would need more than all there is.
            ratio = (run.size if run.reached else audit.size_total) / max(own, 1)
            note = f"{run.size} {audit.unit}" if run.reached else "never solved"
        add("controls", f"size of {title}, of the task's", ratio, 2.0,
            at_most=False, unit="times", note=note)  # fmt: skip
    stable = audit.stability
    note = skipped.get("stability", "")
    seeds = [run.reached for run in audit.runs if run.world == "task"]
    add(
        "stability",
        "seeds that reach the target",
        sum(seeds) / len(seeds) if seeds else None,
        0.8,
        at_most=False,
        unit="share",
        note=note,
    )
    add(
        "stability",
        f"Jaccard of {audit.unit[:-1]} sets between seeds",
        stable.jaccard if stable else None,
        0.5,
        at_most=False,
        unit="share",
        note=note,
    )
    add(
        "stability",
        "loss of the core alone",
        stable.core_loss if stable else None,
        loose_loss(audit.target, audit.chance),
        stable.core_interval if stable else None,
        note=note
        or (f"{stable.core} {audit.unit} in all of {len(stable.seeds)} seeds" if stable else ""),
    )
