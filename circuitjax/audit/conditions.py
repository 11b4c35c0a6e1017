"""What a circuit does under every condition, with its own calibration: the figures of `holds`.

A condition fills or opens what is closed in its own way (`gated/conditions.py`); the circuit's gates,
its calibration and the constants that clean-up folded into it stay. The adversary is searched on other
examples than it is measured on.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from circuitjax.audit.measure import share_of
from circuitjax.audit.replacement import constants_of, with_folded
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.conditions import condition_named
from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.measures import calibrated_odds, mean_task_loss
from circuitjax.gated.replacement import Reference, is_per_prompt
from circuitjax.prune.adversary import attack, starts
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Asked, answered, references
from circuitjax.prune.problem import Problem, batches_of

__all__ = ["UnderFigures", "figures_under", "under_conditions"]

_BESIDES = ("resample", "supersets")
_FEW = 128  # test items that these are measured on
_SEARCHED = 32  # items that the adversary sees
_STEPS, _STARTS = 20, 5


@dataclasses.dataclass(frozen=True)
class UnderFigures:
    """One condition: task loss (nats) and accuracy by the stored calibration, KL (nats), items."""

    loss: float
    accuracy: float
    kl: float
    items: int


class _Folded:
    """Examples asked under a condition, with the circuit's own folded constants in what is held."""

    def __init__(self, asked: Asked, circuit: Any, whole: Any) -> None:
        self.places, self.apart, self._asked = asked.places, asked.apart, asked
        self._own, self._before = circuit, whole

    def __iter__(self) -> Iterator[tuple[Batch, Reference]]:
        for batch, reference in self._asked:
            held = reference.held
            if held is not None:
                held = with_folded(held, self._own, self._before)
            yield batch, reference._replace(held=held)


def under_conditions(
    problem: Problem,
    search: Search,
    circuit: Circuit,
    names: Sequence[str],
    examples: Examples,
    *,
    seed: int = 0,
) -> dict[str, UnderFigures]:
    """Losses of a circuit under conditions, by its stored calibration.

    Args:
      problem: its model and task.
      search: for the constants of other ablations.
      circuit: of that model.
      names: of conditions that its grain and task can have; under `templates` those examples count whose
        templates training never saw.
      examples: M to measure on.
      seed: of the adversary's starts; its examples are the first of validation.

    Returns:
      {condition: figures}; losses in nats.
    """
    found = {}
    view = circuit.view(problem.model)
    plain: Any = view.model
    for name in names:
        condition = condition_named(name)
        fills = condition.ablation or circuit.ablation
        model = plain
        if fills != circuit.ablation:
            held = None
            if not is_per_prompt(fills):
                held = constants_of(problem, search, fills, plain.held)
            model = dataclasses.replace(plain, ablation=fills, held=held)
        rows = batches_of(model)
        rows = dataclasses.replace(rows, packs=rows.packs and not condition.frozen)
        left = None
        if condition.leaves == "worst":
            (pair,) = references(
                model,
                [rows.whole(problem.validation.first(_SEARCHED))],
                full=False,
                condition=name,
            )
            kind = "calibrated" if problem.paired else "task"
            begin = starts(model.num_gates, _STARTS, seed)
            left = attack(model, view.gates, *pair, begin, kind=kind, steps=_STEPS).left
        asked = Asked(model, rows, examples, full=True, condition=name)
        asked = asked if left is None else asked.leaving(left)
        own = _Folded(asked, plain.held, problem.whole.held)
        answers = answered(model, own, [view.gates])  # type: ignore[arg-type]
        odds = answers.odds[0]
        if problem.paired:
            odds = calibrated_odds(odds, circuit.scale, circuit.shift)
        counts = examples.apart if condition.apart else np.ones(examples.size, bool)
        found[name] = UnderFigures(
            loss=float(mean_task_loss(odds[counts])),
            accuracy=float(np.mean(odds[counts] > 0)),
            kl=float(answers.kl[0, counts].mean()),
            items=int(counts.sum()) // examples.unit,
        )
    return found


def figures_under(problem: Problem, search: Search, circuit: Circuit) -> dict[str, UnderFigures]:
    """What a run says of its circuit: on the test items, under each condition that it was cut under.

    Resampling and supersets are asked besides, on the first test items: under a mean alone a circuit
    may be something that the model does not do.
    """
    held = [under.name for under in problem.conditions]
    besides = [name for name in _BESIDES if name not in held]
    found = under_conditions(problem, search, circuit, held, problem.test)
    few = problem.batches.some(problem.test, share_of(problem.whole, _FEW))
    return found | under_conditions(problem, search, circuit, besides, few)
