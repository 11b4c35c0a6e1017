"""Evaluation of hard circuits: logit differences of many candidate masks over a fixed set of pairs.

    differences[K, M, 2]   for K masks and M pairs, as one compiled program

Everything that follows (loss, accuracy, calibration) is arithmetic on these cached differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.core.jobs import map_jobs
from circuitjax.model.config import TransformerConfig
from circuitjax.model.reduced import Reduced, apply_reduced, can_reduce, reduce_model
from circuitjax.model.transformer import Fills, Gates, Params
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.gates import flatten_units, gates_from_ranks, gates_of, tie
from circuitjax.prune.objective import (
    Pairs,
    answer_logits,
    binary_losses,
    logit_differences,
    task_loss,
)
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import MaskState

__all__ = ["attribution", "batches", "differences", "full_losses", "mean_binary_loss", "probe"]

_BATCH = 64  # pairs per forward pass of an evaluation; bounds memory, not results


def batches(pairs: Pairs, size: int = _BATCH) -> Pairs:
    """`[M, ...]` to `[M / size, size, ...]`; M is cut to a multiple only by the last, repeated, pair.

    Callers drop the surplus: results are taken for the first M pairs.
    """
    count = -(-pairs.size // size)
    index = jnp.minimum(jnp.arange(count * size), pairs.size - 1).reshape(count, size)
    return pairs.take(index)


@functools.partial(jax.jit, static_argnames="config")
def differences(
    config: TransformerConfig, params: Params, fills: Fills, pairs: Pairs, gates: Gates
) -> jax.Array:
    """Logit differences `[K, M, 2]` under gates {site: `[K, L, W]`}."""
    parts = batches(pairs)

    def one_mask(mask: Gates) -> jax.Array:
        def one_batch(batch: Pairs) -> jax.Array:
            logits = answer_logits(config, params, batch, mask, fills)
            return logit_differences(logits, batch.answers)

        return lax.map(one_batch, parts).reshape(-1, 2)[: pairs.size]

    return map_jobs(one_mask)(gates)


@functools.partial(jax.jit, static_argnames=("config", "prune"))
def full_losses(
    config: TransformerConfig,
    prune: PruneConfig,
    params: Params,
    fills: Fills,
    pairs: Pairs,
    gates: Gates,
) -> jax.Array:
    """Mean task loss `[K]` in nats under gates {site: `[K, L, W]`}, for either kind of loss."""
    if prune.loss == "binary":
        return mean_binary_loss(differences(config, params, fills, pairs, gates))
    whole = jax.tree.map(lambda leaf: leaf[None], pairs)

    def one_mask(mask: Gates) -> jax.Array:
        def one_batch(batch: Pairs) -> jax.Array:
            return task_loss(
                prune, answer_logits(config, params, batch, mask, fills), batch.answers
            )

        return jnp.mean(lax.map(one_batch, whole))

    return map_jobs(one_mask)(gates)


def mean_binary_loss(values: jax.Array) -> jax.Array:
    """Mean loss `[...]` in nats from differences `[..., M, 2]`."""
    return jnp.mean(binary_losses(values), axis=(-2, -1))


def probe(
    problem: Problem,
    pairs: Pairs,
    ranks: np.ndarray,
    ks: np.ndarray,
    *,
    reduce: bool | None = None,
) -> jax.Array:
    """Differences `[K, M, 2]` of the circuits of the first k units, for each k in `ks` `[K]`.

    Args:
      problem: model and replacement values.
      pairs: what to evaluate on.
      ranks: `[U]`, 0 is the most important unit.
      ks: candidates.
      reduce: True runs each candidate as the smaller model that its open nodes make (exact, and the
        fewer nodes the quicker); False runs all candidates side by side through the whole model;
        None reduces on CPU, where arithmetic is what costs, and not on an accelerator.
    """
    config, tie_qk = problem.config, problem.prune.tie_qk
    if reduce is None:
        reduce = jax.default_backend() == "cpu" and can_reduce(config)
    ranks = jnp.asarray(ranks)
    if not reduce:
        ks = jnp.asarray(ks, jnp.int32)
        return _probe(config, tie_qk, problem.params, problem.fills, pairs, ranks, ks)
    params, fills = (jax.tree.map(np.asarray, dict(t)) for t in (problem.params, problem.fills))
    values = []
    for k in ks:
        gates = gates_from_ranks(config, ranks, int(k), tie_qk)
        keep = {site: np.asarray(m) > 0.5 for site, m in gates.items()}
        values.append(_reduced_differences(reduce_model(config, params, keep, fills), pairs))
    return jnp.stack(values)


@functools.partial(jax.jit, static_argnames=("config", "tie_qk"))
def _probe(config, tie_qk, params, fills, pairs, ranks, ks):
    gates = jax.vmap(lambda k: gates_from_ranks(config, ranks, k, tie_qk))(ks)
    return differences(config, params, fills, pairs, gates)


@jax.jit
def _reduced_differences(reduced: Reduced, pairs: Pairs) -> jax.Array:
    def one_batch(batch: Pairs) -> jax.Array:
        size, _, length = batch.tokens.shape
        logits = apply_reduced(
            reduced,
            batch.tokens.reshape(size * 2, length),
            positions=batch.last.reshape(size * 2, 1),
            candidates=jnp.repeat(batch.answers, 2, axis=0),
        ).reshape(size, 2, 2)
        return logits[..., 0] - logits[..., 1]

    return lax.map(one_batch, batches(pairs)).reshape(-1, 2)[: pairs.size]


def attribution(problem: Problem, state: MaskState, pairs: Pairs) -> jax.Array:
    """Derivative of the task loss by each gate at one job's trained state: `[U]`.

    It is taken at the hard gates themselves, not through the surrogate: to first order, what opening
    a closed node (or closing an open one) would do to the loss, in nats.
    """
    return _attribution(
        problem.config, problem.prune, problem.params, problem.fills, pairs, state.tau
    )


@functools.partial(jax.jit, static_argnames=("config", "prune"))
def _attribution(config, prune, params, fills, pairs, tau):
    hard = {site: m for site, m in gates_of(tau, 1.0).items() if site in tau}

    def loss_of(gates, batch):
        logits = answer_logits(config, params, batch, tie(gates), fills)
        return task_loss(prune, logits, batch.answers)

    gradients = lax.map(lambda batch: jax.grad(loss_of)(hard, batch), batches(pairs))
    return flatten_units(jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients))
