"""Which setting to run next: candidates drawn around the front, and the best of them.

    acquisition = E[improvement over the front's value at the candidate's cost]
                  * prior(candidate) * P(success)

The front's value at a cost is a process of its own, fitted to the front's points; the prior is the
density of the draws around the front. Candidates dearer than a limit, drawn anew for each suggestion
along the front, are left out, so that cheap settings are improved as well as dear ones.

A suggestion that has not come back is given an outcome drawn from the models (Thompson sampling), on
which they are conditioned; so eight that are asked together spread.

Axes: N observations, S successful ones, D dimensions, P points of the front, M candidates.
Source: Fetterman et al. 2023 (arXiv 2306.08055), section 3.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from circuitjax.tune.pareto import log_expected_improvement, pareto_front
from circuitjax.tune.records import CarbsConfig
from circuitjax.tune.surrogate_models import (
    Process,
    fit_process,
    normal_scores,
    success_probability,
)

__all__ = ["Models", "fit_models", "impute", "propose", "propose_without_output"]

Snap = Callable[[np.ndarray], np.ndarray]
_NARROWEST = 3.0  # draws around the front are up to so many times halved in radius
_REFINEMENTS = 2  # rounds of draws around the best candidates ...
_REFINED = 10  # ... of which there are so many
_ROUGH = (
    25  # optimiser's steps for cost, success and front, which steer less finely than the output
)


@dataclasses.dataclass(frozen=True)
class Models:
    """What is believed about the space.

    Attributes:
      output: of the normal scores of the outputs; low is good.
      cost: of the standardised log costs; None while all costs are equal within the tolerance.
      cost_spread: standard deviation of the log costs.
      cost_mean: their mean.
      success: of +1 and -1; None while nothing has failed.
      observed: points `[S, D]` of the successful runs.
    """

    output: Process
    cost: Process | None
    cost_mean: float
    cost_spread: float
    success: Process | None
    observed: np.ndarray

    def costs(self, points: np.ndarray) -> np.ndarray:
        """Expected standardised log cost `[M]` at `[M, D]`."""
        return np.zeros(len(points)) if self.cost is None else self.cost.predict(points)[0]


def fit_models(
    points: np.ndarray, outputs: np.ndarray, costs: np.ndarray, failed: np.ndarray, tolerance: float
) -> Models:
    """Fits all of them.

    Args:
      points: `[N, D]` in basic units.
      outputs: `[N]`; ignored where the run failed.
      costs: `[N]`; ignored where the run failed, for its cost tells little of a run that does not.
      failed: `[N]`, bool, not all True.
      tolerance: costs whose ratio is at most one plus this count as equal.
    """
    good = ~failed
    log_costs = np.log(costs[good])
    mean, spread = float(np.mean(log_costs)), float(np.std(log_costs))
    equal = np.ptp(log_costs) <= math.log1p(tolerance)
    signs = np.where(failed, -1.0, 1.0)
    return Models(
        output=fit_process(points[good], normal_scores(outputs[good])),
        cost=None if equal else fit_process(points[good], (log_costs - mean) / spread, _ROUGH),
        cost_mean=mean,
        cost_spread=spread,
        success=fit_process(points, signs, _ROUGH) if failed.any() else None,
        observed=points[good],
    )


def impute(models: Models, point: np.ndarray, rng: np.random.Generator) -> Models:
    """The models, given a drawn outcome of a run at a point `[D]` that has not come back."""
    at = point[None]
    chance, score, cost = rng.random(), rng.normal(), rng.normal()
    success = models.success
    if success is not None:
        succeeds = chance < success_probability(success, at)[0]
        success = success.add(at, np.array([1.0 if succeeds else -1.0]))
        if not succeeds:
            return dataclasses.replace(models, success=success)

    def drawn(process: Process, noise: float) -> Process:
        mean, deviation = process.predict(at)
        return process.add(at, mean + deviation * noise)

    return dataclasses.replace(
        models,
        output=drawn(models.output, score),
        cost=None if models.cost is None else drawn(models.cost, cost),
        success=success,
    )


def propose(
    models: Models, config: CarbsConfig, snap: Snap, rng: np.random.Generator
) -> np.ndarray:
    """The best of the candidates, `[D]`."""
    centres = _front(models, models.observed, config)[0]
    front = _front(models, models.output.inputs, config)
    limit = _cost_limit(models, front[2], config, rng)
    reference = _front_value(front[2], front[1])

    def score(points: np.ndarray) -> np.ndarray:
        costs = models.costs(points)
        value = log_expected_improvement(*models.output.predict(points), reference(costs))
        value = value + log_prior(points, centres, config.radius)
        if models.success is not None:
            value = value + np.log(success_probability(models.success, points) + 1e-300)
        # A candidate above the limit is worse than any below it, and the worse the dearer.
        return np.where(costs <= limit, value, -1e9 * (1 + np.maximum(costs - limit, 0)))

    count = config.candidates_per_dimension * centres.shape[1]
    around = centres[rng.integers(len(centres), size=count)]
    radius = config.radius * 2.0 ** -rng.uniform(0, _NARROWEST, (count, 1))
    points = snap(around + radius * rng.normal(size=around.shape))
    values = score(points)
    for narrowing in range(1, _REFINEMENTS + 1):
        top = points[np.argsort(-values, kind="stable")[:_REFINED]]
        around = np.repeat(top, max(count // (2 * len(top)), 1), axis=0)
        step = config.radius / 4.0**narrowing
        closer = snap(around + step * rng.normal(size=around.shape))
        points, values = np.concatenate([top, closer]), np.concatenate([score(top), score(closer)])
    return points[int(np.argmax(values))]


def propose_without_output(
    points: np.ndarray, config: CarbsConfig, snap: Snap, rng: np.random.Generator
) -> np.ndarray:
    """A point `[D]` to try while no run has succeeded, given those `[N, D]` that did not.

    A draw around the centre; with every `first_samples` failures it reaches a radius further, and of
    all candidates the one most likely to succeed is taken, which is one away from the failures.
    """
    if not len(points):
        raise ValueError("nothing has failed yet: draw around the centre")
    radius = config.radius * (1 + len(points) / config.first_samples)
    count = config.candidates_per_dimension * points.shape[1]
    candidates = snap(radius * rng.normal(size=(count, points.shape[1])))
    success = fit_process(points, np.full(len(points), -1.0))
    return candidates[int(np.argmax(success_probability(success, candidates)))]


def log_prior(points: np.ndarray, centres: np.ndarray, radius: float) -> np.ndarray:
    """log density `[M]` of the draws around the front `[P, D]`, up to a constant."""
    squares = np.sum((points[:, None] - centres) ** 2, axis=-1)
    return logsumexp(-squares / (2 * radius**2), axis=1) - math.log(len(centres))


def _front(
    models: Models, points: np.ndarray, config: CarbsConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points `[P, D]`, scores `[P]`, costs `[P]`) of the front, cheapest first.

    By what the models expect there and not by single outputs: the best of many noisy runs is mostly
    the luckiest. Members among the cheapest runs are left out, all but the best of them.
    """
    scores, costs = models.output.predict(points)[0], models.costs(points)
    index = pareto_front(np.exp(models.cost_spread * costs), scores, config.cost_tolerance)
    cut = np.quantile(models.costs(models.observed), config.cheapest_left)
    index = index[(costs[index] >= cut) | (index == index[-1])]
    return points[index], scores[index], costs[index]


def _front_value(costs: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The front's score `[M]` at costs `[M]`, between its best and its worst."""
    if len(costs) == 1:
        return lambda at: np.full(at.shape, scores[0])
    mean = np.mean(scores)
    process = fit_process(costs[:, None], scores - mean, _ROUGH)
    return lambda at: np.clip(process.predict(at[:, None])[0] + mean, scores.min(), scores.max())


def _cost_limit(
    models: Models, costs: np.ndarray, config: CarbsConfig, rng: np.random.Generator
) -> float:
    """The dearest a candidate may be, as a standardised log cost."""
    drawn = rng.random()
    if models.cost is None:
        return math.inf
    cheapest = costs.min() + math.log1p(config.cost_tolerance) / models.cost_spread
    dearest = costs.max() + math.log(config.cost_reach) / models.cost_spread
    limit = cheapest + drawn * max(dearest - cheapest, 0.0)
    if config.max_cost is None:
        return limit
    return min(limit, (math.log(config.max_cost) - models.cost_mean) / models.cost_spread)
