"""The tuners that `bench_carbs` compares, one run of one of them, and the table of all runs."""

import abc
import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from circuitjax.report.table import markdown_table
from circuitjax.tune import carbs
from circuitjax.tune.pruning_space import pruning_space
from circuitjax.tune.space import Space
from experiments.bench_functions import FUNCTIONS, Outcome

Params = Mapping[str, float]
ROUND = 8
_FAILED = 1e300  # stands for an output in comparisons; no tuner is told it


class Tuner(Protocol):
    """What is compared."""

    def ask(self) -> Sequence[Params]:
        """A round of settings."""

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """What came of the last round, in its order."""

    def best(self) -> Params | None:
        """The setting held to be best; None while none has succeeded."""


class Carbs:
    """Ours."""

    def __init__(self, space: Space, seed: int) -> None:
        self._state = carbs.start(carbs.CarbsConfig(), space, seed)
        self._asked: tuple[carbs.Suggestion, ...] = ()

    def ask(self) -> Sequence[Params]:
        self._state, self._asked = carbs.ask(self._state, ROUND)
        return [suggestion.params for suggestion in self._asked]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        observations = [
            carbs.Observation(s.id, outcome.output, outcome.cost, failed=outcome.output is None)
            for s, outcome in zip(self._asked, outcomes, strict=True)
        ]
        self._state = carbs.tell(self._state, observations)

    def best(self) -> Params | None:
        found = carbs.best(self._state)
        return None if found is None else found.params


class _LowestSeen(abc.ABC):
    """Holds the setting of the lowest output to be best."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.low, self.high = space.bounds()
        self._asked: list[Params] = []
        self._best: tuple[float, Params | None] = _FAILED, None

    @abc.abstractmethod
    def points(self) -> list[np.ndarray]:
        """A round of points `[D]` in basic units."""

    def ask(self) -> Sequence[Params]:
        self._asked = [self.space.from_basic(point) for point in self.points()]
        return self._asked

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        for params, outcome in zip(self._asked, outcomes, strict=True):
            if outcome.output is not None and outcome.output < self._best[0]:
                self._best = outcome.output, params

    def best(self) -> Params | None:
        return self._best[1]


class Random(_LowestSeen):
    """Even draws."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space)
        self._rng = np.random.default_rng(seed)
        self._first = True

    def points(self) -> list[np.ndarray]:
        points = list(self._rng.uniform(self.low, self.high, (ROUND, len(self.low))))
        if self._first:
            points[0], self._first = np.zeros(len(self.low)), False
        return points


class Optuna(_LowestSeen):
    """A sampler of Optuna's, asked for a round before it is told."""

    def __init__(self, space: Space, sampler: Any) -> None:
        import optuna

        super().__init__(space)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(sampler=sampler)
        self._study.enqueue_trial(dict.fromkeys(space.names, 0.0))
        self._trials: list[Any] = []

    def points(self) -> list[np.ndarray]:
        self._trials, points = [], []
        for _ in range(ROUND):
            trial = self._study.ask()
            bounds = zip(self.space.names, self.low, self.high, strict=True)
            points.append(np.array([trial.suggest_float(*bound) for bound in bounds]))
            self._trials.append(trial)
        return points

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        from optuna.trial import TrialState

        super().tell(outcomes)
        for trial, outcome in zip(self._trials, outcomes, strict=True):
            failed = TrialState.FAIL if outcome.output is None else None
            self._study.tell(trial, outcome.output, state=failed)


def _tpe(space: Space, seed: int) -> Tuner:
    from optuna.samplers import TPESampler

    return Optuna(space, TPESampler(seed=seed, constant_liar=True))


def _gaussian_process(space: Space, seed: int) -> Tuner:
    from optuna.samplers import GPSampler

    return Optuna(space, GPSampler(seed=seed))


TUNERS: Mapping[str, Callable[[Space, int], Tuner]] = MappingProxyType(
    {"CARBS": Carbs, "random": Random, "Optuna TPE": _tpe, "Optuna GP": _gaussian_process}
)


def run_one(function: str, tuner: str, seed: int, rounds: int) -> dict[str, Any]:
    """One tuner on one function.

    Returns:
      `regret` and `cost` (the total so far) after each round, `failures`, and `seconds` of processor
      time that the tuner itself took.
    """
    problem = FUNCTIONS[function]
    rng = np.random.default_rng((seed, 1))
    seconds, spent, failures = 0.0, 0.0, 0
    regrets: list[float | None] = []
    costs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's about what is experimental
        tuned = TUNERS[tuner](problem.space, seed)
        for _ in range(rounds):
            begun = time.process_time()
            settings = tuned.ask()
            seconds += time.process_time() - begun
            outcomes = [problem.run(setting, rng) for setting in settings]
            tuned.tell(outcomes)
            spent += sum(outcome.cost for outcome in outcomes)
            failures += sum(outcome.output is None for outcome in outcomes)
            best = tuned.best()
            regrets.append(None if best is None else problem.regret(best))
            costs.append(spent)
    return {
        "function": function,
        "tuner": tuner,
        "seed": seed,
        "regret": regrets,
        "cost": costs,
        "failures": failures,
        "seconds": round(seconds, 2),
    }


def seconds_of_asking(observations: int, seed: int) -> float:
    """Seconds of CARBS for a round in the eight hyperparameters of pruning.

    Args:
      observations: made-up runs that came back before: edges from 100 up, scattered twofold, of equal
        cost but for the noise of a clock, one in sixteen failed.
      seed: of the search and of the runs.
    """
    space = pruning_space(8448)
    rng = np.random.default_rng(seed)
    state = carbs.start(carbs.CarbsConfig(), space, seed)
    points = rng.normal(0, 0.5, (observations, len(space.dimensions)))
    suggestions = tuple(
        carbs.Suggestion(i, space.from_basic(space.snap(points[i : i + 1])[0]), "first")
        for i in range(observations)
    )
    edges = np.log(100) + np.sum(points**2, axis=1) + 0.35 * rng.normal(size=observations)
    state = dataclasses.replace(state, suggestions=suggestions)
    state = carbs.tell(
        state,
        [
            carbs.Observation(
                i,
                None if i % 16 == 15 else float(edges[i]),
                1 + 0.02 * rng.random(),
                failed=i % 16 == 15,
            )
            for i in range(observations)
        ],
    )
    begun = time.perf_counter()
    carbs.ask(state, ROUND)
    return time.perf_counter() - begun


def _cell(regrets: Sequence[float | None]) -> str:
    values = [np.inf if regret is None else regret for regret in regrets]
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
    return f"{middle:.2g} [{low:.2g}, {high:.2g}]"


def _when_spent(run: Mapping[str, Any], budget: float) -> float | None:
    """The regret after the last round that kept the total cost within a budget."""
    within = [r for r, cost in zip(run["regret"], run["cost"], strict=True) if cost <= budget]
    return within[-1] if within else None


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Regret by function and tuner, in Markdown."""
    tuners = list(dict.fromkeys(run["tuner"] for run in runs))
    rows = []
    for function in dict.fromkeys(run["function"] for run in runs):
        mine = [run for run in runs if run["function"] == function]
        of = {tuner: [run for run in mine if run["tuner"] == tuner] for tuner in tuners}
        ends = {tuner: _cell([run["regret"][-1] for run in of[tuner]]) for tuner in tuners}
        rows.append([function, *ends.values()])
        totals = [run["cost"][-1] for run in mine]
        if min(totals) < max(totals):
            budget = min(totals)
            spent = {t: _cell([_when_spent(run, budget) for run in of[t]]) for t in tuners}
            rows.append([f"{function}: cost {budget:.0f} spent", *spent.values()])
            counts = {t: f"{np.median([run['failures'] for run in of[t]]):g}" for t in tuners}
            rows.append([f"{function}: failures", *counts.values()])
    seconds = [np.median([r["seconds"] for r in runs if r["tuner"] == t]) for t in tuners]
    rows.append(["seconds of the tuner", *[f"{value:.1f}" for value in seconds]])
    return markdown_table(["function", *tuners], rows)
