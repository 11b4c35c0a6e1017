"""The verdict: named checks, each a figure beside its threshold. There is no total score.

    loose = min(2 * target, halfway from the target to chance)      nats

is what "still does the task" means under conditions the circuit was not chosen for: k was, at the
target, so that under any others its loss is above it. A figure that could not be taken says why instead.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Check", "full_checks", "loose_loss", "short_checks"]

_CHANCE = math.log(2)
_REMOVED = 0.1  # share of the nodes that polish may remove
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


def loose_loss(target: float) -> float:
    """See the module docstring; nats."""
    return min(2 * target, (target + _CHANCE) / 2) if target < _CHANCE else target


def short_checks(figures: Mapping[str, Any], target: float | None) -> list[Check]:
    """What a pruning report can say by itself.

    Args:
      figures: of `evidence` (or `edge_evidence`) and `baseline`.
      target: task loss asked for, nats; None where the circuit was cut to something else.
    """
    checks = []
    if target is not None:
        checks.append(Check("sufficiency", "test loss", figures["loss_circuit"], _SLACK * target))
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
    if "correlation_within" in figures:
        checks.append(
            Check(
                "faithfulness",
                "correlation of logit differences within a side",
                figures["correlation_within"],
                0.5,
                at_most=False,
                unit="r",
                note="" if figures["correlation_within"] is not None else "one of them is constant",
            )
        )
    return checks


def full_checks(audit: Mapping[str, Any]) -> list[Check]:
    """The whole verdict of `audit.audit_circuit`'s figures."""
    target = audit["target_loss"]
    loose = loose_loss(target)
    checks = short_checks({**audit["baseline"], **audit["evidence"]}, target)
    skipped: Mapping[str, str] = audit["skipped"]

    def add(group: str, name: str, figure: float | None, threshold: float, **more: Any) -> None:
        checks.append(Check(group, name, figure, threshold, **more))

    add(
        "sufficiency",
        "test loss without calibration",
        audit["evidence"]["loss_circuit_uncalibrated"],
        _CHANCE,
        note="chance is ln 2: above it the answer needs its scale or its shift to be one",
    )
    for kind, norms in audit["sufficiency"].items():
        for name, losses in norms.items():
            frozen = ", norms frozen" if name == "frozen" else ""
            add("sufficiency", f"{kind} replacement{frozen}", losses["loss"], loose)
    templates = audit["templates"]
    if templates:
        worst = max(templates, key=lambda name: templates[name]["loss"])
        add(
            "sufficiency",
            "loss on its worst template",
            templates[worst]["loss"],
            loose,
            note=worst,
        )
    by_world = {run["world"]: run for run in audit["runs"]}
    add(
        "sufficiency",
        "templates held out from a search of its own",
        by_world["templates"]["loss_test"] if "templates" in by_world else None,
        loose,
        note=skipped.get("templates", audit["worlds"].get("templates", "")),
    )
    _minimality(audit, add)
    inside = audit["agreement"]
    add(
        "faithfulness",
        "divergence of attention patterns",
        inside["divergence"],
        0.2,
        unit="total variation",
        note="" if inside["divergence"] is not None else "no head is kept",
    )
    known = [value for value in inside["unexplained"] if value is not None]
    add(
        "faithfulness",
        "variance unexplained in its worst layer",
        max(known, default=None),
        0.5,
        unit="share",
    )
    around = audit["supersets"]
    note = skipped.get("supersets", "")
    middle = around["random"][1:-1] if around else []
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
        around["adversarial"] if around else None,
        0.9 * _CHANCE,
        note=note or "chance is ln 2",
    )
    _controls(audit, add)
    return checks


def _minimality(audit: Mapping[str, Any], add: Any) -> None:
    skipped, effects, polish = audit["skipped"], audit["effects"], audit["polish"]
    for kind in ("nodes", "edges"):
        share = effects[f"idle_{kind}"]
        add(
            "minimality",
            f"{kind} whose removal costs under 1% of the target",
            share,
            0.1,
            unit="share",
            note="" if share is not None else "there is none",
        )
    note = skipped.get("polish", "")
    removed = held = None
    if polish:
        removed = 1 - polish["nodes_after"] / polish["nodes_before"]
        held = polish["loss_test_after"] - max(polish["loss_test_before"], polish["target_loss"])
        if not polish["reached"]:
            note = "the circuit misses the target on validation: nothing was removed"
        elif not polish["finished"]:
            note = f"polish was cut short: at least {100 * removed:.0f}%, and there was more to try"
            removed = removed if removed > _REMOVED else None
    add("minimality", "nodes that polish removes", removed, _REMOVED, unit="share", note=note)
    add(
        "minimality",
        "test loss after polish, above target and circuit",
        held,
        (_SLACK - 1) * audit["target_loss"],
        note=note,
    )


def _controls(audit: Mapping[str, Any], add: Any) -> None:
    skipped, own = audit["skipped"], audit["own_nodes"]
    by_world = {run["world"]: run for run in audit["runs"]}
    for name, title in (
        ("nonsense", "nonsense task"),
        ("shuffled", "shuffled labels"),
        ("weights", "random weights"),
    ):
        run, ratio = by_world.get(name), None
        note = skipped.get(name, audit["worlds"].get(name, ""))
        if run is not None:
            # A control that is never solved would need more than all there is.
            nodes = run["nodes"] if run["reached"] else audit["nodes_total"]
            ratio = nodes / max(own, 1)
            note = f"{run['nodes']} nodes" if run["reached"] else "never solved"
        add("controls", f"size of {title}, of the task's", ratio, 2.0,
            at_most=False, unit="times", note=note)  # fmt: skip
    stable = audit["stability"]
    note = skipped.get("stability", "")
    seeds = [run["reached"] for run in audit["runs"] if run["world"] == "task"]
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
        "Jaccard of node sets between seeds",
        stable["jaccard"] if stable else None,
        0.5,
        at_most=False,
        unit="share",
        note=note,
    )
    add(
        "stability",
        "loss of the core alone",
        stable["core_loss"] if stable else None,
        loose_loss(audit["target_loss"]),
        note=note or f"{stable['core']} nodes in all of {len(stable['seeds'])} seeds",
    )
