"""How often the audit's tests are wrong, measured on planted models and on networks of shuffled weights.

    error rate   share of trials in which a test rejects a null hypothesis that holds, at level 0.05
    power        share of trials in which it rejects one that does not

Nulls that hold by construction:

    necessity     the circuit is a random set of the true circuit's shape
    equivalence   for each item a coin says which of two answers is called the circuit's; a coin of
                  0.5, and one of 0.6, which is the edge of the tolerance
    independence  what the rest of the model does is told of other items than what the model does
    minimality    the tested part is one more random part of an inflated circuit
    bound         the items are drawn from losses whose mean is the target: those of the network, whole
                  and without random parts

Alternatives: the true circuit for necessity and minimality; for those that speak against a circuit, a
true circuit without one of its parts, and random other parts taken out instead of the circuit (the rest
then still does the task); for the bound a population whose mean is half the target. Of two situations
it is not known whether the null holds, since distractors write a little noise to where the answer is:
the true circuit beside its model, and what is left without it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from circuitjax.audit.check import LEVEL
from circuitjax.audit.evidence import matched_random_gates, necessity
from circuitjax.audit.hypotheses import TOLERANCE, equivalence, independence
from circuitjax.audit.measure import Variants, item_losses, share_of
from circuitjax.audit.minimality import INFLATED, inflated_sets, part_changes, random_changes
from circuitjax.audit.worlds import shuffle_weights
from circuitjax.benchmarks.recovery import planted_problem, planted_search
from circuitjax.core.statistics import clopper_pearson, mean_bound
from circuitjax.gated.protocol import View
from circuitjax.prune.evaluate import Asked, answers
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import activation_moments
from circuitjax.zoo.planted.draft import Planted

__all__ = ["Rate", "error_rates", "rates_table"]

_SETS = 199  # random sets of a test of necessity here
_ITEMS = 8  # of the changes that minimality compares
_SAMPLE = 128  # items of a bound
_MEAN_ITEMS = 256  # that a shuffled network's means are over


@dataclasses.dataclass(frozen=True)
class Rate:
    """How often a test rejected.

    Attributes:
      test: its name.
      situation: what was tested, in words.
      null: whether the null hypothesis holds there; None where that is not known.
      trials, rejected: counts.
    """

    test: str
    situation: str
    null: bool | None
    trials: int
    rejected: int

    @property
    def interval(self) -> tuple[float, float]:
        """Of the rate, at 95%."""
        return clopper_pearson(self.rejected, self.trials)


@dataclasses.dataclass(frozen=True, eq=False)
class _Network:
    """A network under gates, and what is called its circuit; `true` says whether it does the task."""

    problem: Problem
    view: View
    true: bool
    seed: int

    def odds(self, rows: Any, split: str = "test") -> np.ndarray:
        """Log odds `[K, M]` of sets of open gates."""
        problem = self.problem
        return answers(
            problem.whole, problem.batches, getattr(problem, split), np.asarray(rows)
        ).odds


def _networks(planted: Planted, seed: int) -> list[_Network]:
    """The planted model, and the same with its weights shuffled and its means taken anew."""
    search = planted_search("nodes", "mean")
    problem = planted_problem(planted, search)
    gates = np.isin(problem.whole.names(), planted.nodes)
    rng = np.random.default_rng([seed, 5])
    config = planted.model.config
    params = shuffle_weights(planted.model.params, rng)
    means, _ = activation_moments(config, params, problem.train.first(_MEAN_ITEMS))
    model = dataclasses.replace(planted.model, params=params, means=means)
    shuffled = planted_problem(dataclasses.replace(planted, model=model), search)
    return [
        _Network(problem, View(problem.whole, gates), True, seed),
        _Network(shuffled, View(shuffled.whole, gates), False, seed),
    ]


def error_rates(
    planted: Sequence[Planted],
    *,
    trials: int = 20,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Rate]:
    """Runs every test where its null holds and where it does not.

    Args:
      planted: models whose circuit is known; each is used as it is, and with shuffled weights.
      trials: of every null, per network.
      seed: of everything random.
      say: called with a line per network.

    Returns:
      A rate per test and situation, summed over the networks.
    """
    counts: dict[tuple[str, str, bool | None], list[bool]] = {}
    for number, one in enumerate(planted):
        for network in _networks(one, seed + number):
            say(f"{one.name}{'' if network.true else ', weights shuffled'}")
            for test in (_necessity, _equivalence, _independence, _minimality, _bound):
                for situation, null, rejected in test(network, trials):
                    key = (test.__name__.removeprefix("_"), situation, null)
                    counts.setdefault(key, []).append(rejected)
    return [Rate(*key, len(found), sum(found)) for key, found in counts.items()]


_Outcome = tuple[str, bool | None, bool]


def _necessity(network: _Network, trials: int) -> Iterator[_Outcome]:
    problem, (model, gates), seed = network.problem, network.view, network.seed
    for trial, chosen in enumerate(matched_random_gates(model, gates, trials, seed + 1)):
        view = View(model, chosen)
        found = necessity(problem, view, most=_SETS, seed=1000 * (seed + 1) + trial)
        yield "a random set of the circuit's shape", True, found.p <= LEVEL
    if network.true:
        found = necessity(problem, network.view, most=_SETS, seed=seed)
        yield "the true circuit", False, found.p <= LEVEL


def _equivalence(network: _Network, trials: int) -> Iterator[_Outcome]:
    gates, unit = network.view.gates, network.problem.test.unit
    rng = np.random.default_rng([network.seed, 1])
    model, circuit = network.odds([np.ones_like(gates), gates])
    losses = [item_losses(odds, unit) for odds in (model, circuit)]
    for share in (0.5, 0.5 + TOLERANCE):
        # Which of the two did better on an item is called the circuit, as a coin says.
        for _ in range(trials):
            coin = np.repeat(rng.random(len(losses[0])) < share, unit)
            better = np.repeat(losses[0] < losses[1], unit) == coin
            one, other = np.where(better, model, circuit), np.where(better, circuit, model)
            yield f"a coin of {share:g} per item", True, equivalence(other, one, unit).p <= LEVEL
    if network.true:
        yield "the true circuit", None, equivalence(model, circuit, unit).p <= LEVEL
        for part in np.flatnonzero(gates):
            row = gates.copy()
            row[part] = False
            (odds,) = network.odds([row])
            rejected = equivalence(model, odds, unit).p <= LEVEL
            yield "a true circuit without one of its parts", False, rejected


def _independence(network: _Network, trials: int) -> Iterator[_Outcome]:
    (whole, gates), unit = network.view, network.problem.test.unit
    model, rest = network.odds([np.ones_like(gates), ~gates])
    (other,) = network.odds([~gates], "validation")
    rng = np.random.default_rng([network.seed, 2])
    pairs = min(len(model), len(other)) // unit
    for trial in range(trials):
        order = np.repeat(rng.permutation(pairs) * unit, unit) + np.tile(np.arange(unit), pairs)
        mine = rng.permutation(pairs)[: pairs // 2]
        mine = np.repeat(mine * unit, unit) + np.tile(np.arange(unit), len(mine))
        far = order[: len(mine)]
        found = independence(model[mine], other[far], unit, permutations=_SETS, seed=trial)
        yield "the rest's answers to other items", True, found.p <= LEVEL
    if network.true:
        found = independence(model, rest, unit, permutations=_SETS)
        yield "the true circuit taken out", None, found.p <= LEVEL
        for chosen in matched_random_gates(whole, gates, 5, network.seed + 7):
            (odds,) = network.odds([~(chosen & ~gates)])
            found = independence(model, odds, unit, permutations=_SETS)
            yield "random other parts taken out", False, found.p <= LEVEL


def _minimality(network: _Network, trials: int) -> Iterator[_Outcome]:
    problem, (model, gates), seed = network.problem, network.view, network.seed
    few = problem.batches.some(problem.test, share_of(model, _ITEMS))
    asked = Asked(model, problem.batches, few)
    sets = list(itertools.islice(inflated_sets(model, gates, seed), INFLATED + trials))
    if len(sets) < INFLATED + trials:
        return
    changes = random_changes(model, asked, sets)
    random, tested = changes[:INFLATED], changes[INFLATED:]

    def rejects(change: float) -> bool:
        return bool((1 + np.sum(random >= change)) / (1 + len(random)) <= LEVEL)

    for change in tested:
        yield "a random part of an inflated circuit", True, rejects(change)
    if network.true:
        variants = Variants(problem, network.view, "task")
        for change in part_changes(variants, variants.asked(few), np.flatnonzero(gates)):
            yield "a part of the true circuit", False, rejects(change)


def _bound(network: _Network, trials: int) -> Iterator[_Outcome]:
    rng, gates = np.random.default_rng([network.seed, 3]), network.view.gates
    # The whole network, and two that lack a random half of what is not the circuit.
    sets = [np.ones_like(gates), *(gates | (rng.random((2, gates.size)) < 0.5))]
    for odds in network.odds(sets):
        losses = item_losses(odds, network.problem.test.unit)
        drawn = losses[rng.integers(len(losses), size=(trials, _SAMPLE))]
        bounds = mean_bound(drawn, 1 - LEVEL, seed=network.seed)
        spread = bool(np.ptp(losses) > 1e-9)
        for bound in bounds if spread else ():
            yield "a mean loss at the target", True, bool(bound < losses.mean())
            yield "a mean loss of half the target", False, bool(bound < 2 * losses.mean())


def rates_table(rates: Sequence[Rate]) -> list[list[Any]]:
    """Rows: test, situation, whether the null holds, trials, rejected, rate, its interval."""
    return [
        [
            rate.test,
            rate.situation,
            {True: "error", False: "power", None: "not known"}[rate.null],
            rate.trials,
            rate.rejected,
            rate.rejected / rate.trials,
            f"{rate.interval[0]:.3f} to {rate.interval[1]:.3f}",
        ]
        for rate in rates
    ]
