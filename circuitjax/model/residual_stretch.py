"""A few neighbouring layers of the residual graph, as one scan.

Unrolled, a deep model is slow to compile, and every reader copies all writers before it; one scan over
all layers would multiply by the writers that are yet to come. So layers are cut into stretches. A
stretch begins with what its readers read of all writers before it, one product for each block of these,

    acc[r] = sum over blocks of  z_(block -> r) (y - r_block)

and within it each layer adds what it writes to the readers that follow in the stretch: a sum that
autodiff need not keep, as it is linear. Axis letters as in `layers.py`; W writers, R readers, S layers
of a stretch.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from circuitjax.model.attention import layer_traits, places_of
from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_parts import (
    attention_writes,
    extra_channels,
    head_outputs,
    mlp_output,
    read,
)
from circuitjax.model.transformer import Params

if TYPE_CHECKING:
    from circuitjax.model.residual_graph import Edges, Writers

__all__ = ["pull", "run_stretch", "stretches"]

_LONGEST = 8  # layers: a longer stretch compiles once for more of them, and multiplies more zeros


def stretches(count: int) -> list[tuple[int, int]]:
    """Cuts so many layers into the fewest stretches of about equal length, none above `_LONGEST`."""
    parts = -(-count // _LONGEST)
    borders = [count * part // parts for part in range(parts + 1)] if parts else []
    return list(itertools.pairwise(borders))


def pull(gate: jax.Array, blocks: Sequence[jax.Array]) -> jax.Array:
    """Reads `[R, B, T, D]` by gates `[R, W]` of blocks `[W_b, B, T, D]`, whose W_b add up to W."""
    total, start = None, 0
    for block in blocks:
        part = gate[:, start : start + len(block)]
        flat = jnp.matmul(part, block.reshape(len(block), -1), precision=jax.lax.Precision.HIGHEST)
        total = flat if total is None else total + flat
        start += len(block)
    assert total is not None
    return total.reshape(gate.shape[0], *blocks[0].shape[1:])


def _inner_gates(
    config: TransformerConfig, stretch: tuple[int, int], edges: "Edges"
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Gates of a stretch's readers `[S R_l]`, R_l = H + 2K + 1 of a layer.

    Returns:
      Of all writers before it `[S R_l, W]`; of each layer's H + 1 writers on all of its readers,
      zero where these come no later, `[S, S R_l, H + 1]`; of each layer's heads on its own MLP
      `[S, 1, H]`, None in parallel blocks.
    """
    start, stop = stretch
    own, before = config.num_heads + 1, edges.qkv[start].shape[1]
    rows = [
        jnp.concatenate([edges.qkv[index], edges.mlp[index][:, : edges.qkv[index].shape[1]]])
        for index in range(start, stop)
    ]
    outer = jnp.concatenate([row[:, :before] for row in rows])
    wide = before + own * (stop - start)
    padded = [jnp.pad(row, ((0, 0), (0, wide - row.shape[1])))[:, before:] for row in rows]
    inner = jnp.concatenate(padded).reshape(-1, stop - start, own)
    if config.parallel:
        return outer, inner.swapaxes(0, 1), None
    heads = [edges.mlp[index][:, edges.qkv[index].shape[1] :] for index in range(start, stop)]
    return outer, inner.swapaxes(0, 1), jnp.stack(heads)


def run_stretch(
    config: TransformerConfig,
    params: Params,
    stretch: tuple[int, int],
    edges: "Edges",
    replacement: "Writers",
    base: jax.Array,
    blocks: Sequence[jax.Array],
    length: int,
) -> tuple[jax.Array, jax.Array]:
    """Runs layers from `start` to before `stop`.

    Args:
      config, params: the model.
      stretch: (start, stop).
      edges: all gates.
      replacement: r of every writer.
      base: `[1, B, T, D]`, the sum of r and of biases so far.
      blocks: y - r of all writers so far, `[W_b, B, T, D]` each.
      length: T.

    Returns:
      The sum after these layers, and y - r of their writers `[S (H + 1), B, T, D]`.
    """
    start, stop = stretch
    readers = config.num_heads + 2 * config.kv_heads + 1
    outer, inner, heads = _inner_gates(config, stretch, edges)
    acc = pull(outer, blocks)
    layered = (dict(params["layers"]), layer_traits(config))
    replaced = tuple(jnp.stack(of[start:stop]) for of in (replacement.heads, replacement.mlp))
    everything = (jnp.arange(stop - start), inner, heads, *replaced)

    def step(
        carry: tuple[jax.Array, jax.Array], this: Any
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        acc, base = carry
        index, push, to_mlp, replaced_heads, replaced_mlp = this
        # A layer's weights are taken where they lie: a stretch's own would be copied first.
        layer, traits = jax.tree.map(lambda leaf: leaf[start + index], layered)
        rows = jax.lax.dynamic_slice_in_dim(acc, index * readers, readers)
        seen = rows[-1:]
        extra = extra_channels(config, params, layer, "attn", length)
        reads = read(config, layer, "attn", base + rows[:-1], extra)
        written = head_outputs(config, layer, reads, places_of(length, None, traits), None)
        written, bias = attention_writes(config, layer, written)
        change, before = written - replaced_heads, base
        base = base + jnp.sum(replaced_heads, axis=0, keepdims=True)
        if bias is not None:
            base = base + bias
        seen = before + seen if to_mlp is None else base + seen + pull(to_mlp, [change])
        extra = extra_channels(config, params, layer, "mlp", length)
        written = mlp_output(config, layer, read(config, layer, "mlp", seen, extra))
        change = jnp.concatenate([change, written - replaced_mlp])
        return (acc + pull(push, [change]), base + replaced_mlp), change

    (_, base), changes = jax.lax.scan(step, (acc, base), everything)
    return base, changes.reshape(-1, *changes.shape[2:])
