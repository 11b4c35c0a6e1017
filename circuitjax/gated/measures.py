"""What a model or a circuit answers, as numbers: every metric of the package, each of them once.

With logits z at the answer position, p = softmax(z), right completions S and wrong ones W,

    odds                    logsumexp of z over S  -  logsumexp of z over W        (nats)
    task loss               softplus(-odds); for one right and one wrong completion the binary loss
    vocabulary loss         -log of the sum of p over S                            (nats)
    logit difference        mean of z over S  -  mean of z over W                  (nats)
    probability difference  sum of p over S   -  sum of p over W                   (-1 to 1)
    KL                      sum over V of q (log q - log p), q the full model's p  (nats)
    agreement               whether argmax of z is argmax of the full model's z

A scale > 0 and a shift calibrate the odds of a pair: scale * odds + shift after its first prompt, and
scale * odds - shift after its second, so that the shift favours one completion over the other.

Axis letters: M examples, P positions, V vocabulary, R right and R' wrong completions, K circuits.
Completions are padded with -1, which counts for nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated.examples import Batch

__all__ = [
    "agreement",
    "calibrated_odds",
    "kl_divergence",
    "logit_difference",
    "mean_task_loss",
    "odds_of",
    "probability_difference",
    "task_losses",
    "vocabulary_losses",
]


def odds_of(values: jax.Array, batch: Batch) -> jax.Array:
    """Log odds `[M]` of the right completions, from the logits `[M, R + R']` of both."""
    count = batch.right.shape[-1]

    def total(part: jax.Array, tokens: jax.Array) -> jax.Array:
        if tokens.shape[-1] == 1:
            return part[..., 0]
        return jax.nn.logsumexp(part, axis=-1, where=tokens >= 0)

    return total(values[..., :count], batch.right) - total(values[..., count:], batch.wrong)


def task_losses(odds: jax.Array) -> jax.Array:
    """Loss of each example in nats, shaped as the odds."""
    return jax.nn.softplus(-odds)


def mean_task_loss(odds: np.ndarray) -> np.ndarray:
    """Mean loss `[...]` in nats from odds `[..., M]`, on the host."""
    return np.asarray(np.mean(np.logaddexp(0.0, -np.asarray(odds)), axis=-1))


def calibrated_odds(odds: Any, scale: Any, shift: Any) -> Any:
    """Odds `[..., M]` of pairs under a scale and a shift `[...]`; where the odds are, the result is."""
    numbers = np if isinstance(odds, np.ndarray) else jnp
    sides = numbers.tile(numbers.array([1.0, -1.0], odds.dtype), odds.shape[-1] // 2)
    scale, shift = (numbers.expand_dims(numbers.asarray(x), -1) for x in (scale, shift))
    return scale * odds + shift * sides


def vocabulary_losses(logits: jax.Array, batch: Batch) -> jax.Array:
    """-log of the probability of the right completions `[M]`, from logits `[M, P, V]`."""
    found = jnp.take_along_axis(logits[:, 0], jnp.maximum(batch.right, 0), axis=-1)
    if batch.right.shape[-1] == 1:
        return jax.nn.logsumexp(logits[:, 0], axis=-1) - found[..., 0]
    found = jax.nn.logsumexp(found, axis=-1, where=batch.right >= 0)
    return jax.nn.logsumexp(logits[:, 0], axis=-1) - found


def kl_divergence(logits: jax.Array, full: jax.Array) -> jax.Array:
    """KL(full || circuit) in nats `[M]`, the mean over positions, from `[M, P, V]` each.

    A token that the full model holds to be impossible (-inf) contributes nothing.
    """
    circuit, whole = jax.nn.log_softmax(logits), jax.nn.log_softmax(full)
    possible = whole > -jnp.inf
    ratio = jnp.where(possible, whole, 0.0) - jnp.where(possible, circuit, 0.0)
    return jnp.mean(jnp.sum(jnp.exp(whole) * ratio, axis=-1), axis=-1)


def agreement(logits: jax.Array, full: jax.Array) -> jax.Array:
    """bool `[M]`: whether both find the same token most probable at the first position."""
    return jnp.argmax(logits[:, 0], axis=-1) == jnp.argmax(full[:, 0], axis=-1)


def _both(values: jax.Array, batch: Batch, mean: bool) -> jax.Array:
    parts = []
    for tokens in (batch.right, batch.wrong):
        found = jnp.take_along_axis(values, jnp.maximum(tokens, 0), axis=-1)
        total = jnp.sum(jnp.where(tokens >= 0, found, 0.0), axis=-1)
        parts.append(total / jnp.sum(tokens >= 0, axis=-1) if mean else total)
    return parts[0] - parts[1]


def logit_difference(logits: jax.Array, batch: Batch) -> jax.Array:
    """Mean logit of the right completions minus that of the wrong `[M]`, in nats."""
    return _both(logits[:, 0], batch, mean=True)


def probability_difference(logits: jax.Array, batch: Batch) -> jax.Array:
    """Probability of the right completions minus that of the wrong `[M]`, from -1 to 1."""
    return _both(jax.nn.softmax(logits[:, 0], axis=-1), batch, mean=False)
