"""Nodes that meet in products: which q and k, which gate and up can matter, in any architecture.

q and k meet channel by channel, and so do the gate and the up projection of a gated MLP: of two that
meet, one is dead where the other is closed at 0. What else follows depends on the description:

    rotary         channel i also meets its partner i +- dims/2; a closed k that is not 0 varies with
                   distance, so that q sees it as it sees an open one
    head norms     each channel scales all of its head, so a q matters if any k of the head is not 0
    plain softmax  a q against a constant k adds the same to all keys, and is ignored: not where there
                   is a sink, or a soft cap before the softmax
    shared heads   a k matters if it does for one of the query heads that read it

Everything is of one layer, on the host; axis letters as in `layers.py`.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from circuitjax.model import layers
from circuitjax.model.config import TransformerConfig

__all__ = ["alive_gates", "alive_matches", "constant_products"]

_Nodes = Mapping[str, np.ndarray]


def alive_matches(
    config: TransformerConfig, keep: _Nodes, fill: _Nodes, matters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kept q and k that can change a pattern that matters.

    Args:
      config: the model's.
      keep, fill: {site: `[W]`} of one layer, at least of `attn.q` and `attn.k`.
      matters: bool `[H]`, the query heads whose patterns matter.

    Returns:
      bool `[H*C]` and `[K*C]`.
    """
    queries, shared = (config.num_heads, config.d_head), (config.kv_heads, config.d_head)
    group = config.queries_per_kv
    q_open, q_fill = (np.asarray(tree["attn.q"]).reshape(queries) for tree in (keep, fill))
    k_open, k_fill = (
        np.repeat(np.asarray(tree["attn.k"]).reshape(shared), group, axis=0)
        for tree in (keep, fill)
    )
    seen_by_all = config.attention_sinks or config.attention_softcap is not None
    turned = np.zeros(config.d_head, bool)
    if config.rotary is not None:
        turned[: config.rotary.dims] = True
    varies = k_open | ((k_fill != 0) & (seen_by_all | turned))  # seen by a q of the same channel
    some = q_open | (q_fill != 0)
    if config.qk_norm:
        k_any = k_open | (k_fill != 0)
        varies = np.broadcast_to(k_any.any(axis=1, keepdims=True), varies.shape)
        some = np.broadcast_to(some.any(axis=1, keepdims=True), some.shape)
    elif config.rotary is not None:
        varies, some = (_or_partner(config.rotary.dims, value) for value in (varies, some))
    q = q_open & varies & matters[:, None]
    k = (
        (k_open & some & matters[:, None])
        .reshape(config.kv_heads, group, config.d_head)
        .any(axis=1)
    )
    return q.reshape(-1), k.reshape(-1)


def _or_partner(dims: int, value: np.ndarray) -> np.ndarray:
    """Whether it holds of a channel `[H, C]` or of the one it turns with."""
    half = dims // 2
    first, second, rest = value[:, :half], value[:, half:dims], value[:, dims:]
    return np.concatenate([first | second, first | second, rest], axis=1)


def alive_gates(
    config: TransformerConfig, keep: _Nodes, fill: _Nodes, products: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kept gate and up nodes that can change a product that is alive.

    Args:
      config: of a gated MLP.
      keep, fill: {site: `[F]`} of one layer, at least of `mlp.gate` and `mlp.up`.
      products: bool `[F]`, the alive nodes of `mlp.post_act`.

    Returns:
      bool `[F]`, twice.
    """
    up_seen = keep["mlp.up"] | (fill["mlp.up"] != 0)
    gate_seen = keep["mlp.gate"] | (_activated(config, fill["mlp.gate"]) != 0)
    return keep["mlp.gate"] & products & up_seen, keep["mlp.up"] & products & gate_seen


def constant_products(
    config: TransformerConfig, keep: _Nodes, fill: _Nodes
) -> tuple[np.ndarray, np.ndarray]:
    """Which products of gate and up are constant, and their values, both `[F]`.

    So are those of which both are closed, or one at 0.
    """
    gate, up = _activated(config, fill["mlp.gate"]), np.asarray(fill["mlp.up"], np.float32)
    gate_closed, up_closed = ~keep["mlp.gate"], ~keep["mlp.up"]
    zero = (gate_closed & (gate == 0)) | (up_closed & (up == 0))
    return (gate_closed & up_closed) | zero, np.where(zero, np.float32(0), gate * up)


def _activated(config: TransformerConfig, value: np.ndarray) -> np.ndarray:
    return np.asarray(layers.activate(config, jnp.asarray(value, jnp.float32)))
