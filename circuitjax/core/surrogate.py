"""Heaviside step forward, sigmoid derivative backward (Gao et al. 2025, section 2.2 and A.5).

    forward   m = 1 if tau > 0 else 0
    backward  dm/dtau := s(tau / T) (1 - s(tau / T)) / T

where s is the logistic function and T the temperature.
"""

import jax
import jax.numpy as jnp

__all__ = ["heaviside", "surrogate_slope"]


def surrogate_slope(tau: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """The derivative that stands in for the step's: s(tau/T) (1 - s(tau/T)) / T."""
    x = tau / temperature
    # 1 - s(x) as s(-x): in float32 the former is 0 from x = 17 on, the latter symmetric.
    return jax.nn.sigmoid(x) * jax.nn.sigmoid(-x) / temperature


@jax.custom_vjp
def heaviside(tau: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Opens a gate where its parameter is positive.

    Args:
      tau: gate parameters, any shape. Exactly 0 is closed: a node must earn its place.
      temperature: `heaviside_temp` > 0, a scalar that may be traced; it shapes the gradient only.

    Returns:
      float array of 0s and 1s, shaped as `tau`. There is no gradient with respect to `temperature`
      and, as with every `custom_vjp`, no forward-mode derivative.
    """
    return (tau > 0).astype(tau.dtype)


def _forward(
    tau: jax.Array, temperature: jax.Array | float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array | float]]:
    return heaviside(tau, temperature), (tau, temperature)


def _backward(
    residuals: tuple[jax.Array, jax.Array | float], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    tau, temperature = residuals
    return cotangent * surrogate_slope(tau, temperature), jnp.zeros_like(temperature)


heaviside.defvjp(_forward, _backward)
