"""Schedules whose lengths may be traced (optax's need static ones, which would recompile per job).

    linear(n) = min(1, (n + 1) / w) * (1 - max(0, n - h) / (N - h))

at step n, from 0, of N, with w = warmup_frac * N and h = max(w, hold_frac * N).
"""

import jax
import jax.numpy as jnp

__all__ = ["anneal_density", "warmup_linear_decay"]


def warmup_linear_decay(
    step: jax.Array,
    total: jax.Array | int,
    warmup_frac: jax.Array | float,
    hold_frac: jax.Array | float = 0.0,
) -> jax.Array:
    """Multiplier of the learning rate at a step: linear warm-up, a plateau, linear decay to 0.

    Args:
      step: index of the step about to be taken, from 0.
      total: number of steps in all.
      warmup_frac: fraction of the steps spent warming up, in [0, 1).
      hold_frac: fraction of the steps after which the decay begins, in [0, 1]; at once where it is below
        `warmup_frac`.
    """
    n = jnp.asarray(step, jnp.float32)
    warmup = warmup_frac * total
    rise = jnp.where(warmup > 0, jnp.minimum(1.0, (n + 1) / jnp.maximum(warmup, 1.0)), 1.0)
    held = jnp.maximum(warmup, hold_frac * total)
    fall = 1 - jnp.maximum(0.0, n - held) / jnp.maximum(total - held, 1.0)
    return rise * jnp.clip(fall, 0.0, 1.0)


def anneal_density(
    step: jax.Array, total: jax.Array | int, target: jax.Array | float, fraction: float = 0.5
) -> jax.Array:
    """Density (fraction of nonzero weights) after a step: from 1 linearly to `target`.

    Args:
      step: index of the step, from 0.
      total: number of steps in all.
      target: final density in (0, 1].
      fraction: share of the steps over which it falls (Gao et al. 2025, A.2: the first half).
    """
    progress = jnp.clip((step + 1) / jnp.maximum(fraction * total, 1.0), 0.0, 1.0)
    return 1 - (1 - target) * progress
