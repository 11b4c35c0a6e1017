"""Error bars and error rates: what a figure of a sample says of what it is a sample of.

    interval of a mean     bias-corrected and accelerated bootstrap (Efron 1987): quantiles of resampled
                           means at Phi(z0 + (z0 + z) / (1 - a (z0 + z))); z0 is their bias, a skewness
    interval of a share    Clopper and Pearson 1934, exact
    p of random draws      Besag and Clifford 1991, "Sequential Monte Carlo p-values": draw until h of
                           them are as extreme as what is tested, or n are drawn:
                           p = h / draws,  or  (exceeded + 1) / (n + 1);  P(p <= x) <= x under the null
    p of a sign test       binomial, with a tolerance
    many p at once         Benjamini and Hochberg 1995: p_(i) m / i, made monotone

Axis letters: M items of a sample, S resamples, K samples of the same items.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import bdtr, bdtrc, betaincinv, ndtr, ndtri

__all__ = [
    "MonteCarlo",
    "adjusted",
    "clopper_pearson",
    "mean_bound",
    "mean_interval",
    "require_share",
    "resampled_means",
    "sequential_p",
    "sign_p",
]

_SAMPLES = 2000  # the level of a 95% interval is then known to half a percent
_GATHERED = 2**22  # numbers that are drawn at a time


def require_share(name: str, value: float) -> float:
    """The value, if it is in (0, 1).

    Raises:
      ValueError: it is not.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must be in (0, 1)")
    return value


def resampled_means(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means `[..., S]` of so many samples of values `[..., M]`, drawn with replacement.

    Every row is resampled by the same draws, so that rows of the same items stay comparable.
    """
    values = np.asarray(values, float)
    count = values.shape[-1]
    drawn = np.random.default_rng(seed).integers(count, size=(samples, count))
    step = max(1, _GATHERED // max(values.size, 1))
    parts = [values[..., drawn[s : s + step]].mean(axis=-1) for s in range(0, samples, step)]
    return np.concatenate(parts, axis=-1)


def _bootstrap(
    values: np.ndarray, shares: Sequence[float], samples: int, seed: int
) -> list[np.ndarray]:
    """Bounds `[...]` of the mean of values `[..., M]` that it is below with these confidences."""
    values = np.asarray(values, float)
    if values.shape[-1] < 2:
        return [np.full(values.shape[:-1], math.nan) for _ in shares]
    mean = values.mean(axis=-1, keepdims=True)
    apart = values - mean
    square = np.sum(apart**2, axis=-1)
    flat = square <= 1e-24 * np.maximum(
        1.0, mean[..., 0] ** 2
    )  # one value only: no spread to speak of
    safe = np.where(flat, 1.0, square)
    skew = np.where(flat, 0.0, np.sum(apart**3, axis=-1) / (6 * safe**1.5))
    means = np.sort(resampled_means(values, samples, seed), axis=-1)
    below = np.mean(means < mean, axis=-1) + 0.5 * np.mean(means == mean, axis=-1)
    bias = ndtri(np.clip(below, 0.5 / samples, 1 - 0.5 / samples))
    found = []
    for share in shares:
        far = bias + ndtri(share)
        place = ndtr(bias + far / np.maximum(1 - skew * far, 1e-3)) * (samples - 1)
        low = np.floor(place).astype(int)
        rest = place - low
        pair = [
            np.take_along_axis(means, np.minimum(low + step, samples - 1)[..., None], -1)[..., 0]
            for step in (0, 1)
        ]
        found.append(np.where(flat, mean[..., 0], (1 - rest) * pair[0] + rest * pair[1]))
    return found


def mean_interval(
    values: np.ndarray, *, level: float = 0.95, samples: int = _SAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap interval of means, over the last axis.

    Args:
      values: `[..., M]`, one for each independent item: of pairs, the mean over both prompts.
      level: share of intervals that hold the true mean, in (0, 1).
      samples: S.
      seed: of the draws.

    Returns:
      (low, high), each `[...]`; NaN for fewer than two items.

    Raises:
      ValueError: a level outside (0, 1).

    Reference: Efron 1987, "Better bootstrap confidence intervals".
    """
    tail = (1 - require_share("level", level)) / 2
    low, high = _bootstrap(values, (tail, 1 - tail), samples, seed)
    return low, high


def mean_bound(
    values: np.ndarray, confidence: float, *, samples: int = _SAMPLES, seed: int = 0
) -> np.ndarray:
    """What the mean is at most, with a confidence: the one-sided bound `[...]` of `mean_interval`.

    Raises:
      ValueError: a confidence outside (0, 1).
    """
    return _bootstrap(values, (require_share("confidence", confidence),), samples, seed)[0]


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share of which `hits` of `count` independent trials are known.

    It covers with at least the level, whatever the share. One-sided at confidence c: take the level
    2 c - 1 and one end.

    Raises:
      ValueError: no trials, hits outside 0 to count, or a level outside (0, 1).
    """
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"{hits} of {count} is no share: hits must be from 0 to count, at least 1")
    tail = (1 - require_share("level", level)) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return low, high


@dataclasses.dataclass(frozen=True)
class MonteCarlo:
    """A p-value from random draws.

    Attributes:
      p: valid: under the null it is at most x with probability at most x.
      low, high: interval of the share of all draws that are as extreme, which p estimates.
      draws: how many were looked at.
      exceeded: how many of them were as extreme or more.
    """

    p: float
    low: float
    high: float
    draws: int
    exceeded: int


def sequential_p(
    draws: Iterable[np.ndarray],
    observed: float,
    *,
    exceedances: int = 20,
    most: int = 1000,
    level: float = 0.95,
) -> MonteCarlo:
    """Compares what was observed with random draws, one after another, until enough is known.

    Batches only say how draws are computed: where it stops, and so the result, is decided draw by draw.
    Draws that equal what was observed count against it.

    Args:
      draws: batches `[.]` of the statistic under the null, in a fixed order; taken as needed.
      observed: the statistic that is tested; large is extreme.
      exceedances: h, after which drawing stops; the p then has a relative error of about 1 / sqrt(h).
      most: n, draws at most.
      level: of the interval.

    Raises:
      ValueError: fewer than one draw or exceedance, no draw at all, or a level outside (0, 1).

    Reference: Besag and Clifford 1991, "Sequential Monte Carlo p-values", Biometrika 78(2).
    """
    for name, value in (("exceedances", exceedances), ("most", most)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    tail = (1 - require_share("level", level)) / 2
    count = exceeded = 0
    for batch in draws:
        for value in np.asarray(batch, float).ravel():
            count += 1
            exceeded += bool(value >= observed)
            if exceeded == exceedances or count == most:
                break
        if exceeded == exceedances or count == most:
            break
    if not count:
        raise ValueError("there is no draw to compare with: give at least one")
    if exceeded < exceedances:
        low, high = clopper_pearson(exceeded, count, level)
        return MonteCarlo((exceeded + 1) / (count + 1), low, high, count, exceeded)
    # The last draw is an exceedance by design: a negative binomial's interval.
    low = float(betaincinv(exceeded, count - exceeded + 1, tail))
    high = float(betaincinv(exceeded, count - exceeded, 1 - tail)) if count > exceeded else 1.0
    return MonteCarlo(exceeded / count, low, high, count, exceeded)


def sign_p(signs: np.ndarray, tolerance: float = 0.0) -> float:
    """Two-sided p of a sign test: that one wins as often as the other, give or take a tolerance.

        H0   |P(above) + P(tie) / 2 - 1/2| <= tolerance

    Ties are shared out evenly, which makes the test conservative.

    Args:
      signs: `[M]`, of each item's difference: above 0, 0, below 0.
      tolerance: in [0, 1/2).

    Raises:
      ValueError: no item, or a tolerance outside [0, 1/2).
    """
    signs = np.sign(np.asarray(signs, float)).ravel()
    if not signs.size:
        raise ValueError("there is no sign to test: give at least one")
    if not 0 <= tolerance < 0.5:
        raise ValueError(f"tolerance is {tolerance}; it must be in [0, 0.5)")
    count = int(signs.size)
    # Twice the distance of the number of wins from the middle, towards it where it is no whole number.
    lead = abs(int(signs.sum()))
    wins = (count + lead) // 2
    if 2 * wins <= count:
        return 1.0
    share = 0.5 + tolerance
    return min(1.0, float(bdtrc(wins - 1, count, share) + bdtr(count - wins, count, share)))


def adjusted(values: Sequence[float]) -> list[float]:
    """p-values of which those at most x have a false discovery rate of at most x.

    Reference: Benjamini and Hochberg 1995, "Controlling the false discovery rate".

    Raises:
      ValueError: one that is not in [0, 1].
    """
    found = np.asarray(values, float)
    if not np.all((found >= 0) & (found <= 1)):
        raise ValueError(f"p-values are {list(values)}; each must be in [0, 1]")
    order = np.argsort(-found, kind="stable")  # from the largest down
    ranks = len(found) - np.arange(len(found))
    scaled = np.minimum.accumulate(found[order] * len(found) / np.maximum(ranks, 1))
    result = np.empty_like(found)
    result[order] = np.minimum(scaled, 1.0)
    return [float(value) for value in result]
