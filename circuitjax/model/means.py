"""Mean activations: what mean ablation puts in place of a closed node.

Per site, layer and channel, pooled over all tokens and positions of pretraining text (no padding),
accumulated in float64 on the host from float32 batch means, and taken from the very network that is
pruned, AbsTopK on.
"""

import functools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Params, apply

__all__ = ["MIN_TOKENS", "activation_means"]

MIN_TOKENS = 2**18


def activation_means(
    config: TransformerConfig, params: Params, rows: Iterable[np.ndarray]
) -> tuple[Mapping[str, np.ndarray], int]:
    """Averages activations over token rows.

    Args:
      config, params: the model.
      rows: int batches `[B, T]` of real tokens, every one of which counts.

    Returns:
      ({site: float32 `[L, W]`}, number of tokens).

    Raises:
      ValueError: fewer than `MIN_TOKENS` tokens in all.
    """
    totals: dict[str, np.ndarray] = {}
    tokens = 0
    for batch in rows:
        sums = _site_means(config, params, jnp.asarray(batch, jnp.int32))
        for site, value in sums.items():
            total = np.asarray(value, np.float64) * batch.size
            totals[site] = totals[site] + total if site in totals else total
        tokens += batch.size
    if tokens < MIN_TOKENS:
        raise ValueError(f"means over {tokens} tokens are too few: give at least {MIN_TOKENS}")
    return {site: (total / tokens).astype(np.float32) for site, total in totals.items()}, tokens


@functools.partial(jax.jit, static_argnames="config")
def _site_means(config: TransformerConfig, params: Params, tokens: jax.Array) -> Params:
    captured = apply(config, params, tokens, capture=config.sites).captured
    return {site: jnp.mean(value, axis=(1, 2)) for site, value in captured.items()}
