"""Polish: removes from a circuit what is not needed, greedily, while it still does the task.

Training and selection leave parts whose removal costs nothing, or helps. `thin.py` says in which order
they are tried; here is what they are tried on.

    estimated -> screened on a few validation items -> sieved on more -> decided on all -> told on test

Gao et al. 2025 removed such nodes by hand (section 2.2).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import jax
import numpy as np

from circuitjax.audit.measure import Measure, Variants, counts_nodes, measure_of, members, share_of
from circuitjax.audit.parts import Effects
from circuitjax.audit.record import PolishFigures
from circuitjax.audit.thin import MANY, ROUNDS, TRIES, Estimate, Losses, thin
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.examples import Examples
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers
from circuitjax.prune.problem import Problem

__all__ = ["PolishAt", "polish"]

PolishAt = Literal["target", "own"]

_SCREENED = 64  # validation items that parts are sorted on; see `share_of`
_SIEVED = 256  # validation items on which most of what misses the target is seen to
_REMEMBERED = 32  # variants whose answers to these are kept
_FRESH = 256  # training items of an estimate
_ROUNDING = 1e-7  # nats by which the same circuit's loss may differ between two programs


def polish(
    problem: Problem,
    search: Search,
    circuit: Circuit,
    *,
    at: PolishAt = "target",
    tries: int = TRIES,
    rounds: int = ROUNDS,
    alone: Effects | None = None,
) -> Circuit:
    """Removes what a circuit of any grain does not need.

    A node circuit loses nodes, one of residual edges loses edges; one of weights loses nodes and then
    single weights. What is left is cleaned up and calibrated anew, where the search calibrates.

    Args:
      problem: model and data. Its constants are not used; the circuit's are.
      search: what the circuit was cut to.
      circuit: of that model.
      at: what the loss on validation may rise to: the search's target, or the circuit's own loss, so
        that what goes costs nothing; a circuit above the target is left as it is in either case. A
        circuit that was cut to a number of parts has only its own loss.
      tries, rounds: see `thin`.
      alone: effects of the circuit's parts, where they are known: they say which to try first, unless
        there are so many that slopes do (`thin.MANY`).

    Returns:
      The smaller circuit. `provenance["polish"]` is a `record.PolishFigures`; if the given circuit
      misses the target on validation, nothing is removed.

    Raises:
      ValueError: an empty circuit, a loss over the whole vocabulary, or an unknown `at`.
    """
    if circuit.num_nodes == 0:
        raise ValueError("the circuit keeps no node: there is nothing to polish")
    if search.choices.loss != "binary":
        raise ValueError("polish needs loss='binary'")
    if at not in get_args(PolishAt):
        raise ValueError(f"at is {at!r}; choose from {', '.join(get_args(PolishAt))}")
    model, measure = problem.model, measure_of(problem, search, circuit)
    before = Variants(problem, circuit.view(model), measure.kind)
    told = [before.asked(examples) for examples in (problem.validation, problem.test)]
    was = [before.answers(asked, before.gates[None]) for asked in told]
    target, held = measure.target, float(measure.losses(was[0])[0])
    if at == "own" or not search.selection.is_loss:
        target = min(target, held + _ROUNDING)
    smaller, finished = circuit, True
    for kind in circuit.parts(model):
        if kind == "edges" and counts_nodes(circuit):
            continue  # of a node circuit they are the model's
        variants = Variants(problem, smaller.parts(model)[kind], measure.kind)
        trial = _Trial(problem, measure, variants)
        kept, done = thin(
            variants.gates,
            target=target,
            tries=tries,
            rounds=rounds,
            guess=None if alone is None else _guess(variants, alone, kind),
            estimate=trial.estimate if variants.gates.sum() > MANY else None,
            **trial.losses(),
        )
        finished &= done
        part = variants.model.clean(kept)
        smaller = smaller.changed(model, _within(smaller.opened, part.opened), held=part.held)
    after = Variants(problem, smaller.view(model), measure.kind)
    now = [after.answers(asked, after.gates[None]) for asked in told]
    fitted = measure.fit(now[0])
    old, new = members(circuit), members(smaller)
    facts = PolishFigures(
        nodes_before=circuit.num_nodes,
        nodes_after=smaller.num_nodes,
        edges_before=circuit.num_edges,
        edges_after=smaller.num_edges,
        size_before=len(old),
        size_after=len(new),
        loss_validation_before=held,
        loss_validation_after=float(fitted.loss[0]),
        loss_test_before=float(measure.losses(was[1], measure.stored(circuit))[0]),
        loss_test_after=float(measure.losses(now[1], fitted)[0]),
        target=target,
        reached=held <= target,
        finished=finished,
        removed=sorted(old - new),
        loss_test_interval=measure.interval(now[1], problem.test.unit, fitted)[0],
    )
    return dataclasses.replace(
        smaller,
        scale=float(fitted.scale[0]),
        shift=float(fitted.shift[0]),
        provenance={**circuit.provenance, "polish": dataclasses.asdict(facts)},
    )


def _within(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What is open both before and after; a part that is not named after stays as it is."""
    both = {n: jax.tree.map(np.logical_and, before[n], after[n]) for n in after if n in before}
    return {**before, **both}


def _guess(variants: Variants, alone: Effects, kind: str) -> np.ndarray:
    """`[G]`: the loss with each open gate closed, as far as effects say."""
    known = alone.by_name(kind)
    rises = [known.get(name, 0.0) for name in variants.model.names()]
    return np.where(variants.gates, alone.loss + np.array(rises), 0.0)


class _Trial:
    """Losses of a circuit's variants on validation items, and slopes on training items."""

    def __init__(self, problem: Problem, measure: Measure, variants: Variants) -> None:
        """Divides the validation items."""
        self._measure, self._variants = measure, variants
        whole, batches = problem.validation, variants.batches
        order = batches.order(whole)
        count = share_of(variants.model, _SCREENED)
        self._few_examples = whole.take(order[:count])
        self._few = variants.asked(self._few_examples)
        self._part = variants.asked(whole.take(order[:_SIEVED]))
        rest = order[_SIEVED:]
        self._rest = variants.asked(whole.take(rest)) if len(rest) else None
        self._fresh = _fresh(problem, batches.order(problem.train))

    def losses(self) -> dict[str, Losses]:
        """On few, on a part, and on all validation items; the part's are worked out once for both."""
        measure, answers = self._measure, self._variants.answers
        known: dict[bytes, Answers] = {}

        def of_part(rows: np.ndarray) -> Answers:
            key = rows.tobytes()
            if key not in known:
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[key] = answers(self._part, rows)
            return known[key]

        def of_all(rows: np.ndarray) -> np.ndarray:
            found = of_part(rows)
            if self._rest is not None:
                both = zip(found, answers(self._rest, rows), strict=True)
                found = Answers(*(np.concatenate(part, axis=1) for part in both))
            return measure.losses(found)

        return {
            "screen": lambda rows: measure.losses(answers(self._few, rows)),
            "sieve": lambda rows: measure.losses(of_part(rows)),
            "decide": of_all,
        }

    def estimate(self, row: np.ndarray) -> Estimate:
        """What closing each gate of those left, bool `[G]`, would add, by its slopes."""
        slopes = self._variants.slopes
        return Estimate(*(slopes(e, row) for e in (next(self._fresh), self._few_examples)))


def _fresh(problem: Problem, order: np.ndarray) -> Iterator[Examples]:
    """Training items in turn, other ones every time as long as there are any."""
    count = min(_FRESH, len(order) // 2 * 2 or 1)
    for turn in itertools.count():
        yield problem.train.take(order[(turn * count + np.arange(count)) % len(order)])
