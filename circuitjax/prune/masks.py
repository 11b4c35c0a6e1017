"""From a trained ranking to the smallest mask that does the task: bisection and calibration together.

The two completions' logits are cached at every k that is looked at, so that the calibrated and the
uncalibrated loss of each k come from one forward pass, and k is known for all three orders:
calibration inside the bisection (default), after it (as published), or never.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.evaluate import Prober, attribution
from circuitjax.prune.gates import flatten_units, gates_from_ranks, num_units
from circuitjax.prune.problem import Problem
from circuitjax.prune.select import Selection, bisect, rank_nodes
from circuitjax.prune.train import MaskState

__all__ = ["Choice", "choose", "choose_from_rankings"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The mask chosen for one ranking; losses are on the validation pairs, in nats.

    Attributes:
      mask: {site: bool `[L, W]`} of kept nodes.
      selection: the bisection whose k was taken.
      scale, shift: calibration of the logit difference (1 and 0 without).
      loss: calibrated loss at k.
      loss_uncalibrated: loss at k without calibration.
      k_inside, k_after: units kept when calibration acts inside the bisection or after it; None
        where the target is never met.
      curve: (k, loss, calibrated loss) at every k looked at.
    """

    mask: Mapping[str, np.ndarray]
    selection: Selection
    scale: float
    shift: float
    loss: float
    loss_uncalibrated: float
    k_inside: int | None
    k_after: int | None
    curve: tuple[tuple[int, float, float], ...]

    @property
    def reached(self) -> bool:
        """Whether the target is met on the validation pairs."""
        return self.selection.reached


class _Cache:
    """Raw and calibrated losses of one ranking by k, each k evaluated once."""

    def __init__(self, prune: PruneConfig, prober: Prober, ranking: int) -> None:
        self._prune, self._prober, self._ranking = prune, prober, ranking
        self.raw: dict[int, float] = {}
        self.fitted: dict[int, tuple[float, float, float]] = {}

    def _look(self, ks: np.ndarray) -> None:
        missing = [int(k) for k in ks if int(k) not in self.raw]
        if not missing:
            return
        found = self._prober.answers(self._ranking, missing)
        raw = found.losses(self._prune)
        if self._prune.loss == "vocabulary":
            for k, loss in zip(missing, raw, strict=True):
                self.raw[k], self.fitted[k] = float(loss), (1.0, 0.0, float(loss))
            return
        fit = calibrate(found.differences)
        for i, k in enumerate(missing):
            self.raw[k] = float(raw[i])
            self.fitted[k] = (float(fit.scale[i]), float(fit.shift[i]), float(fit.loss[i]))

    def raw_at(self, ks: np.ndarray) -> np.ndarray:
        self._look(ks)
        return np.array([self.raw[int(k)] for k in ks])

    def calibrated_at(self, ks: np.ndarray) -> np.ndarray:
        self._look(ks)
        return np.array([self.fitted[int(k)][2] for k in ks])


def choose(problem: Problem, state: MaskState) -> list[Choice]:
    """Ranks every job's units by tau (ties by attribution) and cuts at the smallest good k.

    Args:
      problem: model, task, data.
      state: J trained jobs.

    Returns:
      One choice per job.
    """
    rankings, trained = [], []
    for index in range(int(state.step.shape[0])):
        job = jax.tree.map(lambda leaf, i=index: leaf[i], state)
        scores = np.asarray(flatten_units(job.tau))
        rankings.append(rank_nodes(scores, attribution(problem, job, problem.validation)))
        trained.append(int(np.sum(scores > 0)))
    return choose_from_rankings(problem, rankings, trained)


def choose_from_rankings(
    problem: Problem, rankings: Sequence[np.ndarray], trained: Sequence[int] | None = None
) -> list[Choice]:
    """Cuts any rankings of the units at the smallest k that meets the target on validation.

    Args:
      problem: model, task, data.
      rankings: each `[U]`, 0 is the most important unit.
      trained: for each, a k to look at besides, such as the number of gates open after training.
    """
    prober = Prober(problem, problem.validation, rankings)
    trained = trained or [0] * len(rankings)
    return [
        _cut(problem, prober, index, ranks, k)
        for index, (ranks, k) in enumerate(zip(rankings, trained, strict=True))
    ]


def _cut(problem: Problem, prober: Prober, index: int, ranks: np.ndarray, k_trained: int) -> Choice:
    prune = problem.prune
    size = num_units(problem.config, prune.tie_qk)
    cache = _Cache(prune, prober, index)
    options: dict[str, Any] = {"grid": prune.grid, "extra": (k_trained,)}
    inside = bisect(cache.calibrated_at, size, prune.target_loss, **options)
    after = bisect(cache.raw_at, size, prune.target_loss, **options)
    selection = inside if prune.calibrate == "inside" else after
    scale, shift, loss = cache.fitted[selection.k]
    raw = cache.raw[selection.k]
    if prune.calibrate == "off":
        scale, shift, loss = 1.0, 0.0, raw
    gates = gates_from_ranks(problem.config, jnp.asarray(ranks), selection.k, prune.tie_qk)
    return Choice(
        mask={site: np.asarray(m) > 0.5 for site, m in gates.items()},
        selection=selection,
        scale=scale,
        shift=shift,
        loss=loss,
        loss_uncalibrated=raw,
        k_inside=inside.k if inside.reached else None,
        k_after=after.k if after.reached else None,
        curve=tuple((k, cache.raw[k], cache.fitted[k][2]) for k in sorted(cache.raw)),
    )
