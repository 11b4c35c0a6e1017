"""The evidence for one circuit, on the test examples: sufficiency, necessity, faithfulness.

All losses in nats, under the circuit's own ablation:

    loss_unpruned          the whole model
    loss_empty, kl_empty   every gate closed (the loss calibrated on validation where circuits are)
    loss_circuit           only the circuit open, calibrated as stored (and uncalibrated)
    loss_without_circuit   every gate of the whole model open but the circuit's
    loss_without_random    the same for random sets with as many gates in every group of
                           `GatedModel.groups` (a site of a layer, a family of weights)
    necessity              a test whether the circuit is such a random set: see `necessity`
    intervals              of all of these, over the test items
    kl_to_model            KL(model || circuit) over the whole vocabulary at the answer positions
    correlation            of the model's and the circuit's log odds of one completion over the other
    correlation_within     the same among first and among second prompts of pairs, averaged: what is
                           left once both do the task, which alone makes the first one large
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from circuitjax.audit.measure import intervals, item_losses, per_item, share_of
from circuitjax.audit.record import Hypothesis, Interval
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.statistics import sequential_p
from circuitjax.gated.measures import calibrated_odds, mean_task_loss
from circuitjax.gated.protocol import GatedModel, View
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, Asked, answered, answers
from circuitjax.prune.figures import calibrates
from circuitjax.prune.prober import Prober
from circuitjax.prune.problem import Problem, batches_of

__all__ = [
    "EXCEEDANCES",
    "RANDOM_SETS",
    "Compared",
    "among_all",
    "baseline",
    "compare",
    "correlations",
    "evidence",
    "matched_random_gates",
    "necessity",
    "random_sets",
]

RANDOM_SETS = 200  # of the test of necessity in a run; an audit takes more
EXCEEDANCES = 20  # random sets that hurt as much, after which there is nothing more to learn
# Test examples, at least, of the listed controls: each costs a full forward. Fewer of large networks.
_CONTROLS = 128
_ITEMS = 8  # test items on which the sets of the test of necessity are compared


class Compared(NamedTuple):
    """What a model and a circuit of it answer to the test examples, K = 1 each, uncalibrated.

    The circuit's answers hold its KL to the model and whether their most probable tokens agree.
    """

    model: Answers
    circuit: Answers


def _calibrated(problem: Problem, search: Search) -> bool:
    return calibrates(problem, search.selection, search.choices.loss)


def baseline(problem: Problem, search: Search, whole: Answers | None = None) -> dict[str, Any]:
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
    whole = whole or _of_model(problem)
    closed = [np.zeros(size, bool)]
    empty = answers(problem.whole, problem.batches, problem.test, closed, full=True)
    loss_empty, odds = float(empty.losses(loss)[0]), None
    if _calibrated(problem, search):
        # The first 0 gates of any order.
        nothing = Prober(problem, [np.arange(size)])
        fit = calibrate(nothing.answers(problem.validation, 0, [0]).odds)
        odds = calibrated_odds(empty.odds, fit.scale, fit.shift)
        loss_empty = float(mean_task_loss(odds)[0])
    unit = problem.test.unit
    return {
        "loss_unpruned": float(whole.losses(loss)[0]),
        "loss_empty": loss_empty,
        "kl_empty": float(empty.kl.mean()),
        "accuracy_unpruned": float(whole.accuracy()[0]),
        "intervals": _intervals(
            unit,
            loss_unpruned=_losses(whole, loss),
            loss_empty=_losses(empty, loss) if odds is None else _task_losses(odds),
            kl_empty=empty.kl,
            accuracy_unpruned=whole.odds > 0,
        ),
    }


def _task_losses(odds: np.ndarray) -> np.ndarray:
    return item_losses(odds, 1)


def _losses(found: Answers, kind: str) -> np.ndarray:
    """Losses `[1, M]` of the examples; see `Answers.losses`."""
    return _task_losses(found.odds) if kind == "binary" else found.vocabulary


def _intervals(unit: int, **values: np.ndarray) -> dict[str, Interval]:
    """Of the mean over items of each figure's values `[1, M]`."""
    items = np.concatenate([per_item(one, unit) for one in values.values()])
    found = zip(values, intervals(items), strict=True)
    return {name: interval for name, interval in found if interval is not None}


def _of_model(problem: Problem) -> Answers:
    """What the whole model answers; in full, as all that is asked of whole models here: one program."""
    every = [np.ones(problem.whole.num_gates, bool)]
    return answers(problem.whole, problem.batches, problem.test, every, full=True)


def compare(problem: Problem, circuit: Circuit) -> Compared:
    """Runs a circuit and its model side by side over the test examples."""
    view = circuit.view(problem.model)
    batches = batches_of(view.model)
    found = answers(view.model, batches, problem.test, [view.gates], full=True)
    return Compared(_of_model(problem), found)


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
    return list(itertools.islice(random_sets(model, gates, seed), count))


def random_sets(model: GatedModel, gates: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """The same without end, each drawn when it is asked for."""
    rng, groups = np.random.default_rng(seed), model.groups()
    places = [np.flatnonzero(groups == number) for number in np.unique(groups[groups >= 0])]
    while True:
        chosen = np.zeros(gates.size, bool)
        for group in places:
            size = int(gates[group].sum())
            chosen[group[rng.choice(len(group), size, replace=False)]] = True
        yield chosen


def evidence(
    problem: Problem,
    search: Search,
    circuit: Circuit,
    seed: int = 0,
    compared: Compared | None = None,
    *,
    sets: int = RANDOM_SETS,
) -> dict[str, Any]:
    """Sufficiency, necessity and faithfulness of a circuit, on the test examples.

    Args:
      problem: the model and the task's data; its constants replace what is removed for necessity.
      search: the kind of loss, whether circuits are calibrated, how many random controls.
      circuit: a circuit of that model.
      seed: of the random controls.
      compared: `compare` of both, where it is known.
      sets: random sets of the test of necessity, at most.

    Returns:
      Figures as in `record.Evidence`; see the module docstring.

    Examples:
      >>> figures = cj.evidence(problem, search, circuit)
      >>> figures["loss_circuit"] < figures["loss_without_circuit"]
      True
    """
    compared = compared or compare(problem, circuit)
    found, loss = compared.circuit, search.choices.loss
    uncalibrated, odds, fitted = float(found.losses(loss)[0]), found.odds[0], None
    if _calibrated(problem, search):
        odds = calibrated_odds(odds, circuit.scale, circuit.shift)
        fitted = float(mean_task_loss(odds))
    view = among_all(problem, circuit)
    controls, unit = search.selection.random_controls, problem.test.unit
    drawn = [view.gates, *matched_random_gates(view.model, view.gates, controls, seed)]
    least = min(_CONTROLS // unit, 8 * view.model.eval_items)
    some = problem.test.first(max(2 * view.model.eval_items, least))
    removed = [~chosen for chosen in drawn]
    closed = answers(view.model, problem.batches, some, removed, full=True)
    without = closed.losses(loss)
    random = [float(value) for value in without[1:]]
    test = necessity(problem, view, loss, most=sets, seed=seed)
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
        "intervals": _intervals(
            unit,
            loss_circuit=_losses(found, loss) if fitted is None else _task_losses(odds[None]),
            loss_circuit_uncalibrated=_losses(found, loss),
            accuracy_circuit=odds[None] > 0,
            kl_to_model=found.kl,
            argmax_agreement=found.agree,
        )
        | _intervals(unit, loss_without_circuit=_losses(closed, loss)[:1]),
        "necessity": test,
    }


def necessity(
    problem: Problem,
    view: View,
    loss: str = "binary",
    *,
    most: int = RANDOM_SETS,
    exceedances: int = EXCEEDANCES,
    batch: int = 32,
    seed: int = 0,
) -> Hypothesis:
    """Tests whether a circuit is any other set of its shape: does its removal hurt as a random set's?

    Sets are drawn until so many hurt as much or the most are drawn; see `statistics.sequential_p`. How
    much each hurts is measured on the same few test items, since the draws are the sets.

    Args:
      problem: the model and the task's data.
      view: the circuit among all gates of the whole model; see `among_all`.
      loss: kind of the task loss.
      most: sets at most.
      exceedances: sets that hurt as much, after which drawing stops.
      batch: sets that are run together; no result depends on it.
      seed: of the sets.
    """
    examples = problem.batches.some(problem.test, share_of(view.model, _ITEMS))
    asked = Asked(view.model, problem.batches, examples, full=loss != "binary")

    def removed(sets: list[np.ndarray]) -> np.ndarray:
        return answered(view.model, asked, [~chosen for chosen in sets]).losses(loss)

    drawn = itertools.islice(random_sets(view.model, view.gates, seed), most)

    def losses() -> Iterator[np.ndarray]:
        while sets := list(itertools.islice(drawn, batch)):
            yield removed(sets)

    without = float(removed([view.gates])[0])
    found = sequential_p(losses(), without, exceedances=exceedances, most=most)
    return Hypothesis(
        name="necessity",
        null="the circuit is a random set with as many gates in every site of every layer",
        statistic=without,
        p=found.p,
        low=found.low,
        high=found.high,
        draws=found.draws,
        exceeded=found.exceeded,
        note=f"{found.exceeded} of {found.draws} random sets hurt as much by leaving the model",
    )


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
