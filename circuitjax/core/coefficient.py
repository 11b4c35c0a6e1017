"""A coefficient that rises while a loss is below its aim and falls, faster, while it is above.

    minimised     loss + c * size,   c = start * exp(m)
    after a step  m += RISE * (1 - loss / aim)    below the aim
                  m -= FALL * (loss - aim)        above it

So no coefficient need be known beforehand: the size falls until the loss is at its aim. The fall is
the faster one, since gates that are closed together in a few steps rarely find open ones again.
"""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["FALL", "LARGEST", "RISE", "SMALLEST", "ascend", "cost", "start"]

RISE = 0.04  # per step, with a loss of nothing
FALL = 0.5  # per step and nat
SMALLEST, LARGEST = -7.0, 4.0  # of m


def start() -> jax.Array:
    """m = 0: the coefficient's own start."""
    return jnp.zeros(())


def cost(
    m: jax.Array, coefficient: jax.Array, size: jax.Array, loss: jax.Array, aim: float | jax.Array
) -> jax.Array:
    """c * size, whose gradient by m is aim - loss: what `ascend` wants.

    Args:
      m: as trained.
      coefficient: where c starts.
      size: what is made small; the gradient passes through it.
      loss, aim: what is held where, in the same unit.
    """
    size = lax.stop_gradient(coefficient * jnp.exp(m)) * size
    return size + (m - lax.stop_gradient(m)) * (aim - lax.stop_gradient(loss))


def ascend(m: jax.Array, gradient: jax.Array, aim: float | jax.Array) -> jax.Array:
    """m after a step whose gradient is aim - loss."""
    moved = m + jnp.where(gradient > 0, RISE * gradient / aim, FALL * gradient)
    return jnp.clip(moved, SMALLEST, LARGEST)
