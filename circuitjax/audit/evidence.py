"""The evidence for one circuit, on the test examples: sufficiency, necessity, faithfulness.

All losses in nats, under the circuit's own ablation:

    loss_unpruned          the whole model
    loss_empty, kl_empty   every gate closed (the loss calibrated on validation where circuits are)
    loss_circuit           only the circuit open, calibrated as stored (and uncalibrated)
    loss_without_circuit   every gate of the whole model open but the circuit's
    loss_without_random    the same for random sets with as many gates in every group of
                           `GatedModel.groups` (a site of a layer, a family of weights)
    kl_to_model            KL(model || circuit) over the whole vocabulary at the answer positions
    correlation            of the model's and the circuit's log odds of one completion over the other
    correlation_within     the same among first and among second prompts of pairs, averaged: what is
                           left once both do the task, which alone makes the first one large
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.measures import calibrated_odds, mean_task_loss
from circuitjax.gated.protocol import GatedModel, View
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.cut import calibrates
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, answers
from circuitjax.prune.prober import Prober
from circuitjax.prune.problem import Problem, batches_of

__all__ = [
    "Compared",
    "among_all",
    "baseline",
    "compare",
    "correlations",
    "evidence",
    "matched_random_gates",
]

_CONTROLS = 128  # test examples, at least, of the necessity test: a control costs a full forward


class Compared(NamedTuple):
    """What a model and a circuit of it answer to the test examples, K = 1 each, uncalibrated.

    The circuit's answers hold its KL to the model and whether their most probable tokens agree.
    """

    model: Answers
    circuit: Answers


def _calibrated(problem: Problem, search: Search) -> bool:
    return calibrates(problem, search.selection, search.choices.loss)


def baseline(problem: Problem, search: Search, whole: Answers | None = None) -> dict[str, float]:
    """Test loss and accuracy of the whole model; test loss and KL of the circuit that keeps nothing.

    Args:
      problem: the model and its examples.
      search: what kind of loss it is, and whether circuits are calibrated.
      whole: what the whole model answers to the test examples, where it is known.

    Examples:
      >>> cj.baseline(problem, search)["loss_unpruned"] < 0.05
      True
    """
    loss, size = search.choices.loss, problem.whole.num_gates
    whole = whole or _of_model(problem, search)
    closed = [np.zeros(size, bool)]
    empty = answers(problem.whole, problem.batches, problem.test, closed, full=True)
    loss_empty = float(empty.losses(loss)[0])
    if _calibrated(problem, search):
        # The first 0 gates of any order.
        nothing = Prober(problem, [np.arange(size)])
        fit = calibrate(nothing.answers(problem.validation, 0, [0]).odds)
        loss_empty = float(mean_task_loss(calibrated_odds(empty.odds, fit.scale, fit.shift))[0])
    return {
        "loss_unpruned": float(whole.losses(loss)[0]),
        "loss_empty": loss_empty,
        "kl_empty": float(empty.kl.mean()),
        "accuracy_unpruned": float(whole.accuracy()[0]),
    }


def _of_model(problem: Problem, search: Search) -> Answers:
    every = [np.ones(problem.whole.num_gates, bool)]
    full = search.choices.loss != "binary"
    return answers(problem.whole, problem.batches, problem.test, every, full=full)


def compare(problem: Problem, search: Search, circuit: Circuit) -> Compared:
    """Runs a circuit and its model side by side over the test examples."""
    view = circuit.view(problem.model)
    batches = batches_of(view.model)
    found = answers(view.model, batches, problem.test, [view.gates], full=True)
    return Compared(_of_model(problem, search), found)


def among_all(problem: Problem, circuit: Circuit) -> View:
    """A circuit's open gates among all gates of the whole model, q and k apart.

    Its own view may lack some: weights that read a node which was closed before any weight was.
    """
    whole: Any = problem.whole
    if whole.tied:
        whole = dataclasses.replace(whole, tied=False)
    if whole.units != "channel":
        whole = dataclasses.replace(whole, units="channel")
    own, gates = circuit.view(problem.model)
    if own.num_gates == whole.num_gates:
        return View(whole, gates)
    opened = {name for name, kept in zip(own.names(), gates, strict=True) if kept}
    return View(whole, np.array([name in opened for name in whole.names()]))


def matched_random_gates(
    model: GatedModel, gates: np.ndarray, count: int, seed: int
) -> list[np.ndarray]:
    """Random sets bool `[G]` with as many gates as a given one in every group that can matter."""
    rng, groups = np.random.default_rng(seed), model.groups()
    places = [np.flatnonzero(groups == number) for number in np.unique(groups[groups >= 0])]
    sets = []
    for _ in range(count):
        chosen = np.zeros(gates.size, bool)
        for group in places:
            size = int(gates[group].sum())
            chosen[group[rng.choice(len(group), size, replace=False)]] = True
        sets.append(chosen)
    return sets


def evidence(
    problem: Problem,
    search: Search,
    circuit: Circuit,
    seed: int = 0,
    compared: Compared | None = None,
) -> dict[str, Any]:
    """Sufficiency, necessity and faithfulness of a circuit, on the test examples.

    Args:
      problem: the model and the task's data; its constants replace what is removed for necessity.
      search: the kind of loss, whether circuits are calibrated, how many random controls.
      circuit: a circuit of that model.
      seed: of the random controls.
      compared: `compare` of both, where it is known.

    Returns:
      JSON-able figures; see the module docstring.

    Examples:
      >>> figures = cj.evidence(problem, search, circuit)
      >>> figures["loss_circuit"] < figures["loss_without_circuit"]
      True
    """
    compared = compared or compare(problem, search, circuit)
    found, loss = compared.circuit, search.choices.loss
    uncalibrated, odds, fitted = float(found.losses(loss)[0]), found.odds[0], None
    if _calibrated(problem, search):
        odds = calibrated_odds(odds, circuit.scale, circuit.shift)
        fitted = float(mean_task_loss(odds))
    view = among_all(problem, circuit)
    controls = search.selection.random_controls
    sets = [view.gates, *matched_random_gates(view.model, view.gates, controls, seed)]
    some = problem.test.first(max(2 * view.model.eval_items, _CONTROLS // problem.test.unit))
    removed = [~chosen for chosen in sets]
    without = answers(view.model, problem.batches, some, removed, full=loss != "binary").losses(
        loss
    )
    random = [float(value) for value in without[1:]]
    return {
        "loss_circuit": uncalibrated if fitted is None else fitted,
        "loss_circuit_uncalibrated": uncalibrated,
        "accuracy_circuit": float(np.mean(odds > 0)),
        "loss_without_circuit": float(without[0]),
        "loss_without_random": random,
        # Share of the random sets whose removal hurts less than the circuit's.
        "necessity_percentile": float(np.mean(np.array(random) < without[0])),
        **correlations(compared.model.odds[0], found.odds[0], paired=problem.paired),
        "kl_to_model": float(found.kl.mean()),
        "argmax_agreement": float(found.agree.mean()),
    }


def correlations(
    model: np.ndarray, circuit: np.ndarray, *, paired: bool
) -> dict[str, float | None]:
    """Pearson correlation of log odds `[M]` of model and circuit; None where either is constant.

    Returns:
      `correlation` over all prompts: of pairs, of the log odds of the first prompt's completion;
      `correlation_within` the mean of that among first and that among second prompts, None without
      pairs.
    """

    def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
        x, y = (np.asarray(v, np.float64).ravel() for v in (x, y))
        x, y = x - x.mean(), y - y.mean()
        size = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
        return float(np.sum(x * y)) / size if size > 1e-12 else None

    if not paired:
        return {"correlation": pearson(model, circuit), "correlation_within": None}
    model, circuit = (x.reshape(-1, 2) * np.array([1.0, -1.0]) for x in (model, circuit))
    known = [
        value
        for value in (pearson(model[:, side], circuit[:, side]) for side in (0, 1))
        if value is not None
    ]
    return {
        "correlation": pearson(model, circuit),
        "correlation_within": sum(known) / len(known) if known else None,
    }
