"""Does the circuit still do the task when other parts are left in? Random and adversarial supersets.

    kept = circuit + a part of the rest,     loss under the best calibration of each set

Every set is calibrated for itself (where circuits are), so what is measured is whether the answer is
still there, not whether its size is. The fraction of the rest runs from 0 (the circuit) to 1 (the
model). The adversarial part is that of `prune/adversary.py`, with more than training's budget: it starts
from the worst random set, from everything, and from random halves. The worst set on the search examples
is measured on others.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from circuitjax.audit.measure import Measure, intervals
from circuitjax.audit.record import Interval, SupersetFigures
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.examples import Examples
from circuitjax.prune.adversary import attack, starts
from circuitjax.prune.evaluate import Asked, answered, references
from circuitjax.prune.problem import Problem, batches_of

__all__ = ["FRACTIONS", "Supersets", "supersets"]

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
_STARTS = 5  # of the search


@dataclasses.dataclass(frozen=True, eq=False)
class Supersets:
    """Losses in nats on the test examples, each under its own best calibration where circuits have one.

    Attributes:
      fractions: of the rest that is left in, with 0 and 1.
      random: for each fraction the losses of its random sets.
      adversarial: of the worst superset known: searched or random.
      adversarial_fraction: share of the rest in it.
      adversarial_from: `search` or `random`.
      search: loss on the search examples by step, one list per start; the first is before any step.
      gates: bool `[G]`, that set.
      random_intervals: of the mean over the random sets of each fraction, over items.
      adversarial_interval: over items.
    """

    fractions: tuple[float, ...]
    random: tuple[tuple[float, ...], ...]
    adversarial: float
    adversarial_fraction: float
    adversarial_from: str
    search: tuple[tuple[float, ...], ...]
    gates: np.ndarray
    random_intervals: tuple[Interval | None, ...] = ()
    adversarial_interval: Interval | None = None

    def figures(self) -> SupersetFigures:
        """For the record; without the gates."""
        return SupersetFigures(
            fractions=list(self.fractions),
            random=[list(losses) for losses in self.random],
            adversarial=self.adversarial,
            adversarial_fraction=self.adversarial_fraction,
            adversarial_from=self.adversarial_from,
            search=[list(path) for path in self.search],
            random_intervals=list(self.random_intervals),
            adversarial_interval=self.adversarial_interval,
        )


def supersets(
    problem: Problem,
    measure: Measure,
    circuit: Circuit,
    test: Examples,
    search: Examples,
    *,
    fractions: Sequence[float] = FRACTIONS,
    sets: int = 4,
    steps: int = 20,
    seed: int = 0,
) -> Supersets:
    """Measures a circuit's supersets.

    Args:
      problem: the model; closed parts hold what the circuit's do.
      measure: the loss.
      circuit: of that model. Of weights, v channels that were closed before any weight was stay so.
      test: examples that every loss is reported on.
      search: examples of the adversarial search.
      fractions: of the rest left in, in (0, 1).
      sets: random supersets per fraction.
      steps: of the search, from each of five starts.
      seed: of the random sets.
    """
    rng, (model, kept) = np.random.default_rng(seed), circuit.view(problem.model)
    rest = np.flatnonzero(~kept & model.exists())
    rows, shares = [kept], [0.0]
    for fraction in fractions:
        for _ in range(sets):
            row = kept.copy()
            row[rng.choice(rest, round(fraction * len(rest)), replace=False)] = True
            rows.append(row)
            shares.append(fraction)
    every = kept.copy()
    every[rest] = True
    rows.append(every)
    shares.append(1.0)
    batches = batches_of(model)
    asked = Asked(model, batches, test, full=measure.full)
    given = answered(model, asked, rows)
    found, by_item = measure.losses(given), measure.item_losses(given, test.unit)
    worst = int(np.argmax(found))
    (pair,) = references(model, [batches.whole(search)], full=measure.full)
    begin = [rows[worst], *starts(len(kept), _STARTS - 1, seed)]
    attacked = attack(
        model, kept, *pair, begin, kind=measure.kind, steps=steps, among=every & ~kept
    )
    searched = kept | (attacked.left > 0)
    worst_found = answered(model, asked, [searched])
    loss = float(measure.losses(worst_found)[0])
    by_search = loss >= found[worst]
    final = searched if by_search else rows[worst]
    grid = (0.0, *fractions, 1.0)
    at = np.array(shares)
    final_items = measure.item_losses(worst_found, test.unit)[0] if by_search else by_item[worst]
    ends = intervals(np.stack([*(by_item[at == s].mean(axis=0) for s in grid), final_items]))
    return Supersets(
        fractions=grid,
        random=tuple(
            tuple(float(x) for x, s in zip(found, shares, strict=True) if s == share)
            for share in grid
        ),
        adversarial=max(loss, float(found[worst])),
        adversarial_fraction=float(np.mean(final[rest])) if len(rest) else 0.0,
        adversarial_from="search" if by_search else "random",
        search=tuple(tuple(float(x) for x in row) for row in attacked.paths),
        gates=final,
        random_intervals=tuple(ends[:-1]),
        adversarial_interval=ends[-1],
    )
