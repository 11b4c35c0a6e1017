"""Gates that start where a ranking without training puts them, rather than all alike.

    score of a gate at the start  =  as without  +  spread * n,   n the normal quantile of its rank

so that the best-ranked gates start far open and the last ones near closing, whatever the scale of the
ranking. Published as a sequential ensemble: attribution first, edge pruning from there (Mondorf et
al. 2025, arXiv 2510.06811).

Where training holds a loss or a KL (`control=hold`), it begins at the ranking's own cut instead: those
of the smallest k that meets the target on a few training items are open, and the others as far from
opening as their ranks are from k. Training then spends its steps on what the ranking does not know:
which of the gates near the cut can do without each other.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from circuitjax.prune import opening
from circuitjax.prune.defaults import Search
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import Baseline, rank_scores, scores_without_training
from circuitjax.prune.select import bisect
from circuitjax.prune.train import MaskState
from circuitjax.prune.trial import trial_of_cut

__all__ = ["warmed"]

#: Standard deviations of what is added to the scores: they are log odds, or lie in [-1, 1].
_SPREAD: Mapping[str, float] = MappingProxyType({"hard_concrete": 2.0, "heaviside": 0.2})

_GRID, _NEAR = 6, 1.1  # k of the first look; how near, as a factor, the cut is sought


def warmed(problem: Problem, search: Search, state: MaskState) -> MaskState:
    """J jobs at their start, moved to the ranking `search.choices.warm_start`.

    Args:
      problem: model and data; a search that starts from a circuit is warmed within it.
      search: what is trained.
      state: before the first step.
    """
    choices = search.choices
    within = dataclasses.replace(problem, whole=problem.trained)
    baseline = Baseline(
        choices.warm_start,  # type: ignore[arg-type]
        sign=choices.sign,
        attribute_to=choices.attribute_to,
    )
    found = scores_without_training(within, baseline, 0, choices.loss)
    ranks, gate = rank_scores(within, found, 0).ranks, opening.GATES[choices.gate]
    start = state.tau["gates"]
    places = _place(ranks, len(ranks))
    if choices.control == "hold":
        places = places - _place(_first_cut(within, search, ranks), len(ranks))
        start = jnp.full_like(start, gate.closed_at)
    scores = start + _SPREAD[choices.gate] * jnp.asarray(places, jnp.float32)[None]
    scores = gate.project(scores)
    return dataclasses.replace(state, tau={**state.tau, "gates": scores})


def _place(ranks: np.ndarray | int, count: int) -> np.ndarray:
    """The normal quantile of ranks among so many gates, the first the largest."""
    return np.asarray(ndtri(1 - (np.asarray(ranks) + 0.5) / count))


def _first_cut(problem: Problem, search: Search, ranks: np.ndarray) -> int:
    """About the smallest k that meets the target on a few training items; all where none does."""
    selection, exists = search.selection, problem.whole.exists()
    trial = trial_of_cut(problem, search)
    found = bisect(
        lambda ks: np.array([trial.loss(exists & (ranks < k)) for k in ks]),
        int(exists.sum()),
        selection.value,
        grid=_GRID,
        refine=1,
        close=_NEAR,
    )
    return found.k
