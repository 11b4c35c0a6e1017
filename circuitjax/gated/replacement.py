"""What closed parts hold prompt by prompt: resampling and interchange, for every grain.

    interchange   the run on the example's own corrupted prompt
    resample      the run on one other prompt of the batch, the same for all parts: of equal length
                  where there is one, else aligned at the last token

Leaves of what a run held have sequences on axis 1 and tokens on axis 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.protocol import PER_PROMPT, GatedModel, Held

__all__ = ["Reference", "donors", "refer", "shifted"]


class Reference(NamedTuple):
    """What a circuit is run with: the whole network's logits `[M, P, V]` and what closed parts hold.

    Either is None where it was not asked for, or is the gated model's own.
    """

    full: jax.Array | None
    held: Held


def donors(key: jax.Array, last: jax.Array) -> jax.Array:
    """For each prompt another one, int `[M]`: a random one of equal length, else any other.

    Args:
      key: of the choice.
      last: int `[M]`, where prompts end.
    """
    count = last.shape[0]
    rank = jax.random.uniform(key, (count, count))
    rank = rank + (last[:, None] != last[None, :]) + 2.0 * jnp.eye(count)
    return jnp.argmin(rank, axis=1)


def shifted(held: Held, donor: jax.Array, shift: jax.Array) -> Held:
    """What each prompt's donor held, `shift` `[M]` tokens further on; ends stand for what lies beyond."""

    def pick(leaf: jax.Array) -> jax.Array:
        places = jnp.arange(leaf.shape[2])[None, :] + shift[:, None]
        return leaf[:, donor[:, None], jnp.clip(places, 0, leaf.shape[2] - 1)]

    return jax.tree.map(pick, held)


def refer(model: GatedModel, batch: Batch, key: jax.Array, *, full: bool) -> Reference:
    """Runs the whole network on a batch, as far as a circuit's run needs it.

    Args:
      model: its ablation says what closed parts hold.
      batch: M examples; in rows of their own where replacements are per prompt.
      key: of the choice of donors.
      full: whether the logits are wanted.
    """
    if model.ablation not in PER_PROMPT:
        return Reference(model.full(batch) if full else None, None)
    assert isinstance(batch, Examples), "replacements per prompt take a row for each prompt"
    clean, positions = batch.tokens[:, 0], batch.positions
    if model.ablation == "interchange" and not batch.paired:
        both = jnp.concatenate([clean, batch.tokens[:, 1]])
        places = jnp.concatenate([positions, positions])
        logits, held = model.observed(both, places, slice(batch.size, None))
        return Reference(logits[: batch.size], held)
    logits, held = model.observed(clean, positions)
    if model.ablation == "interchange":
        partner = jnp.arange(batch.size) ^ 1
        return Reference(logits, jax.tree.map(lambda leaf: leaf[:, partner], held))
    last = positions[:, -1]
    chosen = donors(key, last)
    return Reference(logits, shifted(held, chosen, last[chosen] - last))
