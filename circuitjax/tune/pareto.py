"""The Pareto front of output against cost, and how far a point is expected to improve on it.

A point is on the front if nothing at its cost or below has a lower output. Costs measured by a clock
are never quite equal; were the slightest difference to count, the quickest of a hundred equally long
runs would be on the front for nothing. So costs within a tolerance count as equal.

Axes: N points, P of them on the front, M candidates.
Source: Fetterman et al. 2023 (arXiv 2306.08055), section 3. Log EI: Ament et al. 2023
(arXiv 2310.20708).
"""

import numpy as np
from scipy.special import erfcx, ndtr

__all__ = ["log_expected_improvement", "pareto_front"]


def pareto_front(costs: np.ndarray, outputs: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Indices `[P]` of the front, cheapest first.

    Taken from the lowest output upwards, a point joins if it costs less than every member by more than
    the tolerance. Of equal outputs the cheapest comes first, of equal points the first.

    Args:
      costs: `[N]`, above 0.
      outputs: `[N]`, to be minimised.
      tolerance: costs whose ratio is at most one plus this count as equal.
    """
    members: list[int] = []
    for i in np.lexsort((costs, outputs)):
        if not members or costs[i] * (1 + tolerance) < costs[members[-1]]:
            members.append(int(i))
    return np.array(members[::-1], int)


def log_expected_improvement(
    mean: np.ndarray, deviation: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """log E[max(reference - y, 0)] for y normal with that mean and deviation > 0, elementwise.

    With u = (reference - mean) / deviation it is log deviation + log(phi(u) + u Phi(u)). Far below
    zero the two terms cancel; there it is written with the scaled complementary error function, so
    that hopeless candidates can still be told apart.
    """
    u = (reference - mean) / deviation
    upper = np.maximum(u, -1.0)
    direct = np.log(np.exp(-(upper**2) / 2) / np.sqrt(2 * np.pi) + upper * ndtr(upper))
    lower = np.minimum(u, -1.0)
    # phi(u) + u Phi(u) = phi(u) (1 - |u| mills(|u|)), which tends to phi(u) / u^2.
    rest = 1 + lower * np.sqrt(np.pi / 2) * erfcx(-lower / np.sqrt(2))
    rest = np.where(lower < -1e3, 1 / lower**2, np.maximum(rest, np.finfo(float).tiny))
    tail = -(lower**2) / 2 - np.log(2 * np.pi) / 2 + np.log(rest)
    return np.log(deviation) + np.where(u > -1.0, direct, tail)
