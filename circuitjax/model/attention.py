"""From the nodes q, k and v to what heads mix: norms of heads, rotary positions, windows, softmax.

Layers may differ in their frequencies and windows (Gemma), so these are arrays `[L, ...]` that are
scanned beside the parameters; `Places` is one layer's. Axis letters as in `layers.py`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model import layers
from circuitjax.model.config import TransformerConfig
from circuitjax.model.layout import Layout
from circuitjax.model.rotary import turn

__all__ = ["Places", "layer_traits", "mix", "places_of"]


class Places(NamedTuple):
    """Where tokens stand, and what that means in one layer.

    Attributes:
      places: int32 `[B, T]` or `[1, T]`, positions in their prompts.
      frequencies: `[dims / 2]`, or None if positions turn nothing.
      window: int, how many tokens one sees; 0 is no limit, None if no layer has one.
    """

    places: jax.Array
    frequencies: jax.Array | None
    window: jax.Array | None


def layer_traits(config: TransformerConfig) -> dict[str, jax.Array]:
    """What differs from layer to layer beside parameters: {name: `[L, ...]`}, as `places_of` takes."""
    traits: dict[str, jax.Array] = {}
    windows = config.windows or (0,) * config.num_layers
    if config.rotary is not None:
        local = config.local_rotary or config.rotary
        kinds = [(local if window else config.rotary).frequencies() for window in windows]
        traits["frequencies"] = jnp.asarray(np.stack(kinds))
    if any(windows):
        traits["window"] = jnp.asarray(windows, jnp.int32)
    return traits


def places_of(
    length: int, layout: Layout | None = None, traits: Mapping[str, jax.Array] | None = None
) -> Places:
    """`Places` of T tokens in order, or as a layout says, in the layer of these traits."""
    places = jnp.arange(length, dtype=jnp.int32)[None] if layout is None else layout.places
    traits = traits or {}
    return Places(places, traits.get("frequencies"), traits.get("window"))


def mix(
    config: TransformerConfig,
    params: Mapping[str, jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    places: Places,
    positions: jax.Array | None = None,
    visible: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Attention of gated nodes.

    Args:
      config: the model's.
      params: the layer's: `attn_sink`, `attn_q_norm_scale`, `attn_k_norm_scale` where it has them.
      q: `[B, P, H*C]`. k, v: `[B, T, K*C]`.
      places: where the T tokens stand.
      positions: the queries' slots `[B, P]`; None means P = T, in order.
      visible: bool `[B, P, T]`, what each query sees, windows apart; None means as the config says.

    Returns:
      Output `[B, P, H*C]` and pattern `[B, H, P, T]`.
    """
    asked = places.places
    if positions is not None:
        every = jnp.broadcast_to(asked, (q.shape[0], asked.shape[1]))
        asked = jnp.take_along_axis(every, positions, axis=1)
    if config.qk_norm:
        q = _head_norm(config, q, config.num_heads, params["attn_q_norm_scale"])
        k = _head_norm(config, k, config.kv_heads, params["attn_k_norm_scale"])
    if places.frequencies is not None:
        q = turn(q, config.num_heads, asked, places.frequencies)
        k = turn(k, config.kv_heads, places.places, places.frequencies)
    if places.window is not None:
        far = asked[:, :, None] - places.places[:, None, :]
        near = (far < places.window) | (places.window == 0)
        if visible is None:
            slots = jnp.arange(k.shape[1])[None]
            own = slots if positions is None else positions
            visible = slots[:, None, :] <= own[:, :, None]
        visible = visible & near
    return layers.attend(config, q, k, v, params.get("attn_sink"), positions, visible)


def _head_norm(config: TransformerConfig, x: jax.Array, heads: int, scale: jax.Array) -> jax.Array:
    """RMSNorm of each head of x `[B, T, heads * C]`, with one scale `[C]` for all."""
    by_head = x.reshape(*x.shape[:2], heads, -1)
    by_head = layers.rms(config, by_head) * scale[None, None, None, :]
    return by_head.reshape(x.shape)
