"""Mask training: AdamW on the mask parameters of J jobs as one compiled program.

    state, metrics = train_chunk(state)      scan over steps, map over jobs, donated state

One step: draw a batch with `fold_in(key, step)`, differentiate the pruning loss through the
surrogate, clip the gradient's RMS to 1, AdamW, linear decay, clamp (Gao et al. 2025, A.5).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from circuitjax.core.jobs import map_jobs, scan_steps
from circuitjax.core.schedules import warmup_linear_decay
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Fills, Params
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.prune.gates import Tau, clamp, init_tau
from circuitjax.prune.objective import Pairs, pruning_loss

__all__ = ["MaskState", "init_jobs", "make_train_chunk"]

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class MaskState:
    """One job's state, or J jobs' with a leading axis on every leaf.

    Attributes:
      tau: mask parameters {site: `[L, W]`}.
      adam: first and second moments.
      step: int32, steps taken.
      key: raw uint32 random key of the job; never advanced.
      hyper: the job's hyperparameters.
    """

    tau: Tau
    adam: Any
    step: jax.Array
    key: jax.Array
    hyper: Hyper


def _adam(hyper: Hyper) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=0.9, b2=1 - hyper.inv_beta2, eps=1e-8)


def init_jobs(
    seeds: jax.Array, config: TransformerConfig, prune: PruneConfig, hypers: Hyper
) -> MaskState:
    """States before the first step, from seeds int32 `[J]` and hyperparameters `[J]`."""

    def one(seed: jax.Array, hyper: Hyper) -> MaskState:
        key = jax.random.key(seed)
        tau = init_tau(jax.random.fold_in(key, 0), config, hyper, prune.tie_qk)
        data_key = jax.random.key_data(jax.random.fold_in(key, 1))
        return MaskState(tau, _adam(hyper).init(tau), jnp.zeros((), jnp.int32), data_key, hyper)

    return jax.jit(jax.vmap(one))(jnp.asarray(seeds, jnp.uint32), hypers)


def _mean_over_slices(loss_of: Callable[..., Any], tau: Tau, batch: Pairs) -> Any:
    """Value and gradient of a mean over pairs, worked out a slice of the batch at a time on CPU.

    A slice's activations stay in cache. On an accelerator, which wants large batches, there is one
    slice. Slices differ in rounding only.
    """
    count = 4 if jax.default_backend() == "cpu" and batch.size % 4 == 0 else 1
    if count == 1:
        return jax.value_and_grad(loss_of, has_aux=True)(tau, batch)
    slices = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    parts = lax.map(lambda some: jax.value_and_grad(loss_of, has_aux=True)(tau, some), slices)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), parts)


@functools.lru_cache(maxsize=16)
def make_train_chunk(
    config: TransformerConfig, prune: PruneConfig
) -> Callable[..., tuple[MaskState, Metrics]]:
    """Compiled `(state [J], length, params, fills, pairs) -> (state [J], metrics [J, length])`.

    `length` is static; params, fills `[L, W]` and the training pairs are shared by all jobs. Metrics:
    `loss`, `task` (nats), `k` (nodes), `gradient_rms`. The same arguments give the same compiled
    program, so a sweep over tasks compiles once.
    """

    def one_step(
        state: MaskState, params: Params, fills: Fills, pairs: Pairs
    ) -> tuple[MaskState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        batch = pairs.take(jax.random.randint(key, (prune.batch_size,), 0, pairs.size))

        def loss_of(tau: Tau, some: Pairs) -> tuple[jax.Array, Metrics]:
            return pruning_loss(config, prune, params, tau, state.hyper, fills, some)

        (loss, parts), gradient = _mean_over_slices(loss_of, state.tau, batch)
        size = sum(leaf.size for leaf in jax.tree.leaves(gradient))
        rms = optax.tree.norm(gradient) / size**0.5
        gradient = jax.tree.map(lambda g: g / jnp.maximum(rms, 1.0), gradient)
        updates, adam = _adam(state.hyper).update(gradient, state.adam)
        decay = warmup_linear_decay(state.step, prune.steps, state.hyper.lr_warmup_frac)
        rate = state.hyper.lr * decay
        tau = jax.tree.map(lambda t, u: t - rate * (u + state.hyper.wd * t), state.tau, updates)
        state = dataclasses.replace(state, tau=clamp(tau), adam=adam, step=state.step + 1)
        return state, {"loss": loss, **parts, "gradient_rms": rms}

    def chunk(
        state: MaskState, length: int, params: Params, fills: Fills, pairs: Pairs
    ) -> tuple[MaskState, Metrics]:
        def job(job_state: MaskState) -> tuple[MaskState, Metrics]:
            return scan_steps(lambda s: one_step(s, params, fills, pairs), job_state, length)

        return map_jobs(job)(state)

    return jax.jit(chunk, static_argnums=1, donate_argnums=0)
