"""Rankings of gates: by what was learned, by backward elimination, or by a score without training.

    learned       the trained score, or the chance to be open; ties by attribution
    by gradients  attribution (on residual edges: EAP), integrated, eap_ig_inputs, eap_ig_activations,
                  gim: see `attribution.py`; absolute, signed or positive
    fisher        what closing the gate alone adds to the KL, to second order: see `curvature.py`
    eliminated    the order in which backward elimination closes gates, from the whole model on, by what
                  that adds to the KL: see `eliminate.py` and `candidates.py`; no scores come before it
    variance      variance of a node's activation over the tokens of the task's prompts
    random        a permutation

Scores without training are taken on training examples, since k is chosen on validation. Any ranking
of residual edges can be walked from the logits backwards instead (`connected.py`).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.files import cut
from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Params, apply
from circuitjax.prune import opening
from circuitjax.prune.attribution import ATTRIBUTIONS, gains, signed
from circuitjax.prune.config import SYNONYMS, UNTRAINED, AttributeTo, Choices, Ranking, Sign
from circuitjax.prune.connected import connected_order
from circuitjax.prune.curvature import curvature
from circuitjax.prune.evaluate import gate_slopes
from circuitjax.prune.objective import Objective
from circuitjax.prune.problem import Problem
from circuitjax.prune.select import rank_nodes
from circuitjax.prune.train import MaskState

__all__ = [
    "RANKINGS",
    "Baseline",
    "Ranked",
    "activation_moments",
    "connected",
    "learned_ranking",
    "rank_scores",
    "scores_without_training",
]

RANKINGS: tuple[str, ...] = (*ATTRIBUTIONS, *UNTRAINED)
_BATCHES = 32  # of training items, at most, of a ranking: of large networks' edges each is dear
_DRAWS = 128  # items of a curvature, at most: each is a slope of its own
_AT_ONCE = 32  # pairs whose activations at every node are held at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Ranked:
    """Gates in order.

    Attributes:
      ranks: int `[G]`, 0 is the most important gate; those that cannot matter come last.
      opened: bool `[G]`, open after training.
      soft: how many are expected to be open.
      trained: a k to look at besides: how many are open, or are ranked by elimination; where that began
        from all gates, how many of them met the target on training items.
      eliminated: whether gates are ranked by elimination.
    """

    ranks: np.ndarray
    opened: np.ndarray
    soft: float = 0.0
    trained: int = 0
    eliminated: bool = False


def learned_ranking(
    problem: Problem, objective: Objective, state: MaskState, ties: Examples
) -> Ranked:
    """Orders one trained job's gates by score, ties by attribution at the trained hard gates.

    Args:
      problem: what was trained.
      objective: likewise.
      state: of one job.
      ties: examples of the attribution.
    """
    gate, model = opening.GATES[objective.gate], problem.trained
    chance = np.asarray(objective.chances(state.tau, state.hyper, model), np.float64)
    exists = problem.whole.exists()
    if gate.by_score:
        scores = state.tau["gates"]
        if objective.owners:
            scores = jnp.minimum(scores, model.owned(state.tau["owners"], least=True))
        scores = np.asarray(scores)
        opened = scores > gate.closed_at
    else:
        scores, opened = chance, chance > 0.5
    opened = opened & exists
    kind = "kl" if objective.minimise == "kl" else "calibrated" if objective.calibrated else "task"
    slope = gate_slopes(problem, opened, ties, kind, loss=objective.task_loss, model=model)
    ranks = rank_nodes(np.where(exists, scores, -np.inf), slope)
    return Ranked(ranks, opened, float(chance[exists].sum()), int(opened.sum()))


@dataclasses.dataclass(frozen=True)
class Baseline:
    """How gates are ranked without training; stands where a learned job has its hyperparameters.

    Attributes:
      ranking: one of `RANKINGS`, or a synonym.
      items: training items that scores are taken on (all of them where there are fewer, or fewer where
        a run of the grain costs seconds).
      points: places on each stretch of a path; None: 16 of `integrated`, 5 of the others.
      sign: see `attribution.signed`.
      attribute_to: what gradients are of; see `attribution.gains`.
    """

    ranking: Ranking
    items: int = 512
    points: int | None = None
    sign: Sign = "absolute"
    attribute_to: AttributeTo = "loss"

    @classmethod
    def of(cls, choices: Choices) -> "Baseline":
        """What a search's choices say of it."""
        return cls(choices.ranking, sign=choices.sign, attribute_to=choices.attribute_to)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranking", SYNONYMS.get(self.ranking, self.ranking))
        if self.points is None and self.ranking in RANKINGS:
            own = ATTRIBUTIONS.get(self.ranking)
            object.__setattr__(self, "points", 1 if own is None else own.points)
        if self.ranking not in RANKINGS:
            raise ValueError(f"ranking is {cut(self.ranking)}; choose one of {RANKINGS}")
        for name in ("items", "points"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, of the fields that the ranking reads."""
        fields = dataclasses.asdict(self)
        own = ATTRIBUTIONS.get(self.ranking)
        for name in ("sign", "attribute_to"):  # they came later: said where they say something
            if own is None or fields[name] == getattr(Baseline, name):
                del fields[name]
        if own is None or own.points == 1:
            del fields["points"]
        if self.ranking in ("random", "eliminated"):
            del fields["items"]
        return fields


def scores_without_training(
    problem: Problem, baseline: Baseline, seed: int, loss: str = "binary"
) -> np.ndarray:
    """Scores `[G]`, the larger the earlier kept; no validation or test example is read.

    Args:
      problem: model, task, data.
      baseline: which ranking.
      seed: of `random`; the others do not depend on it.
      loss: kind of task loss that gradients are of.
    """
    whole = problem.whole
    if baseline.ranking == "eliminated":
        return np.zeros(whole.num_gates)
    if baseline.ranking == "random":
        return _shuffled(whole, seed, 0).astype(np.float64)
    if baseline.ranking == "fisher":
        return curvature(whole, problem.batches, problem.train.first(min(baseline.items, _DRAWS)))
    examples = problem.train.first(min(baseline.items, _BATCHES * whole.eval_items))
    if baseline.ranking == "variance":
        return _activation_variance(whole, examples)
    found = gains(
        problem,
        examples,
        baseline.ranking,
        points=baseline.points,
        of=baseline.attribute_to,
        loss=loss,
    )
    return signed(found, baseline.sign)


def rank_scores(problem: Problem, scores: np.ndarray, seed: int) -> Ranked:
    """Gates by score, those of equal score in random order.

    Raises:
      FloatingPointError: a score that is not finite.
    """
    if not np.all(np.isfinite(scores)):
        raise FloatingPointError(
            f"{int(np.sum(~np.isfinite(scores)))} of {scores.size} scores are not finite: the "
            "model's activations or gradients overflow on this task"
        )
    exists = problem.whole.exists()
    ties = _shuffled(problem.whole, seed, 1).astype(np.float64)
    return Ranked(rank_nodes(np.where(exists, scores, -np.inf), ties), np.zeros(len(exists), bool))


def connected(problem: Problem, ranked: Ranked, seed: int) -> Ranked:
    """The same ranking of residual edges, walked from the logits backwards; see `connected.py`."""
    model: Any = problem.whole
    scores = np.where(model.exists(), -ranked.ranks.astype(np.float64), -np.inf)
    ties = _shuffled(model, seed, 1)
    order = connected_order(model.graph, model.edges(scores), model.edges(ties))
    if model.units != "channel":  # a larger unit is taken with the first of its edges
        order = np.array(list(dict.fromkeys(model.edges(np.arange(model.num_gates))[order])))
    ranks = np.empty_like(ranked.ranks)
    ranks[order] = np.arange(len(order), dtype=ranks.dtype)
    return dataclasses.replace(ranked, ranks=ranks)


def _shuffled(model: GatedModel, seed: int, stream: int) -> np.ndarray:
    return np.random.default_rng((seed, stream)).permutation(model.num_gates)


def _activation_variance(model: Any, examples: Examples) -> np.ndarray:
    """Variance of each activation, in the unit squared: `[G]`; a tied q and k have the sum of both."""
    _, tree = activation_moments(model.config, model.params, examples)
    if model.tied:
        tree["attn.q"] = tree["attn.q"] + tree["attn.k"]
    return np.asarray(model.flat(tree))


def activation_moments(
    config: TransformerConfig, params: Params, examples: Examples
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Mean and variance of every node over all tokens of clean prompts, {site: float64 `[L, W]`} each.

    What pads a prompt does not count.
    """
    count: Any = 0
    mean: Any = {}
    spread: Any = {}
    for start in range(0, examples.items, _AT_ONCE):
        batch = examples.take(np.arange(start, min(start + _AT_ONCE, examples.items)))
        found = jax.device_get(_moments(config, params, batch))
        tokens, own_mean, own_spread = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
        # Two samples' moments from their own: stable where the mean is large.
        both = count + tokens
        if not count:
            mean, spread = own_mean, own_spread
        else:
            step = {site: own_mean[site] - mean[site] for site in own_mean}
            share = count * tokens / both
            spread = {s: spread[s] + own_spread[s] + step[s] ** 2 * share for s in step}
            mean = {s: mean[s] + step[s] * tokens / both for s in step}
        count = both
    return mean, {site: value / count for site, value in spread.items()}


@functools.partial(jax.jit, static_argnums=0)
def _moments(config: Any, params: Any, batch: Examples) -> tuple[jax.Array, Any, Any]:
    """Number of tokens, and {site: mean, and sum of squared deviations `[L, W]`} of every node."""
    tokens, last = batch.tokens[:, 0], batch.positions[:, -1]
    captured = apply(config, params, tokens, capture=config.sites).captured
    real = (jnp.arange(tokens.shape[1])[None, :] <= last[:, None])[None, :, :, None]
    count = jnp.sum(real)
    means, spreads = {}, {}
    for site in config.sites:
        means[site] = jnp.sum(jnp.where(real, captured[site], 0.0), axis=(1, 2)) / count
        apart = jnp.where(real, captured[site] - means[site][:, None, None, :], 0.0)
        spreads[site] = jnp.sum(apart**2, axis=(1, 2))
    return count, means, spreads
