"""CARBS, cost-aware Pareto-region Bayesian search, as pure functions of an explicit state.

    state = start(CarbsConfig(), space, seed=0)
    state, suggestions = ask(state, 8)
    state = tell(state, [Observation(s.id, output, cost) for s in suggestions])
    expected_best(state)

Outputs are minimised. The search is local: it starts at the centre, keeps to a radius around the
Pareto front of output against cost, and moves with it. A good centre is worth more than wide bounds.

Source: Fetterman et al. 2023 (arXiv 2306.08055).
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from circuitjax.tune.pareto import pareto_front
from circuitjax.tune.proposals import (
    Models,
    fit_models,
    impute,
    propose,
    propose_without_output,
)
from circuitjax.tune.records import (
    CarbsConfig,
    Measured,
    Observation,
    State,
    Suggestion,
    check_ids,
    from_json,
    measured,
    to_json,
)
from circuitjax.tune.space import Space

__all__ = [
    "CarbsConfig",
    "Measured",
    "Observation",
    "State",
    "Suggestion",
    "ask",
    "best",
    "expected_best",
    "from_json",
    "front",
    "start",
    "tell",
    "to_json",
]

_PROPOSAL, _OUTCOME = 0, 1  # what a suggestion's random numbers are for


def start(config: CarbsConfig, space: Space, seed: int) -> State:
    """A search before its first suggestion.

    Raises:
      ValueError: a seed that is no whole number from 0.
    """
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be a whole number from 0")
    return State(config, space, seed)


def ask(state: State, count: int = 1) -> tuple[State, tuple[Suggestion, ...]]:
    """The next suggestions, and the state that knows of them.

    Pure: the same state gives the same suggestions, and eight at once are those of eight calls for one
    each. Kernel parameters are fitted once per call. Linear algebra is held to one thread meanwhile:
    the matrices are small, and results would depend on the number of cores.

    Args:
      state: the search.
      count: how many, at least 1.

    Raises:
      ValueError: a count below 1.
    """
    if type(count) is not int or count < 1:
        raise ValueError(f"count is {count!r}; it must be a whole number from 1")
    asked = len(state.suggestions)
    with threadpool_limits(limits=1, user_api="blas"):
        models = _models(state)
        for _ in range(count):
            suggestion = _suggest(state, models)
            state = dataclasses.replace(state, suggestions=(*state.suggestions, suggestion))
            if models is not None:
                models = _imputed(models, state, suggestion)
    return state, state.suggestions[asked:]


def tell(state: State, observations: Sequence[Observation]) -> State:
    """The state that knows what came of suggestions: any of the pending ones, in any order.

    Raises:
      ValueError: a suggestion that was never made, or one that is told twice.
    """
    together = (*state.observations, *observations)
    check_ids(state, together)
    return dataclasses.replace(state, observations=tuple(sorted(together, key=lambda o: o.id)))


def best(state: State) -> Measured | None:
    """The setting of the lowest mean output; None while none has succeeded.

    Of settings at least half of whose runs succeeded.
    """
    return min(measured(state), key=lambda one: one.output, default=None)


def expected_best(state: State) -> Measured | None:
    """The measured setting whose output the process expects to be lowest; None while none has succeeded.

    The lowest of many noisy runs is mostly the luckiest; its neighbours, which the process takes into
    account, say what it is worth. Without noise this is `best`, or within the process's error of it.
    Of settings at least half of whose runs succeeded.
    """
    found = measured(state)
    if not found:
        return None
    points = np.array([state.space.to_basic(one.params) for one in found])
    with threadpool_limits(limits=1, user_api="blas"):
        expected = _fitted(state).output.predict(points)[0]
    return found[int(np.argmin(expected))]


def front(state: State) -> tuple[Measured, ...]:
    """The settings on the Pareto front of mean output against mean cost, cheapest first."""
    found = measured(state)
    costs, outputs = np.array([[one.cost, one.output] for one in found]).reshape(-1, 2).T
    return tuple(found[i] for i in pareto_front(costs, outputs, state.config.cost_tolerance))


def _generator(state: State, suggestion: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((state.seed, suggestion, purpose))


def _models(state: State) -> Models | None:
    """Fitted to all that came back, given drawn outcomes for the rest; None without a success."""
    if all(observation.failed for observation in state.observations):
        return None
    models = _fitted(state)
    for suggestion in state.pending:
        models = _imputed(models, state, suggestion)
    return models


def _fitted(state: State) -> Models:
    """Fitted to what came back, some of which must have succeeded."""
    seen = state.observations
    return fit_models(
        points=np.array([state.space.to_basic(state.suggestions[o.id].params) for o in seen]),
        outputs=np.array([o.output if o.output is not None else np.nan for o in seen]),
        costs=np.array([o.cost for o in seen]),
        failed=np.array([o.failed for o in seen]),
        tolerance=state.config.cost_tolerance,
    )


def _imputed(models: Models, state: State, suggestion: Suggestion) -> Models:
    point = state.space.to_basic(suggestion.params)
    return impute(models, point, _generator(state, suggestion.id, _OUTCOME))


def _suggest(state: State, models: Models | None) -> Suggestion:
    config, space = state.config, state.space
    number = len(state.suggestions)
    if number == 0:
        return Suggestion(0, space.centre, "centre")
    rng = _generator(state, number, _PROPOSAL)
    if number < config.first_samples or (models is None and not state.observations):
        point = space.snap(config.radius * rng.normal(size=(1, len(space.dimensions))))[0]
        return Suggestion(number, space.from_basic(point), "first")
    if models is None:
        # What is still running is taken to fail, so that suggestions asked together spread.
        tried = np.array([space.to_basic(s.params) for s in state.suggestions])
        point = propose_without_output(tried, config, space.snap, rng)
        return Suggestion(number, space.from_basic(point), "first")
    if config.remeasure_every and (number + 1) % config.remeasure_every == 0:
        again = _to_remeasure(state)
        if again is not None:
            return Suggestion(number, again.params, "remeasure")
    point = propose(models, config, space.snap, rng)
    return Suggestion(number, space.from_basic(point), "model")


def _to_remeasure(state: State) -> Measured | None:
    """The setting of the front with the fewest runs, those under way included.

    None where every one has been measured often enough, or has shown that it has no noise.
    """
    running = [suggestion.params for suggestion in state.pending]
    outputs = {o.id: o.output for o in state.observations}

    def runs(one: Measured) -> int:
        return one.runs + running.count(one.params)

    def repeats_itself(one: Measured) -> bool:
        values = [outputs[i] for i in one.ids]
        return any(a == b for a, b in itertools.pairwise(values))

    open_ones = [
        one
        for one in front(state)
        if runs(one) < state.config.most_runs and not repeats_itself(one)
    ]
    return min(open_ones, key=lambda one: (runs(one), one.output), default=None)
