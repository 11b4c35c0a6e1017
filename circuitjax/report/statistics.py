"""The few statistics that tables and figures of a suite are made of."""

import math
from collections.abc import Sequence

import numpy as np

from circuitjax.core.statistics import require_share, resampled_means

__all__ = ["bootstrap_interval", "geometric_mean"]


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm; NaN of nothing.

    Raises:
      ValueError: a value that is not above 0.
    """
    bad = [value for value in values if not 0 < value < math.inf]
    if bad:
        raise ValueError(f"a geometric mean is of numbers above 0, not of {bad[0]:g}")
    if not len(values):
        return math.nan
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the geometric mean, over samples of the values with replacement.

    It says how the mean would scatter had other tasks of the same kind been chosen; it knows nothing
    of how far one task's value scatters.

    Args:
      values: one per task, above 0.
      level: share of the resampled means inside the interval, in (0, 1).
      samples: how many are drawn.
      seed: of the draws.

    Returns:
      (low, high); NaN where there are fewer than two values.

    Raises:
      ValueError: a value that is not above 0, or a level outside (0, 1).

    Reference: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    geometric_mean(values)  # refuses what has no logarithm
    require_share("level", level)
    if len(values) < 2:
        return math.nan, math.nan
    logs = np.sort(np.log(np.asarray(values, float)))  # whatever order tasks come in
    means = resampled_means(logs, samples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(np.exp(low)), float(np.exp(high))
