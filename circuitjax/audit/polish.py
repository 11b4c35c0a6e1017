"""Polish: removes from a circuit what is not needed, greedily, while it still does the task.

Training and selection leave nodes whose removal costs nothing, or helps. `thin.py` says in which order
they are tried; here is what they are tried on.

    estimated -> screened on a few validation pairs -> sieved on more -> decided on all -> told on test

The paper removed such nodes by hand (Gao et al. 2025, section 2.2).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import jax
import numpy as np

from circuitjax.audit.evidence import gated_problem
from circuitjax.audit.parts import Effects, Parts
from circuitjax.audit.thin import MANY, ROUNDS, TRIES, Estimate, Losses, thin
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.cleanup import cleanup
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.model.sites import unflatten
from circuitjax.prune.calibrate import Calibration, calibrate
from circuitjax.prune.evaluate import mean_binary_loss
from circuitjax.prune.objective import Pairs, calibrated_differences
from circuitjax.prune.packing import by_row
from circuitjax.prune.problem import Problem
from circuitjax.prune.residual import active_edges
from circuitjax.prune.residual_paths import connected
from circuitjax.prune.residual_problem import EdgeProblem
from circuitjax.prune.residual_select import EdgeAnswers, edge_answers

__all__ = ["PolishAt", "polish", "polish_edges"]

PolishAt = Literal["target", "own"]

_SCREENED = 64  # validation pairs, or examples, that parts are sorted on
_SIEVED = 256  # validation pairs on which most of what misses the target is seen to
_REMEMBERED = 32  # variants whose answers to these are kept
_FRESH = 256  # training pairs of an estimate


def polish(
    problem: Problem,
    circuit: Circuit,
    *,
    at: PolishAt = "target",
    tries: int = TRIES,
    rounds: int = ROUNDS,
    alone: Effects | None = None,
) -> Circuit:
    """Removes what a circuit of nodes or of weights does not need.

    A node circuit loses nodes; one of weights loses nodes and then single weights. What is left is
    cleaned up (`circuit.cleanup`) and calibrated anew, where the problem's settings calibrate.

    Args:
      problem: model, data, target. Its replacement values are not used; the circuit's are.
      circuit: of that model.
      at: what the loss on validation pairs may rise to: the problem's target, or the circuit's own loss,
        so that what goes costs nothing; a circuit above the target is left as it is in either case.
      tries, rounds: see `thin`.
      alone: effects of the circuit's nodes and edges, where they are known: they say which to try first,
        unless there are so many that slopes do (`thin.MANY`).

    Returns:
      The smaller circuit. `provenance["polish"]` holds nodes, edges, validation and test loss before and
      after, whether the search ended before the rounds did, and whether the target is met on validation:
      if the given circuit misses it, nothing is removed.

    Raises:
      ValueError: an empty circuit, a loss over the whole vocabulary, or an unknown `at`.
    """
    if circuit.num_nodes == 0:
        raise ValueError("the circuit keeps no node: there is nothing to polish")
    if problem.prune.loss != "binary":
        raise ValueError("polish needs loss='binary'")
    if at not in get_args(PolishAt):
        raise ValueError(f"at is {at!r}; choose from {', '.join(get_args(PolishAt))}")
    parts, target = Parts(gated_problem(problem, circuit), circuit), problem.prune.target_loss
    calibrates = problem.prune.calibrate != "off"
    measure = _Measure(problem, parts)
    by_nodes = measure.losses(parts.differences)
    if at == "own":
        target = min(target, float(by_nodes["decide"](parts.mask[None])[0]))
    scale, shift = (circuit.scale, circuit.shift) if calibrates else (1.0, 0.0)
    of_node = of_edge = None
    if alone is not None:
        of_node, of_edge = np.zeros(parts.mask.size), np.zeros(parts.edges.size)
        of_node[parts.mask] = [alone.loss + rise for rise in alone.nodes.values()]
        if circuit.weights is not None:
            of_edge[parts.edges] = [alone.loss + rise for rise in alone.edges.values()]
    nodes, finished = thin(
        parts.mask,
        target=target,
        tries=tries,
        rounds=rounds,
        guess=of_node,
        estimate=(lambda row: measure.estimate(row)[0]) if parts.mask.sum() > MANY else None,
        **by_nodes,
    )
    edges, weights = parts.edges, circuit.weights
    if weights is not None:
        between = parts.between(nodes)

        def of_edges(pairs: Pairs, rows: np.ndarray) -> np.ndarray:
            same = np.broadcast_to(nodes, (len(rows), nodes.size))
            return parts.differences(pairs, same, rows | ~between)

        by_edges = measure.losses(of_edges)
        kept, edges_finished = thin(
            between,
            target=target,
            tries=tries,
            rounds=rounds,
            guess=of_edge,
            estimate=(lambda row: measure.estimate(nodes, row | ~between)[1])
            if between.sum() > MANY
            else None,
            **by_edges,
        )
        finished &= edges_finished
        edges = kept | (edges & ~between)
        weights = {name: w & weights[name] for name, w in parts.open_weights(edges).items()}
    smaller = dataclasses.replace(circuit, mask=unflatten(circuit.config, nodes), weights=weights)
    gated = gated_problem(problem, smaller)
    params = jax.tree.map(np.asarray, dict(gated.params))
    mask, fills, report = cleanup(gated.config, params, smaller.mask, dict(circuit.fills))
    smaller = dataclasses.replace(smaller, mask=mask, fills=fills)

    # Clean-up changes no answer, so the parts of the given circuit answer for the smaller one too.
    both = np.stack([parts.mask, nodes]), np.stack([parts.edges, edges])
    validated, tested = (
        parts.differences(pairs, *both) for pairs in (problem.validation, problem.test)
    )
    fitted = measure.fit(validated)
    stored, (scale, shift) = (scale, shift), (float(fitted.scale[1]), float(fitted.shift[1]))
    before, after = (
        float(mean_binary_loss(calibrated_differences(found, *by)))
        for found, by in zip(tested, (stored, (scale, shift)), strict=True)
    )
    facts = {
        "nodes_before": circuit.num_nodes,
        "nodes_after": smaller.num_nodes,
        "edges_before": int(parts.edges.sum()),
        "edges_after": report.edges_after,
        "loss_validation_before": float(fitted.loss[0]),
        "loss_validation_after": float(fitted.loss[1]),
        "loss_test_before": before,
        "loss_test_after": after,
        "target_loss": target,
        "reached": bool(fitted.loss[0] <= target),
        "finished": finished,
        "removed": sorted(set(circuit.nodes) - set(smaller.nodes)),
    }
    return dataclasses.replace(
        smaller,
        scale=scale,
        shift=shift,
        provenance={**circuit.provenance, "polish": facts},
    )


class _Measure:
    """Losses of a circuit's variants on validation pairs, and slopes on training pairs."""

    def __init__(self, problem: Problem, parts: Parts) -> None:
        """Divides the validation pairs."""
        self._parts = parts
        self._calibrates = problem.prune.calibrate != "off"
        whole = problem.validation
        order = by_row(whole, problem.config.causal)
        self._few, self._part, self._rest = (
            whole.take(order[a:b]) for a, b in ((0, _SCREENED), (0, _SIEVED), (_SIEVED, whole.size))
        )
        self._fresh = _fresh(problem)

    def fit(self, found: np.ndarray) -> Calibration:
        """Of differences `[K, M, 2]`: their calibrations, or none where the settings want none."""
        if self._calibrates:
            return calibrate(found)
        ones = np.ones(found.shape[:-2])
        return Calibration(ones, np.zeros_like(ones), mean_binary_loss(found))

    def losses(self, differences: Callable[[Pairs, np.ndarray], np.ndarray]) -> dict[str, Losses]:
        """On few, on a part, and on all validation pairs; the part's are worked out once for both."""
        known: dict[bytes, np.ndarray] = {}

        def of_part(rows: np.ndarray) -> np.ndarray:
            key = rows.tobytes()
            if key not in known:
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[key] = differences(self._part, rows)
            return known[key]

        def of_all(rows: np.ndarray) -> np.ndarray:
            found = of_part(rows)
            if self._rest.size:
                found = np.concatenate([found, differences(self._rest, rows)], axis=1)
            return np.asarray(self.fit(found).loss)

        return {
            "screen": lambda rows: np.asarray(self.fit(differences(self._few, rows)).loss),
            "sieve": lambda rows: np.asarray(self.fit(of_part(rows)).loss),
            "decide": of_all,
        }

    def estimate(self, *variant: np.ndarray) -> tuple[Estimate, Estimate]:
        """What closing each node, and each edge, of a variant would add, by its slopes.

        Args:
          variant: nodes bool `[N]` that are left, and maybe edges bool `[E]`.
        """
        found = []
        for pairs in (next(self._fresh), self._few):
            fitted = self.fit(self._parts.differences(pairs, *(row[None] for row in variant)))
            by = float(fitted.scale[0]), float(fitted.shift[0])
            found.append(self._parts.slopes(pairs, *by, *variant))
        of_nodes, of_edges = (Estimate(*both) for both in zip(*found, strict=True))
        return of_nodes, of_edges


def _fresh(problem: Problem) -> Iterator[Pairs]:
    """Training pairs in turn, other ones every time as long as there are any."""
    order = by_row(problem.train, problem.config.causal)
    count = min(_FRESH, len(order) // 2 * 2 or 1)
    for turn in itertools.count():
        yield problem.train.take(order[(turn * count + np.arange(count)) % len(order)])


def polish_edges(
    problem: EdgeProblem, circuit: EdgeCircuit, *, tries: int = TRIES, rounds: int = ROUNDS
) -> EdgeCircuit:
    """Removes what a circuit of residual edges does not need; see `polish`.

    Raises:
      ValueError: an empty circuit, or one that was cut to a number of edges and so has no target.
    """
    settings = problem.settings
    if circuit.num_edges == 0:
        raise ValueError("the circuit keeps no edge: there is nothing to polish")
    if settings.target not in ("loss", "kl"):
        raise ValueError("a circuit cut to a number of edges has no target loss to polish at")
    idle = ~active_edges(problem.config, settings.ablation)

    def answered(rows: np.ndarray, examples: Any) -> EdgeAnswers:
        kept = [connected(problem.config, row & ~idle, settings.ablation) for row in rows]
        return edge_answers(problem, examples, np.array(kept) | idle)

    def losses(found: EdgeAnswers) -> np.ndarray:
        if settings.target == "kl":
            return found.kl.mean(axis=1)
        if problem.calibrated:
            return np.asarray(calibrate(found.pair_differences()).loss)
        return found.task_losses()

    few = problem.validation.take(np.arange(min(_SCREENED, problem.validation.size)))
    kept, finished = thin(
        circuit.kept,
        lambda rows: losses(answered(rows, few)),
        lambda rows: losses(answered(rows, problem.validation)),
        settings.target_value,
        tries=tries,
        rounds=rounds,
    )
    kept = connected(problem.config, kept & ~idle, settings.ablation)
    both = np.stack([circuit.kept, kept])
    validated, tested = (answered(both, e) for e in (problem.validation, problem.test))
    scale, shift = circuit.scale, circuit.shift
    if problem.calibrated:
        fitted = calibrate(validated.pair_differences()[1:])
        scale, shift = float(fitted.scale[0]), float(fitted.shift[0])
        before, after = (
            float(mean_binary_loss(calibrated_differences(found, *by)))
            for found, by in zip(
                tested.pair_differences(),
                ((circuit.scale, circuit.shift), (scale, shift)),
                strict=True,
            )
        )
    else:
        before, after = (float(value) for value in losses(tested))
    validation = losses(validated)
    facts = {
        "edges_before": circuit.num_edges,
        "edges_after": int(kept.sum()),
        "loss_validation_before": float(validation[0]),
        "loss_validation_after": float(validation[1]),
        "loss_test_before": before,
        "loss_test_after": after,
        "target_loss": settings.target_value,
        "reached": bool(validation[0] <= settings.target_value),
        "finished": finished,
    }
    return dataclasses.replace(
        circuit,
        kept=kept,
        scale=scale,
        shift=shift,
        provenance={**circuit.provenance, "polish": facts},
    )
