"""Hard-concrete gates: stochastic in [0, 1], exactly 0 or 1 with positive probability.

    s = sigmoid((log u - log(1 - u) + log_alpha) / beta),   u uniform on (EPS, 1 - EPS)
    z = clip(s (HIGH - LOW) + LOW, 0, 1)                     (Louizos et al. 2018, eqs. 10 and 11)

The probability that a gate is open is P(z > 0) = sigmoid(log_alpha - beta log(-LOW / HIGH)), exact
but for EPS (eq. 12). Gradients flow through the sample; a clipped gate has none.
"""

import math

import jax
import jax.numpy as jnp

__all__ = ["BETA", "EPS", "HIGH", "LOW", "log_alpha_of", "mean_gate", "open_probability", "sample"]

BETA = 2 / 3
LOW, HIGH = -0.1, 1.1
EPS = 1e-6
_OFFSET = BETA * math.log(-LOW / HIGH)


def sample(key: jax.Array, log_alpha: jax.Array) -> jax.Array:
    """One gate per location parameter: float in [0, 1], shaped as `log_alpha`.

    Args:
      key: random key; the same key gives the same gates.
      log_alpha: location, any shape; large is open.
    """
    u = jax.random.uniform(key, log_alpha.shape, minval=EPS, maxval=1 - EPS)
    s = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_alpha) / BETA)
    return jnp.clip(s * (HIGH - LOW) + LOW, 0.0, 1.0)


def open_probability(log_alpha: jax.Array) -> jax.Array:
    """P(z > 0), elementwise; it rises with `log_alpha`."""
    return jax.nn.sigmoid(log_alpha - _OFFSET)


def mean_gate(log_alpha: jax.Array) -> jax.Array:
    """The gate without noise: the stretched, clipped sigmoid of `log_alpha` (eq. 13)."""
    return jnp.clip(jax.nn.sigmoid(log_alpha) * (HIGH - LOW) + LOW, 0.0, 1.0)


def log_alpha_of(probability: float) -> float:
    """The location parameter whose gate is open with that probability.

    Raises:
      ValueError: not strictly between 0 and 1.
    """
    if not 0 < probability < 1:
        raise ValueError(f"the probability is {probability}; it must be in (0, 1)")
    return math.log(probability / (1 - probability)) + _OFFSET
