"""Polish: removes from a circuit what is not needed, greedily, while it still does the task.

Training and selection leave nodes whose removal costs nothing, or helps. One round closes the cheapest
parts by themselves (of many, first-order estimates say which) and sorts them by what that costs; the
longest run of cheapest ones that can go together goes; when not even one can, the next few are tried
alone, one after another, and when none of these can go either, the costs of many are asked anew, twice
at most.

    estimated -> screened on a few validation pairs -> decided on all of them -> reported on test pairs

The paper removed such nodes by hand (Gao et al. 2025, section 2.2).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from circuitjax.audit.evidence import gated_problem
from circuitjax.audit.parts import Effects, Parts
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.cleanup import cleanup
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.model.sites import unflatten
from circuitjax.prune.calibrate import Calibration, calibrate
from circuitjax.prune.evaluate import mean_binary_loss
from circuitjax.prune.objective import Pairs, calibrated_differences
from circuitjax.prune.problem import Problem
from circuitjax.prune.residual import active_edges
from circuitjax.prune.residual_paths import connected
from circuitjax.prune.residual_problem import EdgeProblem
from circuitjax.prune.residual_select import EdgeAnswers, edge_answers

__all__ = ["PolishAt", "polish", "polish_edges", "thin"]

PolishAt = Literal["target", "own"]
Losses = Callable[[np.ndarray], np.ndarray]

_TRIES = 8  # cheapest parts tried alone before it ends
_SCREENED = 64  # validation pairs, or examples, that parts are sorted on
_HOPELESS = 2.0  # times the target: a part whose closing costs so much is not tried again
_STRIDE = 1 / 4  # of the room left to the target: what gates that go together may take
_NEARLY = 1.2  # times the target: what is foreseen to cost more is not decided on
_ANEW = 16  # gates that a round screens again
_MOST = 256  # gates that a round screens again when all else has failed
_LOOKS = 2  # such rounds
_ROUNDS = 64  # in all: what a large circuit loses later is little
_CHUNK = 64  # variants made at a time: rows of all gates are long


def thin(
    opened: np.ndarray,
    screen: Losses,
    decide: Losses,
    target: float,
    *,
    tries: int = _TRIES,
    guess: np.ndarray | None = None,
) -> np.ndarray:
    """Closes open gates while the loss stays at or below a target.

    Args:
      opened: bool `[U]`, gates to start from; those closed stay closed.
      screen: bool `[K, U]` -> losses `[K]` in nats, cheap; it orders the gates.
      decide: the same, on all the data that count.
      target: nats.
      tries: how many of the cheapest gates are tried alone before giving up.
      guess: `[U]`, what each gate would cost; without it all are screened to begin with.

    Returns:
      bool `[U]`, a subset of `opened`: at `decide` it meets the target, unless `opened` did not, which
      is then returned as it is. It may have gates that could still be closed: `_ROUNDS` and `_LOOKS`
      bound the search, and what `screen` puts a fifth above the target is not tried.

    A gate whose closing costs more than twice the target on the few data, or misses it on all, is taken
    to be needed from then on: with others gone it is worth more, mostly.
    """
    now = np.array(opened, bool)
    held = float(decide(now[None])[0])
    if held > target:
        return now
    gap = held - float(screen(now[None])[0])
    worth, known, everything, spare = now.copy(), np.zeros(now.size, bool), False, _LOOKS
    cost = np.zeros(now.size) if guess is None else np.array(guess, float)

    def ask(places: np.ndarray) -> None:
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            cost[some] = screen(_without(now, [[place] for place in some]))
        known[places] = True

    if guess is None:
        ask(np.flatnonzero(now))
    for _ in range(_ROUNDS):
        # What a gate costs changes little as others close, so a round asks anew for the cheapest only.
        places = np.flatnonzero(worth)
        order = places[np.argsort(cost[places], kind="stable")]
        ask(order[: _MOST if everything else _ANEW])
        worth &= ~known | (cost <= _HOPELESS * target)
        order = np.flatnonzero(worth)
        order = order[np.argsort(cost[order], kind="stable")]
        gone, missed, held, gap = _cheapest(
            now, order, cost[order], (held, gap), screen, decide, target, tries
        )
        worth[missed] = False
        if not len(gone) and (everything or not spare):
            break
        now[gone] = worth[gone] = False
        everything = not len(gone)
        spare -= everything
    return now


def _cheapest(
    now: np.ndarray,
    order: np.ndarray,
    cost: np.ndarray,
    at: tuple[float, float],
    screen: Losses,
    decide: Losses,
    target: float,
    tries: int,
) -> tuple[np.ndarray, list[int], float, float]:
    """Gates that can go together, or one that can go, maybe none; and those that cannot go alone.

    Together goes the longest run from the cheapest on that takes but a part of the room left to the
    target: in small steps, what is removed early is worth little.
    `at` is the loss on all the data at `now`, and how much more that is than the few say; both are
    returned as they are after what goes.
    """
    held, gap = at

    def foreseen(counts: np.ndarray) -> int:
        """The largest count whose closing the few data allow; 0 where there is none."""
        if not len(counts):
            return 0
        losses = screen(_without(now, [order[:count] for count in counts]))
        return int(np.max(np.where(losses + gap <= held + _STRIDE * (target - held), counts, 0)))

    count, missed = foreseen(2 ** np.arange(len(order).bit_length())), list[int]()
    together = [order[: count >> halved] for halved in range(count.bit_length() - 1)]
    singly = order[:tries][cost[:tries] + gap <= _NEARLY * target]
    for gone in (*together, *(singly[i : i + 1] for i in range(len(singly)))):
        closed = _without(now, [gone])
        loss = float(decide(closed)[0])
        if loss <= target:
            return gone, missed, loss, loss - float(screen(closed)[0])
        missed += gone.tolist() if len(gone) == 1 else []
    return order[:0], missed, held, gap


def _without(now: np.ndarray, closings: list) -> np.ndarray:
    """bool `[K, U]`: `now` with each set of gates closed."""
    rows = np.broadcast_to(now, (len(closings), now.size)).copy()
    for row, places in zip(rows, closings, strict=True):
        row[places] = False
    return rows


def polish(
    problem: Problem,
    circuit: Circuit,
    *,
    at: PolishAt = "target",
    tries: int = _TRIES,
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
      tries: see `thin`.
      alone: effects of the circuit's nodes and edges, where they are known: they say which to try first.

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
    parts, target = Parts(gated_problem(problem, circuit), circuit), problem.prune.target_loss
    calibrates = problem.prune.calibrate != "off"
    whole = problem.validation
    few = whole.take(np.arange(min(_SCREENED, whole.size)))

    def fit(found: np.ndarray) -> Calibration:
        if calibrates:
            return calibrate(found)
        ones = np.ones(found.shape[:-2])
        return Calibration(ones, np.zeros_like(ones), mean_binary_loss(found))

    def of_nodes(pairs: Pairs, rows: np.ndarray) -> np.ndarray:
        return np.asarray(fit(parts.differences(pairs, rows)).loss)

    if at == "own":
        target = min(target, float(of_nodes(whole, parts.mask[None])[0]))
    scale, shift = (circuit.scale, circuit.shift) if calibrates else (1.0, 0.0)
    of_node = of_edge = None
    if alone is not None:
        of_node, of_edge = np.zeros(parts.mask.size), np.zeros(parts.edges.size)
        of_node[parts.mask] = [alone.loss + rise for rise in alone.nodes.values()]
        if circuit.weights is not None:
            of_edge[parts.edges] = [alone.loss + rise for rise in alone.edges.values()]
    elif max(parts.mask.sum(), parts.edges.sum() if circuit.weights is not None else 0) > _MOST:
        now = float(of_nodes(few, parts.mask[None])[0])
        of_node, of_edge = (now + rises for rises in parts.slopes(few, scale, shift))
    nodes = thin(
        parts.mask,
        lambda r: of_nodes(few, r),
        lambda r: of_nodes(whole, r),
        target,
        tries=tries,
        guess=of_node,
    )
    edges, weights = parts.edges, circuit.weights
    if weights is not None:
        between = parts.between(nodes)

        def of_edges(pairs: Pairs, rows: np.ndarray) -> np.ndarray:
            same = np.broadcast_to(nodes, (len(rows), nodes.size))
            return np.asarray(fit(parts.differences(pairs, same, rows | ~between)).loss)

        kept = thin(
            between,
            lambda r: of_edges(few, r),
            lambda r: of_edges(whole, r),
            target,
            tries=tries,
            guess=of_edge,
        )
        edges = kept | (edges & ~between)
        weights = {name: w & weights[name] for name, w in parts.open_weights(edges).items()}
    smaller = dataclasses.replace(circuit, mask=unflatten(circuit.config, nodes), weights=weights)
    gated = gated_problem(problem, smaller)
    params = jax.tree.map(np.asarray, dict(gated.params))
    mask, fills, report = cleanup(gated.config, params, smaller.mask, dict(circuit.fills))
    smaller = dataclasses.replace(smaller, mask=mask, fills=fills)

    # Clean-up changes no answer, so the parts of the given circuit answer for the smaller one too.
    both = np.stack([parts.mask, nodes]), np.stack([parts.edges, edges])
    validated, tested = (parts.differences(pairs, *both) for pairs in (whole, problem.test))
    fitted = fit(validated)
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

    few = problem.validation.take(np.arange(min(_SCREENED, problem.validation.size)))
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
