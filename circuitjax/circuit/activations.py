"""Activations of chosen nodes over rows of tokens, a few rows at a time.

Axis letters: R rows, T positions, n chosen nodes of a site.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.transformer import Fills, Gates, Params, apply

__all__ = ["kept_channels", "node_activations"]

_ROWS = 32  # at a time, at most
_MOST_VALUES = 2**26  # activations of all nodes held at a time: a quarter of a gibibyte


def kept_channels(
    config: TransformerConfig, mask: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{site of a layer, such as `0.attn.q`: channels that {site: bool `[L, W]`} keeps}."""
    return {
        f"{layer}.{site}": np.flatnonzero(mask[site][layer])
        for layer in range(config.num_layers)
        for site in SITES
    }


@functools.partial(jax.jit, static_argnums=0)
def _captured(
    config: TransformerConfig,
    params: Params,
    tokens: jax.Array,
    gates: Gates | None,
    fills: Fills | None,
) -> dict[str, jax.Array]:
    return apply(config, params, tokens, gates, fills, capture=SITES).captured


def node_activations(
    config: TransformerConfig,
    params: Params,
    rows: np.ndarray,
    kept: Mapping[str, np.ndarray],
    gates: Gates | None = None,
    fills: Fills | None = None,
) -> dict[str, np.ndarray]:
    """{site of a layer: float32 `[n, R, T]`}: what the nodes are before their gates.

    Args:
      config, params: the model.
      rows: int `[R, T]`, at least one row; padding on the right is harmless if causal.
      kept: {site of a layer: channels `[n]`}, as from `kept_channels`.
      gates, fills: of the run, as `transformer.apply` takes them.
    """
    count = max(1, min(_ROWS, _MOST_VALUES // (rows.shape[1] * config.num_nodes)))
    parts: dict[str, list[np.ndarray]] = {site: [] for site in kept}
    for start in range(0, len(rows), count):
        index = np.minimum(np.arange(start, start + count), len(rows) - 1)
        captured = _captured(config, params, jnp.asarray(rows[index], jnp.int32), gates, fills)
        held = {site: np.asarray(value) for site, value in captured.items()}
        for name, channels in kept.items():
            layer, _, site = name.partition(".")
            parts[name].append(np.moveaxis(held[site][int(layer)][..., channels], -1, 0))
    return {site: np.concatenate(found, axis=1)[:, : len(rows)] for site, found in parts.items()}
