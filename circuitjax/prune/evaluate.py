"""Evaluation of hard circuits: what many candidate masks answer on a fixed set of pairs.

The unit of work is one mask on one batch, a single compiled program for every stage of a run. On CPU
masks follow one another; on an accelerator they are mapped side by side. Everything after that (loss,
accuracy, calibration) is arithmetic on the cached answers.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.reduced import Reduced, can_reduce, reduce_model
from circuitjax.model.transformer import Fills, Gates, Params
from circuitjax.model.widths import Widths, widest
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.gates import Tau, flatten_units, gates_from_ranks, gates_of, num_units, tie
from circuitjax.prune.objective import (
    AnyPairs,
    Pairs,
    answer_logits,
    logit_differences,
    reduced_logits,
    task_loss,
)
from circuitjax.prune.packing import packed_batches, uneven_batches
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import MaskState

__all__ = [
    "Answers",
    "Prober",
    "answers",
    "attribution",
    "gate_gradient",
    "mean_binary_loss",
    "probers",
]

_MASKS = 8  # masks side by side on an accelerator


class Answers(NamedTuple):
    """What K masks answer to M pairs.

    Attributes:
      differences: `[K, M, 2]`, see `objective.logit_differences`; on the host, as the vocabulary's.
      vocabulary: `[K, M, 2]`, loss of each prompt over the whole vocabulary, in nats.
    """

    differences: np.ndarray
    vocabulary: np.ndarray

    def losses(self, prune: PruneConfig) -> np.ndarray:
        """Mean task loss `[K]` in nats, of the kind the configuration asks for."""
        if prune.loss == "binary":
            return mean_binary_loss(self.differences)
        return np.mean(self.vocabulary, axis=(1, 2))


def mean_binary_loss(values: np.ndarray) -> np.ndarray:
    """Mean loss `[...]` in nats from differences `[..., M, 2]`, on the host."""
    losses = np.logaddexp(0.0, np.asarray(values) * np.array([-1.0, 1.0], np.float32))
    return np.asarray(np.mean(losses, axis=(-2, -1)))


def _answer(
    config: TransformerConfig, params: Params, fills: Fills, batch: AnyPairs, gates: Gates
) -> tuple[jax.Array, jax.Array]:
    logits = answer_logits(config, params, batch, gates, fills)
    log_probs = jax.nn.log_softmax(logits)
    vocabulary = -jnp.take_along_axis(log_probs, batch.answers[..., None], axis=-1)[..., 0]
    return logit_differences(logits, batch.answers), vocabulary


_one = jax.jit(_answer, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _several(
    config: TransformerConfig, params: Params, fills: Fills, batch: AnyPairs, gates: Gates
) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda mask: _answer(config, params, fills, batch, mask))(gates)


def answers(
    problem: Problem,
    pairs: Pairs,
    masks: Sequence[Mapping[str, Any]],
    fills: Fills | None = None,
    *,
    side_by_side: bool | None = None,
) -> Answers:
    """Runs K masks over all pairs.

    Args:
      problem: model.
      pairs: M of them.
      masks: K gate trees {site: `[L, W]`} of numbers or booleans.
      fills: replacements of closed nodes; None means the problem's.
      side_by_side: True maps masks in groups, False runs one after another; None chooses by backend.
    """
    fills = problem.fills if fills is None else fills
    if side_by_side is None:
        side_by_side = jax.default_backend() != "cpu"
    group = min(_MASKS, len(masks)) if side_by_side else 1
    trees = [{s: np.asarray(m, np.float32) for s, m in mask.items()} for mask in masks]
    results = []
    batches, places = packed_batches(pairs, problem.config.causal)
    for start in range(0, len(trees), group):
        chosen = [trees[min(start + i, len(trees) - 1)] for i in range(group)]
        stacked = {site: np.stack([tree[site] for tree in chosen]) for site in chosen[0]}
        parts = []
        for batch in batches:
            if group > 1:
                several = _several(problem.config, problem.params, fills, batch, stacked)
                parts.append(jax.device_get(several))
            else:
                part = _one(problem.config, problem.params, fills, batch, chosen[0])
                parts.append(tuple(value[None] for value in jax.device_get(part)))
        results.append(tuple(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))
    whole = (np.concatenate(part)[: len(trees), places] for part in zip(*results, strict=True))
    return Answers(*whole)


class Prober:
    """Answers of "the first k units of a ranking", for several rankings over any pairs.

    On CPU, where arithmetic is what costs, a small k runs through a smaller model: for each of a few
    sizes, the nodes that any ranking puts among its first so many are folded, once, into a reduced
    model (exact; see `model.reduced`), and the mask within it is traced. So a handful of programs is
    compiled whatever the number of rankings, k and rounds.
    """

    def __init__(
        self,
        problem: Problem,
        rankings: Sequence[np.ndarray],
        *,
        reduce: bool | None = None,
        memory: AnswerMemory | None = None,
        room: Callable[[int], Widths] | None = None,
    ) -> None:
        """Takes the rankings; reduced models are folded when first needed.

        Args:
          problem: model and replacement values.
          rankings: each `[U]`, 0 is the most important unit.
          reduce: None reduces on CPU where an exact reduction exists; False never.
          memory: of answers under the same model and replacement values; added to.
          room: how wide the reduced model of so many units is at least.
        """
        if reduce is None:
            reduce = jax.default_backend() == "cpu" and can_reduce(problem.config)
        reduce = reduce and problem.prune.loss == "binary"
        self._problem, self._rankings, self._memory = problem, rankings, memory
        self._reduced: dict[int, Reduced] = {}
        self._room = room
        units = num_units(problem.config, problem.prune.tie_qk)
        self._sizes = (units // 64, units // 16, units // 4) if reduce else ()

    def _mask(self, ranking: int, k: int) -> dict[str, np.ndarray]:
        ranks = jnp.asarray(self._rankings[ranking])
        gates = gates_from_ranks(self._problem.config, ranks, k, self._problem.prune.tie_qk)
        return {site: np.asarray(m) for site, m in gates.items()}

    def _model_for(self, k: int) -> Reduced | None:
        size = next((size for size in self._sizes if k <= size), None)
        if size is None:
            return None
        if size not in self._reduced:
            room = None if self._room is None else self._room(size)
            self._reduced[size] = self._fold(size, room)
        return self._reduced[size]

    def widths(self, size: int) -> Widths:
        """Of the reduced model of the first so many units of every ranking."""
        return self._fold(size).widths

    def _fold(self, size: int, room: Widths | None = None) -> Reduced:
        masks = [self._mask(index, size) for index in range(len(self._rankings))]
        keep = {site: np.any([m[site] > 0.5 for m in masks], axis=0) for site in masks[0]}
        params, fills = (
            jax.tree.map(np.asarray, dict(tree))
            for tree in (self._problem.params, self._problem.fills)
        )
        return reduce_model(self._problem.config, params, keep, fills, at_least=room)

    def answers(self, pairs: Pairs, ranking: int, ks: Sequence[int]) -> Answers:
        """Answers of the first k units of a ranking to M pairs, for each k `[K]`."""
        if self._memory is None:
            return self._look(pairs, ranking, ks)
        found = self._memory.answers(
            self._rankings[ranking], pairs, ks, lambda missing: self._look(pairs, ranking, missing)
        )
        return Answers(*found)

    def _look(self, pairs: Pairs, ranking: int, ks: Sequence[int]) -> Answers:
        masks = [self._mask(ranking, int(k)) for k in ks]
        small = [self._model_for(int(k)) for k in ks]
        if all(model is None for model in small):
            return answers(self._problem, pairs, masks)
        batches, places = packed_batches(pairs, self._problem.config.causal)
        parts = []
        for mask, model in zip(masks, small, strict=True):
            if model is None:
                parts.append(answers(self._problem, pairs, [mask]).differences)
                continue
            rows = jax.device_get([_reduced_differences(model, batch, mask) for batch in batches])
            parts.append(np.concatenate(rows)[None, places])
        values = np.concatenate(parts)
        return Answers(values, np.zeros_like(values))


def probers(problems: Sequence[Problem], rankings: Sequence[np.ndarray]) -> Iterator[Prober]:
    """One for each problem and its ranking `[U]`, in turn, in reduced models of the same few shapes.

    So they share compiled programs, and none is slowed down by what only another's ranking keeps open.
    """
    alone = [Prober(problem, [own]) for problem, own in zip(problems, rankings, strict=True)]

    @functools.cache
    def room(size: int) -> Widths:
        return widest([prober.widths(size) for prober in alone])

    for problem, own in zip(problems, rankings, strict=True):
        yield Prober(problem, [own], room=room)


@jax.jit
def _reduced_differences(reduced: Reduced, batch: AnyPairs, gates: Gates) -> jax.Array:
    logits = reduced_logits(reduced, batch, gates, candidates=True)
    return logits[..., 0] - logits[..., 1]


def attribution(problem: Problem, state: MaskState, pairs: Pairs) -> np.ndarray:
    """Derivative of the task loss by each gate at one job's trained state: `[U]`.

    It is taken at the hard gates themselves, not through the surrogate: to first order, what opening
    a closed node (or closing an open one) would do to the loss, in nats.
    """
    hard = {site: m for site, m in gates_of(state.tau, 1.0).items() if site in state.tau}
    return gate_gradient(problem, hard, pairs)


def gate_gradient(problem: Problem, gates: Tau, pairs: Pairs) -> np.ndarray:
    """Derivative of the mean task loss by each gate, in nats: `[U]`.

    Args:
      problem: model, replacement values, kind of loss.
      gates: {site: `[L, W]`} where it is taken, of any value; without `attn.k` where q and k are tied.
      pairs: M of them, all of equal weight.
    """
    total = np.zeros(num_units(problem.config, problem.prune.tie_qk))
    prune = PruneConfig(loss=problem.prune.loss)  # the rest would only make more programs
    for batch in uneven_batches(pairs, problem.config.causal):
        gradient = _gate_gradient(
            problem.config, prune, problem.params, problem.fills, batch, gates
        )
        total += np.asarray(gradient) * batch.size
    return total / pairs.size


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gate_gradient(
    config: TransformerConfig,
    prune: PruneConfig,
    params: Params,
    fills: Fills,
    batch: AnyPairs,
    gates: Tau,
) -> jax.Array:
    def loss_of(hard: Tau) -> jax.Array:
        logits = answer_logits(config, params, batch, tie(hard), fills)
        return task_loss(prune, logits, batch.answers)

    return flatten_units(jax.grad(loss_of)(gates))
