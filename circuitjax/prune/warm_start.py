"""Gates that start where an attribution ranking puts them, rather than all alike.

    score of a gate at the start  =  as without  +  spread * n,   n the normal quantile of its rank

so that the best-ranked gates start far open and the last ones near closing, whatever the scale of the
attribution. Published as a sequential ensemble: attribution first, edge pruning from there (Mondorf et
al. 2025, arXiv 2510.06811).
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
from scipy.special import ndtri

from circuitjax.prune import opening
from circuitjax.prune.defaults import Search
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import Baseline, rank_scores, scores_without_training
from circuitjax.prune.train import MaskState

__all__ = ["warmed"]

#: Standard deviations of what is added to the scores: they are log odds, or lie in [-1, 1].
_SPREAD: Mapping[str, float] = MappingProxyType({"hard_concrete": 2.0, "heaviside": 0.2})


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
    ranks = rank_scores(within, found, 0).ranks
    places = ndtri(1 - (ranks + 0.5) / len(ranks))
    spread = _SPREAD[choices.gate]
    scores = state.tau["gates"] + spread * jnp.asarray(places, jnp.float32)[None]
    scores = opening.GATES[choices.gate].project(scores)
    return dataclasses.replace(state, tau={**state.tau, "gates": scores})
