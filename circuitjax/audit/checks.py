"""The verdict: named checks, each a figure beside its threshold. There is no total score.

    loose = min(2 * target, halfway from the target to chance)      nats

is what "still does the task" means under conditions the circuit was not chosen for: its size was chosen
at the target, so that under any others its loss is above it. Target and chance are of the loss that the
circuit was cut to: the task loss, or the KL to the model. A figure that could not be taken says why.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from circuitjax.audit.record import AuditFigures

__all__ = ["Check", "full_checks", "loose_loss", "short_checks"]

_CHANCE = math.log(2)  # of the task loss of pairs
_REMOVED = 0.1  # share of the circuit that polish may remove
_SLACK = (
    1.25  # times the target: what a test set differs from the validation set that k was chosen on
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes:
      group: what it is evidence of.
      name: what is measured, unique.
      figure: the value; None where it could not be taken.
      threshold: what it is held to.
      at_most: whether the figure must not exceed the threshold, rather than reach it.
      unit: of both.
      note: why it is missing, or what to know of it.
    """

    group: str
    name: str
    figure: float | None
    threshold: float
    at_most: bool = True
    unit: str = "nats"
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether it holds; None where there is no figure."""
        if self.figure is None or math.isnan(self.figure):
            return None
        return self.figure <= self.threshold if self.at_most else self.figure >= self.threshold

    def to_dict(self) -> dict[str, Any]:
        """For the report; a figure that is not finite becomes null."""
        fields = dataclasses.asdict(self)
        if self.figure is not None and not math.isfinite(self.figure):
            fields["figure"] = None
        return {**fields, "passed": self.passed}


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
    checks = []
    if target is not None:
        name, figure = ("test KL", "kl_to_model") if kind == "kl" else ("test loss", "loss_circuit")
        checks.append(Check("sufficiency", name, figures[figure], _SLACK * target))
    checks += [
        Check(
            "necessity",
            "percentile among matched random sets",
            figures["necessity_percentile"],
            0.95,
            at_most=False,
            unit="share",
        ),
        Check("faithfulness", "KL(model || circuit)", figures["kl_to_model"], 0.5),
        Check(
            "faithfulness",
            "agreement of the most probable token",
            figures["argmax_agreement"],
            0.9,
            at_most=False,
            unit="share",
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
    figures = {**dataclasses.asdict(audit.baseline), **dataclasses.asdict(audit.evidence)}
    checks = short_checks(figures, target, kind, paired=audit.paired)

    def add(group: str, name: str, figure: float | None, threshold: float, **more: Any) -> None:
        checks.append(Check(group, name, figure, threshold, **more))

    calibrated = audit.measure == "calibrated"
    add(
        "sufficiency",
        "test loss without calibration",
        audit.evidence.loss_circuit_uncalibrated if calibrated else None,
        _CHANCE,
        note="chance is ln 2: above it the answer needs its scale or its shift to be one"
        if calibrated
        else "the circuit has no calibration",
    )
    for name, norms in audit.sufficiency.items():
        for which, losses in norms.items():
            frozen = ", norms frozen" if which == "frozen" else ""
            add("sufficiency", f"{name} replacement{frozen}", losses.loss, loose)
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
        note=skipped.get("templates", audit.worlds.get("templates", "")),
    )
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
    middle = around.random[1:-1] if around else []
    add(
        "robustness",
        "random supersets, worst mean over fractions",
        max((sum(losses) / len(losses) for losses in middle), default=None),
        loose,
        note=note,
    )
    add(
        "robustness",
        "adversarial superset",
        around.adversarial if around else None,
        0.9 * audit.chance,
        note=note or f"chance is {'ln 2' if audit.chance == _CHANCE else f'{audit.chance:.3g}'}",
    )
    _controls(audit, add)
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
        note=note,
    )


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
        note=note
        or (f"{stable.core} {audit.unit} in all of {len(stable.seeds)} seeds" if stable else ""),
    )
