"""Keep the k entries of largest magnitude, by bisecting a threshold instead of sorting.

For non-negative floats the order of the values is the order of their bit patterns, so the k-th
largest magnitude is found exactly by bisecting an integer: at most 31 passes of "compare and
count", and fewer as soon as every row has exactly k entries above its threshold. On CPU that is
many times faster than `lax.top_k`, and k may be traced (`top_k` needs a static one).
"""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["abs_top_k", "top_magnitude_mask"]


def top_magnitude_mask(x: jax.Array, k: jax.Array | int, axes: tuple[int, ...]) -> jax.Array:
    """Where the k largest magnitudes along `axes` (taken together) are.

    Args:
      x: float32 or bfloat16 array, finite.
      k: how many to keep per slice; an integer >= 0, static or traced.
      axes: the axes that are ranked together; the others are independent slices.

    Returns:
      bool array shaped as `x`. Entries tied with the k-th are all kept; exact zeros never are.
    """
    bits = lax.bitcast_convert_type(jnp.abs(lax.stop_gradient(x)).astype(jnp.float32), jnp.int32)
    k = jnp.asarray(k, jnp.int32)

    def unsettled(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        low, high = carry
        return jnp.any(high - low > 1)

    def halve(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Invariant: count(bits >= low) >= k > count(bits >= high), or the slice is settled.
        low, high = carry
        middle = low + (high - low) // 2
        count = jnp.sum(bits >= middle, axis=axes, keepdims=True, dtype=jnp.int32)
        low = jnp.where(count >= k, middle, low)
        high = jnp.where(count < k, middle, jnp.where(count == k, middle + 1, high))
        return low, high

    high = jnp.max(bits, axis=axes, keepdims=True) + 1
    low = jnp.where(k > 0, jnp.zeros_like(high), high)  # k = 0 keeps nothing
    low, _ = lax.while_loop(unsettled, halve, (low, high))
    return (bits >= low) & (bits > 0)


def abs_top_k(x: jax.Array, k: int) -> jax.Array:
    """AbsTopK: zeroes all but the k largest magnitudes of the last axis (Gao et al. 2025, A.1).

    The gradient flows through the kept entries only.
    """
    if k >= x.shape[-1]:
        return x
    return jnp.where(top_magnitude_mask(x, k, axes=(-1,)), x, jnp.zeros_like(x))
