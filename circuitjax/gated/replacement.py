"""What closed parts hold prompt by prompt: resampling and interchange, for every grain.

    interchange   the run on the example's own corrupted prompt
    resample      the run on one other prompt of the batch, the same for all parts: of equal length
                  where there is one, else aligned at the last token

Leaves of what a run held have sequences on axis 1 and tokens on axis 2.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.protocol import GatedModel, Held

__all__ = [
    "ABLATIONS",
    "Ablation",
    "Reference",
    "donors",
    "is_per_prompt",
    "needs_corrupted",
    "refer",
    "shifted",
]


class Reference(NamedTuple):
    """What a circuit is run with; a field is None where it was not asked for, or is the model's own.

    Attributes:
      full: the whole network's logits `[M, P, V]`.
      held: what closed parts hold.
      left: `[G]` in [0, 1], closed parts that are left in all the same.
      norms: factors of the norms of another run.
    """

    full: jax.Array | None
    held: Held
    left: jax.Array | None = None
    norms: Any = None


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
    """What each prompt's donor held `shift` `[M]` tokens further on, within its first and last."""

    def pick(leaf: jax.Array) -> jax.Array:
        places = jnp.arange(leaf.shape[2])[None, :] + shift[:, None]
        return leaf[:, donor[:, None], jnp.clip(places, 0, leaf.shape[2] - 1)]

    return jax.tree.map(pick, held)


def _partners(batch: Examples, key: jax.Array, held: Held) -> Held:
    """What the other prompt of each pair held; of corrupted prompts, what they held themselves."""
    del key
    if not batch.paired:
        return held
    partner = jnp.arange(batch.size) ^ 1
    return jax.tree.map(lambda leaf: leaf[:, partner], held)


def _resampled(batch: Examples, key: jax.Array, held: Held) -> Held:
    last = batch.positions[:, -1]
    chosen = donors(key, last)
    return shifted(held, chosen, last[chosen] - last)


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One answer to what a closed part holds.

    Attributes:
      held: (batch, key, what the network held on the batch's prompts) -> what closed parts hold; None
        where they hold constants of the gated model.
      corrupted: whether it is about the corrupted prompts.
      mixes: whether prompts of a batch depend on each other, so that it may not be taken apart.
    """

    held: Callable[[Examples, jax.Array, Held], Held] | None = None
    corrupted: bool = False
    mixes: bool = False


#: What a closed part can hold, by name: the one place to add another that differs from prompt to prompt.
#: Another constant is worked out in `nodes.constants` and `edges.fixed_writers` besides.
ABLATIONS: Mapping[str, Ablation] = MappingProxyType(
    {
        "mean": Ablation(),
        "zero": Ablation(),
        "resample": Ablation(_resampled, mixes=True),
        "interchange": Ablation(_partners, corrupted=True),
    }
)


def is_per_prompt(ablation: str) -> bool:
    """Whether closed parts hold something else in every prompt."""
    return ABLATIONS[ablation].held is not None


def needs_corrupted(ablation: str) -> bool:
    """Whether the task must have corrupted prompts."""
    return ABLATIONS[ablation].corrupted


def refer(model: GatedModel, batch: Batch, key: jax.Array, *, full: bool) -> Reference:
    """Runs the whole network on a batch, as far as a circuit's run needs it.

    Args:
      model: its ablation says what closed parts hold.
      batch: M examples; in rows of their own where replacements are per prompt.
      key: of the choice of donors.
      full: whether the logits are wanted.
    """
    ablation = ABLATIONS[model.ablation]
    if ablation.held is None:
        return Reference(model.full(batch) if full else None, None)
    assert isinstance(batch, Examples), "replacements per prompt take a row for each prompt"
    tokens, positions = batch.tokens[:, 0], batch.positions
    kept = slice(None)
    if ablation.corrupted and not batch.paired:  # both runs as one batch
        tokens = jnp.concatenate([tokens, batch.tokens[:, 1]])
        positions = jnp.concatenate([positions, positions])
        kept = slice(batch.size, None)
    logits, held = model.observed(tokens, positions, kept)
    return Reference(logits[: batch.size], model.needed(ablation.held(batch, key, held)))
