"""Activations of chosen nodes over rows of tokens, a few rows at a time.

Axis letters: R rows, M examples, T positions, n chosen nodes of a site.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import View
from circuitjax.gated.replacement import refer
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Params, apply

__all__ = ["circuit_activations", "kept_channels", "node_activations"]

_ROWS = 32  # at a time, at most; even, so that pairs stay together
_MOST_VALUES = 2**26  # activations of all nodes held at a time: a quarter of a gibibyte

Captured = Mapping[str, jax.Array]


def kept_channels(
    config: TransformerConfig, mask: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{site of a layer, such as `0.attn.q`: channels that {site: bool `[L, W]`} keeps}."""
    return {
        f"{layer}.{site}": np.flatnonzero(mask[site][layer])
        for layer in range(config.num_layers)
        for site in config.sites
    }


@functools.partial(jax.jit, static_argnums=0)
def _captured(config: TransformerConfig, params: Params, tokens: jax.Array) -> Captured:
    return apply(config, params, tokens, capture=config.sites).captured


@jax.jit
def _captured_in_circuit(model: Any, gates: jax.Array, batch: Examples) -> Captured:
    held = refer(model, batch, jax.random.key(0), full=False).held
    found = apply(
        model.config,
        model.params,
        batch.tokens[:, 0],
        model.tree(gates),
        model.held if held is None else held,
        capture=model.config.sites,
    )
    return found.captured


def node_activations(
    config: TransformerConfig, params: Params, rows: np.ndarray, kept: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What nodes are in the whole model, {site of a layer: float32 `[n, R, T]`}.

    Args:
      config, params: the model.
      rows: int `[R, T]`, at least one row; padding on the right is harmless if causal.
      kept: {site of a layer: channels `[n]`}, as from `kept_channels`.
    """
    count = _rows_at_a_time(config, rows.shape[1])

    def runs() -> Iterator[Captured]:
        for start in range(0, len(rows), count):
            index = np.minimum(np.arange(start, start + count), len(rows) - 1)
            yield _captured(config, params, jnp.asarray(rows[index], jnp.int32))

    return {site: found[:, : len(rows)] for site, found in _chosen(runs(), kept).items()}


def circuit_activations(
    view: View, examples: Examples, kept: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What nodes are within a circuit, before their own gates: {site of a layer: `[n, M, T]`}.

    Args:
      view: the circuit as gates on nodes, `circuit.parts(model)["nodes"]`.
      examples: M of them, whose clean prompts are looked at.
      kept: as for `node_activations`.
    """
    model, gates = view.model, jnp.asarray(view.gates, jnp.float32)
    count = max(2, _rows_at_a_time(model.config, examples.tokens.shape[-1]) // 2 * 2)
    items, examples = count // examples.unit, examples.on_host()
    starts = range(0, examples.items, items)
    batches = (examples.take(np.arange(s, min(s + items, examples.items))) for s in starts)
    return _chosen((_captured_in_circuit(model, gates, batch) for batch in batches), kept)


def _rows_at_a_time(config: TransformerConfig, length: int) -> int:
    return max(1, min(_ROWS, _MOST_VALUES // (length * config.num_nodes)))


def _chosen(runs: Iterator[Captured], kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {site: [] for site in kept}
    for captured in runs:
        held = {site: np.asarray(value) for site, value in captured.items()}
        for name, channels in kept.items():
            layer, _, site = name.partition(".")
            parts[name].append(np.moveaxis(held[site][int(layer)][..., channels], -1, 0))
    return {site: np.concatenate(found, axis=1) for site, found in parts.items()}
