"""From trained scores of weights to the fewest open weights that do the task.

The open ones are ranked by backward elimination on training pairs; the others follow, by effective
score (the least of their own and both ends'), ties by attribution. The first k of a ranking are a
candidate: what they leave of dead paths is closed as well, and its loss is taken raw and calibrated.
The search over k is that of node masks, among the open weights if these meet the target.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.reduced import can_reduce
from circuitjax.model.transformer import Gates
from circuitjax.prune.eliminate import eliminate, enough, open_first
from circuitjax.prune.evaluate import Answers
from circuitjax.prune.gates import tie
from circuitjax.prune.masks import Choice, cut, first_pairs
from circuitjax.prune.objective import AnyPairs, Pairs, logit_differences
from circuitjax.prune.packing import packed_batches, uneven_batches
from circuitjax.prune.problem import Problem
from circuitjax.prune.select import rank_nodes
from circuitjax.prune.train import MaskState
from circuitjax.prune.weight_gates import (
    WeightData,
    WeightIndex,
    reduce_weights,
    weight_differences,
    weight_logits,
    whole_weights,
)
from circuitjax.prune.weight_paths import kept_paths, real_gates
from circuitjax.prune.weight_trial import WeightTrial
from circuitjax.prune.weights import WeightMasks, closed_v, weight_task_loss

__all__ = [
    "WeightChoice",
    "WeightProber",
    "choose_weights",
    "choose_weights_from_rankings",
    "rank_weights",
    "weight_attribution",
]

_SMALLEST = 512  # weights of the smallest reduced model: below, another program costs more


def weight_attribution(
    objective: WeightMasks, state: MaskState, data: WeightData, pairs: Pairs
) -> np.ndarray:
    """Derivative of the task loss by each weight's gate at one job's trained hard state: `[E]`."""
    z, gates = _hard(objective, state.tau, data)
    total = np.zeros(objective.total)
    for batch in uneven_batches(pairs, objective.config.causal):
        total += np.asarray(_gradient(objective, data, batch, z, gates)) * batch.size
    return total / pairs.size


def _hard(objective: WeightMasks, tau: Any, data: WeightData) -> tuple[jax.Array, Gates]:
    z = (tau["weights"] > 0).astype(jnp.float32)
    nodes = data.index.entered(objective.config, z)
    if objective.node_gates:
        kept = tie({site: (t > 0).astype(jnp.float32) for site, t in tau["nodes"].items()})
        nodes = {site: entered * kept[site] for site, entered in nodes.items()}
    return closed_v(data, z, nodes)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(
    objective: WeightMasks, data: WeightData, batch: AnyPairs, z: jax.Array, gates: Gates
) -> jax.Array:
    return jax.grad(
        lambda gate: weight_task_loss(
            objective.config, objective.prune, data, gate, dict(gates), batch
        )
    )(z)


def rank_weights(
    objective: WeightMasks, state: MaskState, data: WeightData, pairs: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """Orders one job's weights by their scores.

    Returns:
      Ranks `[E]`, padding last, and bool `[E]`, which weights are open after training.
    """
    scores = state.tau["weights"]
    if objective.node_gates:
        nodes = tie(state.tau["nodes"])
        for end in ("source", "target"):
            scores = jnp.minimum(scores, data.index.at_ends(nodes, end))
    scores = np.where(real_gates(data.index), np.asarray(scores), -np.inf)
    return rank_nodes(scores, weight_attribution(objective, state, data, pairs)), scores > 0


@functools.partial(jax.jit, static_argnums=0)
def _whole_answers(
    config: TransformerConfig, data: WeightData, batch: AnyPairs, z: jax.Array, gates: Gates
) -> tuple[jax.Array, jax.Array]:
    logits = weight_logits(config, data, z, gates, batch)
    log_probs = jax.nn.log_softmax(logits)
    vocabulary = -jnp.take_along_axis(log_probs, batch.answers[..., None], axis=-1)[..., 0]
    return logit_differences(logits, batch.answers), vocabulary


_few_answers = jax.jit(weight_differences, static_argnums=0)


class WeightProber:
    """Answers of "the first k weights of a ranking", for several rankings over any pairs.

    On CPU a small k runs through a model reduced to the nodes that the first so many weights of any
    ranking reach; the gates within it are traced, so each of a few sizes compiles once.
    """

    def __init__(
        self,
        problem: Problem,
        index: WeightIndex,
        base: Mapping[str, np.ndarray],
        fills: Mapping[str, np.ndarray],
        rankings: Sequence[np.ndarray],
        *,
        reduce: bool | None = None,
    ) -> None:
        """Takes the rankings; reduced models are folded when first needed.

        Args:
          problem: model and data.
          index: where the gates sit in the whole model.
          base: {site: bool `[L, W]`}, nodes that may be kept.
          fills: {site: `[L, W]`} of closed nodes and the means of closed weights.
          rankings: each `[E]`, 0 is the most important weight.
          reduce: None reduces on CPU where an exact reduction exists; False never.
        """
        if reduce is None:
            reduce = jax.default_backend() == "cpu"
        reduce = reduce and can_reduce(problem.config) and problem.prune.loss == "binary"
        self._problem, self._index, self._rankings = problem, index, rankings
        self._base, self._fills = dict(base), dict(fills)
        self.size = int(real_gates(index).sum())
        nodes = sum(int(np.sum(kept)) for kept in base.values())
        steps = [self.size // 64, self.size // 16, self.size // 4]
        if 2 * nodes < problem.config.num_nodes:  # the start itself is a small model
            steps.append(self.size)
        self._sizes = [size for size in steps if size >= min(_SMALLEST, self.size)]
        if not reduce:
            self._sizes = []
        self._models: dict[int, WeightData] = {}

    def mask(self, ranking: int, k: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """`kept_paths` of the first k weights."""
        return kept_paths(
            self._problem.config, self._index, self._rankings[ranking] < k, self._base
        )

    def nodes(self, ranking: int, k: int) -> dict[str, np.ndarray]:
        """The nodes {site: bool `[L, W]`} that the first k weights keep."""
        return self.mask(ranking, k)[1]

    def _model_for(self, k: int) -> WeightData:
        size = next((size for size in self._sizes if k <= size), 0)
        if size not in self._models:
            self._models[size] = self._build(size)
        return self._models[size]

    def _build(self, size: int) -> WeightData:
        problem = self._problem
        if not size:
            return whole_weights(problem.params, self._fills, self._base, self._index)
        found = [self.mask(ranking, size) for ranking in range(len(self._rankings))]
        opened = np.any([z for z, _ in found], axis=0)
        mask = {site: np.any([m[site] for _, m in found], axis=0) for site in self._base}
        params = jax.tree.map(np.asarray, dict(problem.params))
        return reduce_weights(problem.config, params, self._fills, mask, self._index, opened)

    def answers(self, pairs: Pairs, ranking: int, ks: Sequence[int]) -> Answers:
        """Answers of the first k weights of a ranking to M pairs, for each k `[K]`."""
        rows = []
        batches, places = packed_batches(pairs, self._problem.config.causal)
        for k in ks:
            z, mask = self.mask(ranking, int(k))
            gates = {site: jnp.asarray(kept, jnp.float32) for site, kept in mask.items()}
            data, opened, parts = self._model_for(int(k)), jnp.asarray(z, jnp.float32), []
            for batch in batches:
                if data.reduced is None:
                    parts.append(_whole_answers(self._problem.config, data, batch, opened, gates))
                else:
                    few = _few_answers(self._problem.config, data, opened, gates, batch)
                    parts.append((few, jnp.zeros_like(few)))
            columns = zip(*jax.device_get(parts), strict=True)
            rows.append([np.concatenate(part)[places] for part in columns])
        return Answers(*(np.stack(column) for column in zip(*rows, strict=True)))


@dataclasses.dataclass(frozen=True)
class WeightChoice:
    """What was chosen for one ranking.

    Attributes:
      choice: kept nodes, calibration and curve; its k count weights before dead paths are closed.
      opened: bool `[E]`, the open weights.
    """

    choice: Choice
    opened: np.ndarray


def choose_weights(
    problem: Problem,
    objective: WeightMasks,
    state: MaskState,
    data: WeightData,
    start: tuple[WeightIndex, Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
) -> list[WeightChoice]:
    """Ranks every job's weights and cuts at the smallest k that meets the target on validation.

    Args:
      problem: model, task, data sets.
      objective: what was trained.
      state: J trained jobs.
      data: what they were trained on.
      start: where gates sit in the whole model, nodes that may be kept, and fills.
    """
    ties, pairs = first_pairs(problem.validation), first_pairs(problem.train)
    rankings, trained = [], []
    for number in range(int(state.step.shape[0])):
        job = jax.tree.map(lambda leaf, i=number: leaf[i], state)
        ranks, opened = rank_weights(objective, job, data, ties)
        trial = WeightTrial(problem, *start, pairs)
        opened = enough(trial, ranks, opened, problem.prune.target_loss)
        order = eliminate(trial, opened, problem.prune.target_loss)
        rankings.append(open_first(ranks, order))
        trained.append(len(order))
    return choose_weights_from_rankings(problem, WeightProber(problem, *start, rankings), trained)


def choose_weights_from_rankings(
    problem: Problem, prober: WeightProber, trained: Sequence[int]
) -> list[WeightChoice]:
    """Cuts each ranking of a prober: among its first `trained` weights or, if need be, among all."""
    found = []
    for number, count in enumerate(trained):
        for size in (count, prober.size):
            choice = cut(
                problem.prune,
                problem.validation,
                prober,
                number,
                max(size, 1),
                count,
                functools.partial(prober.nodes, number),
            )
            if choice.reached:
                break
        found.append(WeightChoice(choice, prober.mask(number, choice.selection.k)[0]))
    return found
