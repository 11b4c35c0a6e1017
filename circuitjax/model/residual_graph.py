"""The transformer as a graph of residual edges: every reader has its own gated sum of writers.

    writers   embed, pos (learned positions), a{l}.h{h} (a head's output), m{l} (an MLP's)
    readers   a{l}.h{h}<q>, <k>, <v>, m{l}<in>, logits
    read      sum over earlier writers w of  r_w + z_(w -> reader) (y_w - r_w)

with y the writer's output within the circuit and r what replaces it: its output in a run on
the corrupted prompt, its mean, or zero (Bhaskar et al. 2024, section 2.3 and "Optimized residual
stream"). The sums of r are taken once for all readers, and the differences y - r are mixed for all
readers of a layer by one matrix product. Biases of the attention output belong to no head: they are
always there, and so is what passes no reader (bigram table, final bias).

Layers are unrolled, not scanned: a layer's readers see only as many writers as came before it, and
a scan would multiply by the absent ones. Axis letters as in `layers.py`, and W writers, E edges.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model import layers
from circuitjax.model.config import RESIDUAL_SITES, TransformerConfig
from circuitjax.model.transformer import Params, apply

__all__ = ["Edges", "Graph", "Writers", "apply_graph", "residual_graph", "run_writers"]


@dataclasses.dataclass(frozen=True)
class Graph:
    """Names and places of writers, readers and the edges that exist.

    Attributes:
      writers: W names, in the order of the forward pass.
      readers: names, in the order of the forward pass.
      edges: E pairs (writer, reader) of indices.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.edges)

    @functools.cached_property
    def sources(self) -> np.ndarray:
        """Writer of each edge, int `[E]`."""
        return np.array([edge[0] for edge in self.edges], np.int32)

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """Reader of each edge, int `[E]`."""
        return np.array([edge[1] for edge in self.edges], np.int32)

    @property
    def names(self) -> list[str]:
        """`writer->reader` of each edge."""
        return [f"{self.writers[w]}->{self.readers[r]}" for w, r in self.edges]

    @functools.cached_property
    def from_positions(self) -> np.ndarray:
        """Which edges leave the position embedding, bool `[E]`: under interchange they carry nothing."""
        return np.array([self.writers[w] == "pos" for w, _ in self.edges], bool)


@flax.struct.dataclass
class Edges:
    """Gates of the existing edges, laid out as the forward pass needs them.

    Attributes:
      qkv: per layer `[3 H, W_l]`: readers q of all heads, then k, then v.
      mlp: per layer `[1, W_l + H]`.
      logits: `[1, W]`.
    """

    qkv: tuple[jax.Array, ...]
    mlp: tuple[jax.Array, ...]
    logits: jax.Array

    @classmethod
    def unflatten(cls, config: TransformerConfig, values: jax.Array) -> "Edges":
        """From gates `[E]` in the order of `Graph.edges`."""
        heads, start = config.num_heads, 0
        qkv, mlp, width = [], [], _first_writers(config)

        def take(rows: int, columns: int) -> jax.Array:
            nonlocal start
            block = values[start : start + rows * columns].reshape(rows, columns)
            start += rows * columns
            return block

        for _ in range(config.num_layers):
            qkv.append(take(3 * heads, width))
            width += heads
            mlp.append(take(1, width))
            width += 1
        return cls(tuple(qkv), tuple(mlp), take(1, width))


@flax.struct.dataclass
class Writers:
    """What every writer puts on the stream, grouped as the forward pass makes it.

    Attributes:
      first: `[1 or 2, B, T, D]`, embed and pos.
      heads: per layer `[H, B, T, D]`.
      mlp: per layer `[1, B, T, D]`.

    B and T may be 1: the same replacement everywhere.
    """

    first: jax.Array
    heads: tuple[jax.Array, ...]
    mlp: tuple[jax.Array, ...]

    def blocks(self) -> list[jax.Array]:
        """The groups in forward order."""
        pairs = zip(self.heads, self.mlp, strict=True)
        return [self.first, *(block for pair in pairs for block in pair)]


def _first_writers(config: TransformerConfig) -> int:
    return 2 if config.position == "learned" else 1


@functools.lru_cache(maxsize=64)
def residual_graph(config: TransformerConfig) -> Graph:
    """Writers, readers and edges of a model.

    Raises:
      ValueError: an architecture whose residual stream is no sum of its writers, naming the field.
    """
    if config.residual_activation != "identity":
        raise ValueError(
            f"residual_activation is {config.residual_activation!r}: the residual stream is then no "
            "sum of its writers; residual edges need 'identity'"
        )
    for site in (*RESIDUAL_SITES, "attn.resid_delta"):
        if config.top_k_at(site) is not None:
            raise ValueError(
                f"abs_top_k_sites include {site!r}, which mixes the heads' writes: residual edges "
                "need a model without AbsTopK there"
            )
    writers = ["embed", "pos"][: _first_writers(config)]
    readers: list[str] = []
    edges: list[tuple[int, int]] = []

    def read(name: str) -> None:
        edges.extend((writer, len(readers)) for writer in range(len(writers)))
        readers.append(name)

    for layer in range(config.num_layers):
        for part in "qkv":
            for head in range(config.num_heads):
                read(f"a{layer}.h{head}<{part}>")
        writers += [f"a{layer}.h{head}" for head in range(config.num_heads)]
        read(f"m{layer}<in>")
        writers.append(f"m{layer}")
    read("logits")
    return Graph(tuple(writers), tuple(readers), tuple(edges))


def _first(config: TransformerConfig, params: Params, tokens: jax.Array) -> jax.Array:
    embedded = jnp.asarray(params["embed"])[tokens][None]
    if config.position != "learned":
        return embedded
    places = params["positions"][None, None, : tokens.shape[1]]
    return jnp.concatenate([embedded, jnp.broadcast_to(places, embedded.shape)])


def _extra(
    config: TransformerConfig, params: Params, layer: Params, block: str, length: int
) -> jax.Array | None:
    """Concatenated position channels `[1, 1, T, P]` of a read, or None."""
    if config.position != "concatenated":
        return None
    places = params["positions"][None, None, :length]
    return layers.normalise(config, places, layers.norm_params(layer, f"{block}_position_norm"))


def _read(
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


def _heads(
    config: TransformerConfig, layer: Params, reads: jax.Array, positions: jax.Array | None
) -> jax.Array:
    """Outputs `[H, B, P, D]` of a layer's heads from their reads `[3 H, B, T, D_in]`."""
    heads, width = config.num_heads, config.d_head
    _, batch, length, inputs = reads.shape
    names = ("attn_q", "attn_k", "attn_v")
    kernel = jnp.stack([layer[name].reshape(inputs, heads, width) for name in names])
    kernel = jnp.moveaxis(kernel, 1, 2).reshape(3 * heads, inputs, width)
    rows = reads.reshape(3 * heads, batch * length, inputs)
    parts = jnp.matmul(rows, kernel, precision=jax.lax.Precision.HIGHEST)
    if config.biases:
        bias = jnp.stack([layer[f"{name}_bias"] for name in names]).reshape(3 * heads, 1, width)
        parts = parts + bias
    parts = parts.reshape(3, heads, batch, length, width)
    q, k, v = (jnp.moveaxis(part, 0, 2).reshape(batch, length, heads * width) for part in parts)
    if positions is not None:
        q = layers.take_positions(q, positions)
    q, k, v = (
        layers.keep_largest(config, x, f"attn.{name}")
        for name, x in zip("qkv", (q, k, v), strict=True)
    )
    mixed, _ = layers.attend(config, q, k, v, layer.get("attn_sink"), positions)
    asked = mixed.shape[1]
    mixed = mixed.reshape(batch, asked, heads, width).swapaxes(1, 2)
    return _write_heads(config, layer["attn_out"], mixed)


def _write_heads(config: TransformerConfig, kernel: jax.Array, mixed: jax.Array) -> jax.Array:
    """What each head writes, `[H, B, P, D]`, from mixed values `[B, H, P, C]`."""
    batch, heads, asked, width = mixed.shape
    rows = mixed.swapaxes(0, 1).reshape(heads, batch * asked, width)
    kernel = kernel.reshape(heads, width, config.d_model)
    out = jnp.matmul(rows, kernel, precision=jax.lax.Precision.HIGHEST)
    return out.reshape(heads, batch, asked, config.d_model)


def _mlp(config: TransformerConfig, layer: Params, read: jax.Array) -> jax.Array:
    """Output of an MLP, as `read` `[1, B, T, D_in]` but D wide."""
    hidden = layers.linear(config, read, layer["mlp_in"], layer.get("mlp_in_bias"))
    hidden = layers.keep_largest(config, layers.activate(config, hidden), "mlp.post_act")
    out = layers.linear(config, hidden, layer["mlp_out"], layer.get("mlp_out_bias"))
    return layers.keep_largest(config, out, "mlp.resid_delta")


def _at(x: jax.Array, positions: jax.Array | None) -> jax.Array:
    """x `[W, B, T, D]` at positions `[B, P]`; a replacement that is the same everywhere stays."""
    if positions is None or x.shape[2] == 1:
        return x
    index = jnp.broadcast_to(positions[None, :, :, None], (1, *positions.shape, 1))
    if x.shape[1] == 1:
        x = jnp.broadcast_to(x, (x.shape[0], positions.shape[0], *x.shape[2:]))
    return jnp.take_along_axis(x, index, axis=2)


def run_writers(
    config: TransformerConfig,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    written: slice = slice(None),
) -> tuple[jax.Array, Writers]:
    """A plain run: logits `[B, P, V]` at positions `[B, P]`, and what every writer wrote.

    Args:
      config, params: the model.
      tokens: int32 `[B, T]`, such as clean prompts and then corrupted ones: one batch for both.
      positions: int32 `[B, P]`.
      written: of which sequences the writers are wanted.

    Raises:
      ValueError: an unsupported architecture.
    """
    residual_graph(config)
    names = ("attn.v", "attn.pattern", "mlp.resid_delta")
    output = apply(config, params, tokens, positions=positions, capture=names)
    v, pattern, mlp = (output.captured[name][:, written] for name in names)
    v = v.reshape(*v.shape[:3], config.num_heads, config.d_head).swapaxes(2, 3)
    heads = []
    for index in range(config.num_layers):
        mixed = jnp.matmul(pattern[index], v[index], precision=jax.lax.Precision.HIGHEST)
        heads.append(_write_heads(config, params["layers"]["attn_out"][index], mixed))
    first = _first(config, params, tokens[written])
    return output.logits, Writers(first, tuple(heads), tuple(mlp[:, None]))


def apply_graph(
    config: TransformerConfig,
    params: Params,
    tokens: jax.Array,
    gates: jax.Array,
    replacement: Writers,
    positions: jax.Array,
) -> jax.Array:
    """Logits of the circuit that the gates leave.

    Args:
      config, params: the model.
      tokens: int32 `[B, T]`, the clean prompts.
      gates: `[E]` in [0, 1], in the order of `residual_graph(config).edges`.
      replacement: r of every writer.
      positions: int32 `[B, P]` where logits are wanted. Only they are worked out in the last layer.

    Returns:
      float32 `[B, P, V]`.

    Raises:
      ValueError: gates of another shape, or an unsupported architecture.
    """
    graph = residual_graph(config)
    if jnp.shape(gates) != (graph.num_edges,):
        raise ValueError(f"gates are shaped {jnp.shape(gates)}; they must be ({graph.num_edges},)")
    edges = Edges.unflatten(config, gates)
    length = tokens.shape[1]
    first = _first(config, params, tokens)
    # base: the replaced writers' sum, as a reader of all of them closed sees it.
    base = jnp.broadcast_to(jnp.sum(replacement.first, axis=0, keepdims=True), first[:1].shape)
    differences = [first - replacement.first]

    def mix(gate: jax.Array) -> jax.Array:
        """Reads `[R, B, T, D]` from gates `[R, W]`."""
        stacked = jnp.concatenate(differences)
        flat = stacked.reshape(stacked.shape[0], -1)
        reads = jnp.matmul(gate, flat, precision=jax.lax.Precision.HIGHEST)
        return base + reads.reshape(gate.shape[0], *stacked.shape[1:])

    for index in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=index: leaf[i], dict(params["layers"]))
        last = positions if index == config.num_layers - 1 else None
        extra = _extra(config, params, layer, "attn", length)
        reads = _read(config, layer, "attn", mix(edges.qkv[index]), extra)
        written = _heads(config, layer, reads, last)
        extra = _extra(config, params, layer, "mlp", length)
        if last is not None:
            differences = [_at(block, last) for block in differences]
            base = _at(base, last)
            if extra is not None:
                extra = _at(jnp.broadcast_to(extra, (1, 1, length, extra.shape[-1])), last)
        replaced = _at(replacement.heads[index], last)
        differences.append(written - replaced)
        base = base + jnp.sum(replaced, axis=0, keepdims=True)
        if config.biases:
            base = base + layer["attn_out_bias"][None, None, None, :]
        written = _mlp(config, layer, _read(config, layer, "mlp", mix(edges.mlp[index]), extra))
        replaced = _at(replacement.mlp[index], last)
        differences.append(written - replaced)
        base = base + replaced
    return _logits(config, params, mix(edges.logits)[0], tokens, positions)


def _logits(
    config: TransformerConfig,
    params: Params,
    x: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    x = layers.normalise(config, x, layers.norm_params(params, "final_norm"))
    kernel = params["embed"].T if config.tied_unembedding else params["unembed"]
    logits = layers.linear(config, x, kernel)
    if config.final_bias:
        logits = logits + params["final_bias"][None, None, :]
    if config.bigram:
        last = jnp.take_along_axis(tokens, positions, axis=1)
        logits = logits + jnp.asarray(params["bigram"])[last]
    return logits
