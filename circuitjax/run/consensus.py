"""One setting for many tasks: what the studies of all of them say together.

    log edges of a run - median of its task  ->  one process over the space  ->  its lowest point

Tasks differ in size by a thousand, so every task counts by the factor between its runs. A run that
missed its target counts as its task's worst, and then some; a factor beyond e^2 counts as that.
Axes: N runs of all tasks, D dimensions, M candidates.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from circuitjax.tune.space import Space
from circuitjax.tune.surrogate_models import fit_process

__all__ = ["Consensus", "consensus"]

_FARTHEST = 2.0  # nats from the median that a run may count for
_MISSED = 0.5  # nats above a task's worst run that one without a circuit counts for
_DRAWS = 2000  # candidates of each round
_ROUNDS = 3  # of draws around the best, each half as far as the last
_RADIUS = 0.3  # of the first, in basic units
_CENTRES = 20  # settings that candidates are drawn around
_CAUTION = 1.0  # deviations that a candidate's expectation is held to be too low


@dataclasses.dataclass(frozen=True)
class Consensus:
    """A setting, and what is expected of it.

    Attributes:
      params: the setting.
      factor: edges expected there, as a multiple of the median run's, geometric mean over tasks.
      deviation: of its logarithm, nats.
      centre_factor: the same at the centre of the space, where the studies began.
      tasks: number of studies.
      runs: of all of them.
    """

    params: Mapping[str, float]
    factor: float
    deviation: float
    centre_factor: float
    tasks: int
    runs: int


def consensus(
    space: Space, studies: Sequence[Sequence[Mapping[str, Any]]], seed: int = 0
) -> Consensus:
    """The setting that is expected to do best over all tasks.

    Args:
      space: that all of them were searched in.
      studies: of each task its runs, with `params`, `output` (log edges) and `failed`.
      seed: of the candidates.

    Returns:
      The candidate whose expected output, one deviation added for caution, is lowest. Candidates are
      drawn around what did well.

    Raises:
      ValueError: no run of any task met its target.
    """
    points, outputs = [], []
    for rows in studies:
        found = _centred(rows)
        if found is not None:
            points += [space.to_basic(row["params"]) for row in rows]
            outputs.append(found)
    if not outputs:
        raise ValueError("no run of any study met its target: there is nothing to agree on")
    inputs, values = np.array(points), np.concatenate(outputs)
    mean, spread = float(values.mean()), float(values.std()) or 1.0
    rng = np.random.default_rng(seed)
    with threadpool_limits(limits=1, user_api="blas"):
        process = fit_process(inputs, (values - mean) / spread)

        def caution(at: np.ndarray) -> np.ndarray:
            expected, deviation = process.predict(at)
            return expected + _CAUTION * deviation

        candidates = np.unique(inputs, axis=0)
        for narrowing in range(_ROUNDS):
            best = candidates[np.argsort(caution(candidates), kind="stable")[:_CENTRES]]
            around = best[rng.integers(len(best), size=_DRAWS)]
            step = _RADIUS / 2.0**narrowing * rng.normal(size=around.shape)
            candidates = np.concatenate([best, space.snap(around + step)])
        chosen = candidates[int(np.argmin(caution(candidates)))]
        both = np.stack([chosen, np.zeros(len(space.dimensions))])
        expected, deviation = process.predict(both)
    return Consensus(
        params=space.from_basic(chosen),
        factor=math.exp(mean + spread * float(expected[0])),
        deviation=spread * float(deviation[0]),
        centre_factor=math.exp(mean + spread * float(expected[1])),
        tasks=len(outputs),
        runs=len(values),
    )


def _centred(rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """Outputs `[N]` of a task about its median; None where no run met the target."""
    met = np.array([row["output"] for row in rows if not row["failed"]], float)
    if not len(met):
        return None
    missed = met.max() + _MISSED
    values = np.array([missed if row["failed"] else row["output"] for row in rows], float)
    return np.clip(values - np.median(values), -_FARTHEST, _FARTHEST)
