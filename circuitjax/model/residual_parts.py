"""The parts of `residual_graph.py`: what readers make of their reads, as pure functions of arrays.

Axis letters as in `layers.py`; R readers, W writers.
"""

import jax
import jax.numpy as jnp

from circuitjax.model import layers
from circuitjax.model.attention import Places, mix
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Params

__all__ = [
    "at",
    "attention_writes",
    "extra_channels",
    "final_logits",
    "first_writes",
    "head_outputs",
    "mlp_output",
    "normed_write",
    "read",
    "write_heads",
]


def first_writes(config: TransformerConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """What writers before the layers write: `[1 or 2, B, T, D]`."""
    embedded = layers.embed(config, params["embed"], tokens)[None]
    if config.position != "learned":
        return embedded
    places = params["positions"][None, None, : tokens.shape[1]]
    return jnp.concatenate([embedded, jnp.broadcast_to(places, embedded.shape)])


def extra_channels(
    config: TransformerConfig, params: Params, layer: Params, block: str, length: int
) -> jax.Array | None:
    """Concatenated position channels `[1, 1, T, P]` of a read, or None."""
    if config.position != "concatenated":
        return None
    places = params["positions"][None, None, :length]
    return layers.normalise(config, places, layers.norm_params(layer, f"{block}_position_norm"))


def read(
    config: TransformerConfig,
    layer: Params,
    block: str,
    x: jax.Array,
    extra: jax.Array | None,
) -> jax.Array:
    """x `[R, B, T, D]` as R readers see it: normalised, positions appended, AbsTopK."""
    x = layers.normalise(config, x, layers.norm_params(layer, f"{block}_norm"))
    if extra is not None:
        x = jnp.concatenate([x, jnp.broadcast_to(extra, (*x.shape[:3], extra.shape[-1]))], axis=-1)
    return layers.keep_largest(config, x, f"{block}.act_in")


def head_outputs(
    config: TransformerConfig,
    layer: Params,
    reads: jax.Array,
    places: Places,
    positions: jax.Array | None,
) -> jax.Array:
    """Outputs `[H, B, P, D]` of a layer's heads from their reads `[H + 2 K, B, T, D_in]`."""
    heads, shared, width = config.num_heads, config.kv_heads, config.d_head
    readers, batch, length, inputs = reads.shape
    names = ("attn_q", "attn_k", "attn_v")
    kernel = jnp.concatenate([layer[name].reshape(inputs, -1, width) for name in names], axis=1)
    rows = reads.reshape(readers, batch * length, inputs)
    parts = jnp.matmul(rows, kernel.swapaxes(0, 1), precision=jax.lax.Precision.HIGHEST)
    if config.biases:
        bias = [layer[f"{name}_bias"].reshape(-1, 1, width) for name in names]
        parts = parts + jnp.concatenate(bias)
    parts = parts.reshape(readers, batch, length, width)
    q, k, v = (
        jnp.moveaxis(part, 0, 2).reshape(batch, length, -1)
        for part in jnp.split(parts, (heads, heads + shared))
    )
    if positions is not None:
        q = layers.take_positions(q, positions)
    q, k, v = (
        layers.keep_largest(config, x, f"attn.{name}")
        for name, x in zip("qkv", (q, k, v), strict=True)
    )
    mixed, _ = mix(config, layer, q, k, v, places, positions)
    asked = mixed.shape[1]
    mixed = mixed.reshape(batch, asked, heads, width).swapaxes(1, 2)
    return write_heads(config, layer["attn_out"], mixed)


def write_heads(config: TransformerConfig, kernel: jax.Array, mixed: jax.Array) -> jax.Array:
    """What each head writes, `[H, B, P, D]`, from mixed values `[B, H, P, C]`."""
    batch, heads, asked, width = mixed.shape
    rows = mixed.swapaxes(0, 1).reshape(heads, batch * asked, width)
    kernel = kernel.reshape(heads, width, config.d_model)
    out = jnp.matmul(rows, kernel, precision=jax.lax.Precision.HIGHEST)
    return out.reshape(heads, batch, asked, config.d_model)


def normed_write(
    config: TransformerConfig, layer: Params, block: str, write: jax.Array
) -> jax.Array:
    """What a norm after the block makes of parts `[W, B, P, D]` that together are its write.

    The norm's factor is that of their sum, so the results add up to the norm of the sum. The parts are
    not wholly their own then: each is scaled by what all of them are.
    """
    if not config.post_norms:
        return write
    total = jnp.sum(write, axis=0, keepdims=True)
    scale = layer[f"{block}_post_norm_scale"][None, None, None, :]
    return write * layers.norm_factor(config, total) * scale


def attention_writes(
    config: TransformerConfig, layer: Params, heads: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """What heads `[H, B, P, D]` write, and their bias, which belongs to none of them, or None."""
    bias = layer["attn_out_bias"][None, None, None, :] if config.biases else None
    if not config.post_norms or bias is None:
        return normed_write(config, layer, "attn", heads), bias
    together = jnp.concatenate([heads, jnp.broadcast_to(bias, heads[:1].shape)])
    together = normed_write(config, layer, "attn", together)
    return together[:-1], together[-1:]


def mlp_output(config: TransformerConfig, layer: Params, read: jax.Array) -> jax.Array:
    """Output of an MLP, as `read` `[1, B, T, D_in]` but D wide."""

    def project(name: str) -> jax.Array:
        return layers.linear(config, read, layer[name], layer.get(f"{name}_bias"))

    if config.gated_mlp:
        gate = layers.keep_largest(config, project("mlp_gate"), "mlp.gate")
        up = layers.keep_largest(config, project("mlp_up"), "mlp.up")
        hidden = layers.gated(config, gate, up)
    else:
        hidden = layers.activate(config, project("mlp_in"))
    hidden = layers.keep_largest(config, hidden, "mlp.post_act")
    out = layers.linear(config, hidden, layer["mlp_out"], layer.get("mlp_out_bias"))
    out = layers.keep_largest(config, out, "mlp.resid_delta")
    return normed_write(config, layer, "mlp", out)


def at(x: jax.Array, positions: jax.Array | None) -> jax.Array:
    """x `[W, B, T, D]` at positions `[B, P]`; a replacement that is the same everywhere stays."""
    if positions is None or x.shape[2] == 1:
        return x
    index = jnp.broadcast_to(positions[None, :, :, None], (1, *positions.shape, 1))
    if x.shape[1] == 1:
        x = jnp.broadcast_to(x, (x.shape[0], positions.shape[0], *x.shape[2:]))
    return jnp.take_along_axis(x, index, axis=2)


def final_logits(
    config: TransformerConfig,
    params: Params,
    x: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    """Logits of the last reader's x `[B, P, D]`."""
    x = layers.normalise(config, x, layers.norm_params(params, "final_norm"))
    kernel = params["embed"].T if config.tied_unembedding else params["unembed"]
    logits = layers.cap_logits(config, layers.linear(config, x, kernel))
    if config.final_bias:
        logits = logits + params["final_bias"][None, None, :]
    if config.bigram:
        last = jnp.take_along_axis(tokens, positions, axis=1)
        logits = logits + jnp.asarray(params["bigram"])[last]
    return logits
