"""What a model says at the answer position, example by example, as the field measures it.

With logits z, p = softmax(z) over the whole vocabulary, right completions S and wrong ones W,

    logit difference        mean of z over S  -  mean of z over W      (nats)
    probability difference  sum of p over S   -  sum of p over W       (-1 to 1)
    accuracy                1 where max of z over S > max of z over W, else 0
    exact match             1 where argmax of z is argmax of the full model's z, else 0
    KL                      sum over V of q (log q - log p), q the full model's p  (nats)

Axis letters: `B` examples, `V` vocabulary, `R` right completions, `R'` wrong ones. Completions are
padded with -1, which counts for nothing; every example has at least one of each.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

__all__ = [
    "TASK_METRICS",
    "accuracy",
    "exact_match",
    "kl",
    "logit_difference",
    "probability_difference",
]


def _at(values: jax.Array, tokens: jax.Array, filler: float) -> jax.Array:
    """`values` `[B, V]` at `tokens` `[B, R]`, `filler` where the token is -1, in float32."""
    picked = jnp.take_along_axis(values, jnp.maximum(tokens, 0), axis=-1)
    return jnp.where(tokens >= 0, picked.astype(jnp.float32), filler)


def _mean(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    return jnp.sum(_at(logits, tokens, 0.0), axis=-1) / jnp.sum(tokens >= 0, axis=-1)


def logit_difference(logits: jax.Array, right: jax.Array, wrong: jax.Array) -> jax.Array:
    """Mean logit of the right completions minus that of the wrong, in nats.

    Args:
      logits: float `[B, V]`.
      right: int32 `[B, R]`, padded with -1.
      wrong: int32 `[B, R']`, padded with -1.

    Returns:
      float32 `[B]`: positive where the right ones are preferred.
    """
    return _mean(logits, right) - _mean(logits, wrong)


def probability_difference(logits: jax.Array, right: jax.Array, wrong: jax.Array) -> jax.Array:
    """Probability of the right completions together minus that of the wrong, from -1 to 1.

    Args:
      logits: float `[B, V]`.
      right: int32 `[B, R]`, padded with -1.
      wrong: int32 `[B, R']`, padded with -1.

    Returns:
      float32 `[B]`.
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    total_right = jnp.sum(_at(probabilities, right, 0.0), axis=-1)
    return total_right - jnp.sum(_at(probabilities, wrong, 0.0), axis=-1)


def accuracy(logits: jax.Array, right: jax.Array, wrong: jax.Array) -> jax.Array:
    """Whether the most probable of all right and wrong completions is a right one.

    Args:
      logits: float `[B, V]`.
      right: int32 `[B, R]`, padded with -1.
      wrong: int32 `[B, R']`, padded with -1.

    Returns:
      float32 `[B]`: 1 or 0; a tie of right and wrong is 0.
    """
    best_right = jnp.max(_at(logits, right, -jnp.inf), axis=-1)
    best_wrong = jnp.max(_at(logits, wrong, -jnp.inf), axis=-1)
    return (best_right > best_wrong).astype(jnp.float32)


def exact_match(logits: jax.Array, full_logits: jax.Array) -> jax.Array:
    """Whether the circuit's most probable token is the full model's.

    Args:
      logits: float `[B, V]`, the circuit's.
      full_logits: float `[B, V]`, the full model's.

    Returns:
      float32 `[B]`: 1 or 0; of equal logits the first token counts, in both.
    """
    return (jnp.argmax(logits, axis=-1) == jnp.argmax(full_logits, axis=-1)).astype(jnp.float32)


def kl(logits: jax.Array, full_logits: jax.Array) -> jax.Array:
    """KL(full || circuit) over the whole vocabulary, in nats.

    Args:
      logits: float `[B, V]`, the circuit's.
      full_logits: float `[B, V]`, the full model's; a token at -inf contributes nothing.

    Returns:
      float32 `[B]`: 0 for equal distributions, up to rounding.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    log_q = jax.nn.log_softmax(full_logits.astype(jnp.float32), axis=-1)
    possible = log_q > -jnp.inf
    ratio = jnp.where(possible, log_q, 0.0) - jnp.where(possible, log_p, 0.0)
    return jnp.sum(jnp.exp(log_q) * ratio, axis=-1)


#: The metrics by which a task may name its usual one.
TASK_METRICS: Mapping[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = (
    MappingProxyType(
        {
            "logit_difference": logit_difference,
            "probability_difference": probability_difference,
        }
    )
)
