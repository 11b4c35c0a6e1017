"""Rankings of nodes that nothing is trained for: what learned masks have to beat.

    attribution   |dL/dm| of the whole model: by the gate's formula the activation minus its
                  replacement, times the gradient, summed over tokens and averaged over pairs
    integrated    |integral of dL/dm| along the straight path of all gates from 0 to 1
    variance      variance of the activation over the tokens of the task's prompts
    random        a permutation

with L the task loss in nats and m the gate of a node, x -> m x + (1 - m) r. Scores are taken on
training pairs, since k is chosen on validation pairs; selection, calibration, clean-up and counting
of edges are those of learned masks (Gao et al. 2025, Figure 31; integrated gradients: Sundararajan
et al. 2017, arXiv 1703.01365).

The mean over pairs comes before the absolute value: the mean is the derivative by the one gate that
all pairs share, while the mean of absolute values would also rank nodes high whose effects on
different pairs cancel. The sign is dropped: a node whose closing would lower the loss, to first
order, still carries what other nodes rely on, and ranking by the signed derivative, helpful nodes
first, leaves it to the end (the circuits are tens of times larger; see BUILD_NOTES.md).
"""

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.transformer import Params, apply
from circuitjax.prune.evaluate import gate_gradient
from circuitjax.prune.gates import all_gates, num_units
from circuitjax.prune.objective import Pairs
from circuitjax.prune.problem import Problem
from circuitjax.prune.select import rank_nodes

__all__ = [
    "RANKINGS",
    "Baseline",
    "Ranking",
    "activation_variance",
    "attribution_of_whole",
    "baseline_scores",
    "integrated_attribution",
    "rank_by",
]

Ranking = Literal["attribution", "integrated", "variance", "random"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

_AT_ONCE = 32  # pairs whose activations at every node are held at a time


@dataclasses.dataclass(frozen=True)
class Baseline:
    """How nodes are ranked; stands where a learned job has its hyperparameters.

    Attributes:
      ranking: one of `RANKINGS`.
      pairs: training pairs that scores are taken on (all of them where there are fewer).
      points: places on the path of `integrated`.
    """

    ranking: Ranking
    pairs: int = 512
    points: int = 16

    def __post_init__(self) -> None:
        if self.ranking not in RANKINGS:
            raise ValueError(f"ranking is {self.ranking!r}; choose one of {RANKINGS}")
        for name in ("pairs", "points"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, of the fields that the ranking reads."""
        unread = {
            "attribution": ("points",),
            "integrated": (),
            "variance": ("points",),
            "random": ("pairs", "points"),
        }[self.ranking]
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in unread}


def attribution_of_whole(problem: Problem, pairs: Pairs) -> np.ndarray:
    """Derivative of the task loss by each gate, in nats, with every gate open.

    Args:
      problem: model, replacement values, kind of loss.
      pairs: M of them, all of equal weight.

    Returns:
      `[U]`, signed: to first order, minus what closing the unit does to the loss.
    """
    return gate_gradient(problem, _path(problem, 1.0), pairs)


def integrated_attribution(problem: Problem, pairs: Pairs, points: int = 16) -> np.ndarray:
    """The same derivative, averaged over the straight path from the empty circuit to the whole model.

        integral over a from 0 to 1 of dL/dm at m = (a, ..., a)

    by the Gauss-Legendre rule. The sum over units is L(whole) - L(empty), up to the error of the
    rule; AbsTopK makes L jump along the path, and then it is only an estimate.

    Args:
      problem: model, replacement values, kind of loss.
      pairs: M of them, all of equal weight.
      points: of the rule.

    Returns:
      `[U]` in nats, signed.
    """
    places, weights = np.polynomial.legendre.leggauss(points)  # on [-1, 1]
    total = np.zeros(num_units(problem.config, problem.prune.tie_qk))
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        total += weight * gate_gradient(problem, _path(problem, float(place)), pairs)
    return total


def activation_variance(problem: Problem, pairs: Pairs) -> np.ndarray:
    """Variance of each activation over all tokens of the prompts, in the whole model.

    Args:
      problem: model.
      pairs: M of them; what pads a prompt does not count.

    Returns:
      `[U]` in the activation's unit squared. A tied pair of q and k has the sum of both.
    """
    count: Any = 0
    mean, spread = np.zeros(()), np.zeros(())
    for start in range(0, pairs.size, _AT_ONCE):
        batch = pairs.take(np.arange(start, min(start + _AT_ONCE, pairs.size)))
        found = _moments(problem.config, problem.params, batch)
        tokens, own_mean, own_spread = (np.asarray(part, np.float64) for part in found)
        # Two samples' moments from their own: stable where the mean is large.
        step, both = own_mean - mean, count + tokens
        spread = spread + own_spread + step**2 * count * tokens / both
        mean, count = mean + step * tokens / both, both
    tree, start = {}, 0
    for site in SITES:
        size = problem.config.num_layers * problem.config.width(site)
        tree[site] = (spread / count)[start : start + size]
        start += size
    if problem.prune.tie_qk:
        tree["attn.q"] = tree["attn.q"] + tree.pop("attn.k")
    return np.concatenate([tree[site] for site in SITES if site in tree])


@functools.partial(jax.jit, static_argnums=0)
def _moments(
    config: TransformerConfig, params: Params, pairs: Pairs
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Number of tokens, and mean and sum of squared deviations `[N]` of every node."""
    size, _, length = pairs.tokens.shape
    tokens, last = pairs.tokens.reshape(size * 2, length), pairs.last.reshape(size * 2)
    captured = apply(config, params, tokens, capture=SITES).captured
    real = (jnp.arange(length)[None, :] <= last[:, None])[None, :, :, None]
    count = jnp.sum(real)
    means, spreads = [], []
    for site in SITES:
        mean = jnp.sum(jnp.where(real, captured[site], 0.0), axis=(1, 2)) / count
        apart = jnp.where(real, captured[site] - mean[:, None, None, :], 0.0)
        means.append(mean.reshape(-1))
        spreads.append(jnp.sum(apart**2, axis=(1, 2)).reshape(-1))
    return count, jnp.concatenate(means), jnp.concatenate(spreads)


def baseline_scores(problem: Problem, baseline: Baseline, seed: int) -> np.ndarray:
    """Scores of the units `[U]`, the larger the earlier kept; no validation or test pair is read.

    Args:
      problem: model, task, data.
      baseline: which ranking.
      seed: of `random`; the others do not depend on it.
    """
    if baseline.ranking == "random":
        return _shuffled(problem, seed, 0).astype(np.float64)
    pairs = problem.train.take(np.arange(min(baseline.pairs, problem.train.size)))
    if baseline.ranking == "variance":
        return activation_variance(problem, pairs)
    if baseline.ranking == "integrated":
        return np.abs(integrated_attribution(problem, pairs, baseline.points))
    return np.abs(attribution_of_whole(problem, pairs))


def rank_by(problem: Problem, scores: np.ndarray, seed: int) -> np.ndarray:
    """Ranks of the units `[U]`, 0 the most important; units of equal score in random order.

    Raises:
      FloatingPointError: a score that is not finite.
    """
    if not np.all(np.isfinite(scores)):
        raise FloatingPointError(
            f"{int(np.sum(~np.isfinite(scores)))} of {scores.size} scores are not finite: the "
            "model's activations or gradients overflow on this task"
        )
    return rank_nodes(scores, _shuffled(problem, seed, 1).astype(np.float64))


def _shuffled(problem: Problem, seed: int, stream: int) -> np.ndarray:
    units = num_units(problem.config, problem.prune.tie_qk)
    return np.random.default_rng((seed, stream)).permutation(units)


def _path(problem: Problem, value: float) -> dict[str, jax.Array]:
    gates = all_gates(problem.config, value)
    if problem.prune.tie_qk:
        del gates["attn.k"]
    return gates
