"""The layers of a reduced model: each at about its own widths, and only where its answers are needed.

Tokens influence each other in attention only. So above the last layer whose heads attend, and in its
own queries and neurons, nothing but the tokens that are asked for is worked out.

Axis letters as in `reduced.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from circuitjax.model import layers
from circuitjax.model.config import TransformerConfig
from circuitjax.model.layout import Layout
from circuitjax.model.reduced import Reduced
from circuitjax.model.transformer import Gates
from circuitjax.model.widths import Stretch, Widths, narrow

__all__ = ["PER_TOKEN", "Outside", "run_layers"]

# {"attn" or "mlp": (sum, sum of squares), each `[L, B, T, 1]`} of the residual channels that are
# not carried, as that block's norm finds them.
Outside = Mapping[str, tuple[jax.Array, jax.Array]]

# Arrays of a layer that may differ from token to token, `[L, B, T, W']`: see `reduced_tokens.py`.
PER_TOKEN = (
    *(f"{name}.{of}" for name in "qkv" for of in ("bias", "fill")),
    *(f"{block}.{site}.fill" for block in ("attn", "mlp") for site in ("act_in", "resid_delta")),
    *("mlp_in_bias", "post_act.fill", "attn_out_bias", "mlp_out_bias"),
)
_OF_KEYS = ("attn.act_in.fill", "k.bias", "k.fill", "v.bias", "v.fill")


class _Around(NamedTuple):
    """What a block needs to know of the tokens `[B, P]` that x holds, beside x.

    Attributes:
      places: concatenated positions `[B, P, d_position]`, or None.
      slots: int32 `[B, P]`, where in their rows they are; None: everywhere, in order.
      visible: bool `[B, P, T]`, what each sees; None: as the config says.
      keys: T.
    """

    places: jax.Array | None
    slots: jax.Array | None
    visible: jax.Array | None
    keys: int

    def at(self, positions: jax.Array) -> "_Around":
        """Of the tokens at `[B, P']` only; x holds all T so far."""
        places, visible = (
            None if part is None else layers.take_positions(part, positions)
            for part in (self.places, self.visible)
        )
        return self._replace(places=places, slots=positions, visible=visible)


def _linear(
    config: TransformerConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """`layers.linear`, where the width read may be 0: the bias alone. It may be `[B, T, W]`."""
    if kernel.shape[0] == 0:
        return jnp.broadcast_to(bias, (*x.shape[:-1], bias.shape[-1]))
    if bias.ndim == 3:
        return layers.linear(config, x, kernel, None) + bias
    return layers.linear(config, x, kernel, bias)


def _node(
    layer: Mapping[str, jax.Array], gates: Gates, name: str, site: str, value: jax.Array
) -> jax.Array:
    """Applies a further gate `[W]` over original nodes to reduced activations `[B, T, W']`."""
    gate = gates.get(site)
    if gate is None:
        return value
    gate = jnp.where(layer[f"{name}.real"], gate[layer[f"{name}.index"]], 1.0)
    return layers.replace_closed(value, gate, layer[f"{name}.fill"])


def _normalise(
    config: TransformerConfig,
    x: jax.Array,
    params: Mapping[str, jax.Array],
    outside: tuple[jax.Array, jax.Array] | None,
) -> jax.Array:
    """`layers.normalise` of x `[B, T, S]`, where D - S more channels have the moments `outside`."""
    if outside is None or config.norm == "none":
        return layers.normalise(config, x, params)
    total, squares = outside
    if config.norm == "layer":
        mean = (jnp.sum(x, axis=-1, keepdims=True) + total) / config.d_model
        others = config.d_model - x.shape[-1]
        x, squares = x - mean, squares - mean * (2 * total - others * mean)
    eps = config.norm_eps
    if eps is None:
        eps = 1e-5 if config.norm == "layer" else float(jnp.finfo(jnp.float32).eps)
    squares = squares + jnp.sum(x * x, axis=-1, keepdims=True)
    x = x * lax.rsqrt(squares / config.d_model + eps) * params["scale"][None, None, :]
    return x + params["bias"][None, None, :] if "bias" in params else x


def _read(
    config: TransformerConfig,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    block: str,
    x: jax.Array,
    places: jax.Array | None,
    outside: tuple[jax.Array, jax.Array] | None,
) -> jax.Array:
    """The normalised channels `[B, T, R]` that a block reads of x `[B, T, S]`."""
    x = _normalise(config, x, layers.norm_params(layer, f"{block}_norm"), outside)
    if places is not None:
        places = layers.normalise(
            config, places, layers.norm_params(layer, f"{block}_position_norm")
        )
        x = jnp.concatenate([x, places], axis=-1)
    x = jnp.take(x, layer[f"{block}.act_in.index"], axis=-1)
    return _node(layer, gates, f"{block}.act_in", f"{block}.act_in", x)


def _write(
    config: TransformerConfig,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    block: str,
    x: jax.Array,
    hidden: jax.Array,
) -> jax.Array:
    delta = _linear(config, hidden, layer[f"{block}_out"], layer[f"{block}_out_bias"])
    x = x + _node(layer, gates, f"{block}.resid_delta", f"{block}.resid_delta", delta)
    if config.residual_activation == "relu":
        x = jax.nn.relu(x)
    return layers.keep_largest(config, x, f"resid.post_{block}")


def _at_queries(layer: Mapping[str, jax.Array], positions: jax.Array) -> dict[str, jax.Array]:
    """What differs from token to token, but for what keys and values need, at some positions."""
    return {
        name: layers.take_positions(value, positions)
        if name in PER_TOKEN and name not in _OF_KEYS and value.ndim == 3
        else value
        for name, value in layer.items()
    }


def _steady(
    config: TransformerConfig, sinks: jax.Array, x: jax.Array, around: _Around
) -> jax.Array:
    """What heads give to tokens, rather than to their sinks, if all scores are 0: `[B, P, H"]`."""
    if around.visible is not None:
        seen = jnp.sum(around.visible, axis=-1)
    else:
        slots = jnp.arange(around.keys)[None] if around.slots is None else around.slots
        seen = jnp.broadcast_to(slots + 1 if config.causal else around.keys, x.shape[:2])
    return jax.nn.sigmoid(jnp.log(seen.astype(x.dtype))[..., None] - sinks[None, None, :])


def _block(
    config: TransformerConfig,
    widths: Widths,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    outside: Outside,
    x: jax.Array,
    around: _Around,
    positions: jax.Array | None = None,
) -> jax.Array:
    """One layer: x `[B, T, S]` to the same, or to `[B, P, S]` at `positions`.

    Where no head attends x may hold any tokens, as `around` and `outside` do.
    """
    here, after, beside_mlp = x, around, outside.get("mlp")
    if positions is not None:
        layer = _at_queries(layer, positions)
        here, after = layers.take_positions(x, positions), around.at(positions)
        if beside_mlp is not None:
            total, squares = (layers.take_positions(part, positions) for part in beside_mlp)
            beside_mlp = total, squares
    if widths.heads:
        read = _read(config, layer, gates, "attn", x, around.places, outside.get("attn"))
        asked = read if positions is None else layers.take_positions(read, positions)
        q, k, v = (
            _node(
                layer,
                gates,
                name,
                f"attn.{name}",
                _linear(config, value, layer[f"{name}.kernel"], layer[f"{name}.bias"]),
            )
            for name, value in (("q", asked), ("k", read), ("v", read))
        )
        small = dataclasses.replace(config, num_heads=widths.heads, d_head=widths.channels)
        if config.attention_scale is None:
            q = (
                q * (small.d_head / config.d_head) ** 0.5
            )  # the scores' scale is the original head's
        sinks = layer["attn_sink"] if config.attention_sinks else None
        mixed, _ = layers.attend(small, q, k, v, sinks, positions, after.visible)
    else:
        mixed = jnp.zeros((*here.shape[:2], 0), x.dtype)
    if widths.steady:
        shares = _steady(config, layer["steady_sink"], here, after)
        mixed = jnp.concatenate([mixed, shares], axis=-1)
        layer = {**layer, "attn_out": jnp.concatenate([layer["attn_out"], layer["steady_out"]])}
    x = _write(config, layer, gates, "attn", here, mixed)
    read = _read(config, layer, gates, "mlp", x, after.places, beside_mlp)
    hidden = _linear(config, read, layer["mlp_in"], layer["mlp_in_bias"])
    hidden = layers.activate(config, hidden)
    hidden = _node(layer, gates, "post_act", "mlp.post_act", hidden)
    return _write(config, layer, gates, "mlp", x, hidden)


def run_layers(
    reduced: Reduced,
    x: jax.Array,
    places: jax.Array | None,
    gates: Gates | None = None,
    positions: jax.Array | None = None,
    outside: Outside | None = None,
    layout: Layout | None = None,
    tokens: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """All layers: x `[B, T, S]` to the same, or to `[B, P, S]` at `positions` `[B, P]`.

    `tokens` holds what differs from token to token, each of `PER_TOKEN` `[L, B, T, W']`.
    """
    config = reduced.config
    visible = None if layout is None else layout.visible(config.causal)
    around = _Around(places, None, visible, x.shape[1])
    gates, outside, each = dict(gates or {}), dict(outside or {}), dict(tokens or {})

    def layers_of(part: Stretch) -> tuple[dict[str, jax.Array], Gates, Outside]:
        beside = jax.tree.map(lambda leaf: leaf[part.start : part.stop], (gates, outside))
        stack = narrow(reduced.stack, reduced.widths, part)
        return stack | narrow(each, reduced.widths, part, 3), *beside

    # Where answers are narrowed down to the tokens asked for: in the last layer that attends.
    turn = max([0, *(s.stop - 1 for s in reduced.stretches if s.widths.heads)])
    parts = reduced.stretches
    if positions is not None:
        parts = tuple(part for stretch in parts for part in stretch.split(turn))
    for part in parts:
        if positions is not None and part.start == turn:
            stack, own_gates, beside = jax.tree.map(lambda leaf: leaf[0], layers_of(part))
            x = _block(config, part.widths, stack, own_gates, beside, x, around, positions)
            around, slots = around.at(positions), positions[None, :, :, None]
            outside, each = jax.tree.map(
                lambda leaf, slots=slots: jnp.take_along_axis(leaf, slots, axis=2),
                (outside, each),
            )
            continue

        def step(
            x: jax.Array, layer: Any, widths: Widths = part.widths, around: _Around = around
        ) -> tuple[jax.Array, None]:
            stack, own_gates, beside = layer
            return _block(config, widths, stack, own_gates, beside, x, around), None

        x = lax.scan(step, x, layers_of(part))[0]
    return x
