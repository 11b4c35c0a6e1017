"""Polish: removes from a circuit what is not needed, greedily, while it still does the task.

Training and selection leave nodes whose removal costs nothing, or helps. One round closes every part by
itself and sorts them by what that costs; the longest run of cheapest ones that can go together goes;
when not even one can, the next few are tried alone, and when none of these can go either, it ends.

    screened on a few validation pairs    ->    decided on all of them    ->    reported on test pairs

The paper removed such nodes by hand (Gao et al. 2025, section 2.2).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.evidence import gated_problem
from circuitjax.audit.parts import Parts
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.cleanup import cleanup
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.circuit.graph import count_edges
from circuitjax.model.sites import unflatten
from circuitjax.prune.calibrate import Calibration, calibrate
from circuitjax.prune.evaluate import mean_binary_loss
from circuitjax.prune.masks import first_pairs
from circuitjax.prune.objective import calibrated_differences
from circuitjax.prune.problem import Problem
from circuitjax.prune.residual import active_edges
from circuitjax.prune.residual_paths import connected
from circuitjax.prune.residual_problem import EdgeProblem
from circuitjax.prune.residual_select import EdgeAnswers, edge_answers

__all__ = ["polish", "polish_edges", "thin"]

Losses = Callable[[np.ndarray], np.ndarray]

_TRIES = 8  # cheapest parts tried alone before it ends
_CHUNK = 64  # variants made at a time: rows of all gates are long


def thin(
    opened: np.ndarray,
    screen: Losses,
    decide: Losses,
    target: float,
    *,
    tries: int = _TRIES,
) -> np.ndarray:
    """Closes open gates while the loss stays at or below a target.

    Args:
      opened: bool `[U]`, gates to start from; those closed stay closed.
      screen: bool `[K, U]` -> losses `[K]` in nats, cheap; it orders the gates.
      decide: the same, on all the data that count.
      target: nats.
      tries: how many of the cheapest gates are tried alone before giving up.

    Returns:
      bool `[U]`, a subset of `opened`: at `decide` it meets the target, unless `opened` did not, which
      is then returned as it is. No single one of its `tries` cheapest gates can be closed.
    """
    now = np.array(opened, bool)
    if float(decide(now[None])[0]) > target:
        return now
    while now.any():
        places = np.flatnonzero(now)
        costs = []
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            costs.append(screen(_without(now, [[place] for place in some])))
        order = places[np.argsort(np.concatenate(costs), kind="stable")]
        sizes = [2**power for power in range(len(order).bit_length()) if 2**power <= len(order)]
        losses = screen(_without(now, [order[:size] for size in sizes]))
        # Screened on few pairs, a run may still miss the target on all of them: then half of it.
        hopeful = [size for size, loss in zip(sizes, losses, strict=True) if loss <= target]
        count = max(hopeful, default=1)
        while count and float(decide(_without(now, [order[:count]]))[0]) > target:
            count //= 2
        if count:
            now[order[:count]] = False
            continue
        alone = _without(now, [[place] for place in order[1:tries]])
        if not len(alone):
            break
        losses = decide(alone)
        best = int(np.argmin(losses))
        if losses[best] > target:
            break
        now = alone[best]
    return now


def _without(now: np.ndarray, closings: list) -> np.ndarray:
    """bool `[K, U]`: `now` with each set of gates closed."""
    rows = np.broadcast_to(now, (len(closings), now.size)).copy()
    for row, places in zip(rows, closings, strict=True):
        row[places] = False
    return rows


def polish(problem: Problem, circuit: Circuit, *, tries: int = _TRIES) -> Circuit:
    """Removes what a circuit of nodes or of weights does not need.

    A node circuit loses nodes; one of weights loses nodes and then single weights. What is left is
    cleaned up (`circuit.cleanup`) and calibrated anew, where the problem's settings calibrate.

    Args:
      problem: model, data, target. Its replacement values are not used; the circuit's are.
      circuit: of that model.
      tries: see `thin`.

    Returns:
      The smaller circuit. `provenance["polish"]` holds nodes, edges, validation and test loss before and
      after, and whether the target is met on validation: if the given circuit misses it, nothing is
      removed.

    Raises:
      ValueError: an empty circuit, or a loss over the whole vocabulary.
    """
    if circuit.num_nodes == 0:
        raise ValueError("the circuit keeps no node: there is nothing to polish")
    if problem.prune.loss != "binary":
        raise ValueError("polish needs loss='binary'")
    gated = gated_problem(problem, circuit)
    parts, target = Parts(gated, circuit), problem.prune.target_loss
    calibrates = problem.prune.calibrate != "off"
    whole, few = problem.validation, first_pairs(problem.validation)

    def fit(found: jax.Array) -> Calibration:
        if calibrates:
            return calibrate(found)
        ones = jnp.ones(found.shape[:-2])
        return Calibration(ones, jnp.zeros_like(ones), mean_binary_loss(found))

    def losses_of(pairs: Any, kind: str) -> Losses:
        def losses(rows: np.ndarray) -> np.ndarray:
            return np.asarray(fit(parts.differences(pairs, **{kind: rows})).loss)

        return losses

    nodes = thin(
        parts.mask, losses_of(few, "nodes"), losses_of(whole, "nodes"), target, tries=tries
    )
    weights = circuit.weights
    if weights is not None:
        circuit_of_nodes = dataclasses.replace(circuit, mask=unflatten(circuit.config, nodes))
        parts = Parts(gated, circuit_of_nodes)
        edges = thin(
            parts.edges, losses_of(few, "edges"), losses_of(whole, "edges"), target, tries=tries
        )
        weights = {name: w & weights[name] for name, w in parts.open_weights(edges).items()}
        gated = gated_problem(problem, dataclasses.replace(circuit_of_nodes, weights=weights))
    params = jax.tree.map(np.asarray, dict(gated.params))
    mask, fills, _ = cleanup(
        gated.config, params, unflatten(circuit.config, nodes), dict(circuit.fills)
    )
    smaller = dataclasses.replace(circuit, mask=mask, fills=fills, weights=weights)
    parts = Parts(gated, smaller)
    fitted = fit(parts.differences(whole))
    scale, shift = float(fitted.scale[0]), float(fitted.shift[0])

    def test_loss(of: Parts, scale: float, shift: float) -> float:
        found = of.differences(problem.test)
        return float(mean_binary_loss(calibrated_differences(found, scale, shift))[0])

    before = Parts(gated_problem(problem, circuit), circuit)
    stored = (circuit.scale, circuit.shift) if calibrates else (1.0, 0.0)
    validation = float(fit(before.differences(whole)).loss[0])
    facts = {
        "nodes_before": circuit.num_nodes,
        "nodes_after": smaller.num_nodes,
        "edges_before": int(before.edges.sum()),
        "edges_after": count_edges(gated.config, params, mask),
        "loss_validation_before": validation,
        "loss_validation_after": float(fitted.loss[0]),
        "loss_test_before": test_loss(before, *stored),
        "loss_test_after": test_loss(parts, scale, shift),
        "target_loss": target,
        "reached": validation <= target,
        "removed": sorted(set(circuit.nodes) - set(smaller.nodes)),
    }
    return dataclasses.replace(
        smaller,
        scale=scale,
        shift=shift,
        provenance={**circuit.provenance, "polish": facts},
    )


def polish_edges(problem: EdgeProblem, circuit: EdgeCircuit, *, tries: int = _TRIES) -> EdgeCircuit:
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

    few = problem.validation.take(np.arange(min(64, problem.validation.size)))
    kept = thin(
        circuit.kept,
        lambda rows: losses(answered(rows, few)),
        lambda rows: losses(answered(rows, problem.validation)),
        settings.target_value,
        tries=tries,
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
    }
    return dataclasses.replace(
        circuit,
        kept=kept,
        scale=scale,
        shift=shift,
        provenance={**circuit.provenance, "polish": facts},
    )
