"""The transformer as a graph of residual edges: every reader has its own gated sum of writers.

    writers   embed, pos (learned positions), a{l}.h{h} (a head's output), m{l} (an MLP's)
    readers   a{l}.h{h}<q>, <k>, <v>, m{l}<in>, logits
              a{l}.kv{g}<k>, <v> where several query heads share a key and value head
    read      sum over earlier writers w of  r_w + z_(w -> reader) (y_w - r_w)

with y the writer's output within the circuit and r what replaces it: its output in a run on
the corrupted prompt, its mean, or zero (Bhaskar et al. 2024, section 2.3 and "Optimized residual
stream"). The sums of r are taken once for all readers, and the differences y - r are mixed for all
readers of a layer by one matrix product. Biases of the attention output belong to no head: they are
always there, and so is what passes no reader (bigram table, final bias). A norm after a block is applied
to the block's write as a whole: a head's share is its output times the factor that all heads
together have.

Layers run in stretches of a few (`residual_stretch.py`), the last by itself, where only the positions
asked for are worked out. Axis letters as in `layers.py`, and W writers, E edges.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.attention import layer_traits, places_of
from circuitjax.model.config import RESIDUAL_SITES, TransformerConfig
from circuitjax.model.residual_parts import (
    at,
    attention_writes,
    extra_channels,
    final_logits,
    first_writes,
    head_outputs,
    mlp_output,
    normed_write,
    read,
    write_heads,
)
from circuitjax.model.residual_stretch import pull, run_stretch, stretches
from circuitjax.model.transformer import Params, apply

__all__ = [
    "Edges",
    "Graph",
    "Writers",
    "apply_graph",
    "first_count",
    "residual_graph",
    "run_graph",
    "run_writers",
]


@dataclasses.dataclass(frozen=True)
class Graph:
    """Names and places of writers, readers and the edges that exist.

    Attributes:
      writers: W names, in the order of the forward pass.
      readers: names, in the order of the forward pass.
      edges: E pairs (writer, reader) of indices.
      feeds: of each reader, the writers that are worked out of its read: one, or the heads that
        share a key and value head; none of the logits.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    feeds: tuple[tuple[int, ...], ...]

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
      qkv: per layer `[H + 2 K, W_l]`: readers q of all heads, then k, then v.
      mlp: per layer `[1, W_l + H]`, or `[1, W_l]` of parallel blocks.
      logits: `[1, W]`.
    """

    qkv: tuple[jax.Array, ...]
    mlp: tuple[jax.Array, ...]
    logits: jax.Array

    @classmethod
    def unflatten(cls, config: TransformerConfig, values: jax.Array) -> "Edges":
        """From gates `[E]` in the order of `Graph.edges`."""
        heads, start = config.num_heads, 0
        qkv, mlp, width = [], [], first_count(config)

        def take(rows: int, columns: int) -> jax.Array:
            nonlocal start
            block = values[start : start + rows * columns].reshape(rows, columns)
            start += rows * columns
            return block

        for _ in range(config.num_layers):
            qkv.append(take(heads + 2 * config.kv_heads, width))
            mlp.append(take(1, width if config.parallel else width + heads))
            width += heads + 1
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


def first_count(config: TransformerConfig) -> int:
    """How many writers stand before the layers: embed and, where they are learned, pos."""
    return 2 if config.position == "learned" else 1


_MOST_PAIRS = 2**27  # of heads and MLPs; a network of 80 layers of 64 heads has a fifth of it


@functools.lru_cache(maxsize=64)
def residual_graph(config: TransformerConfig) -> Graph:
    """Writers, readers and edges of a model.

    Raises:
      ValueError: an architecture whose residual stream is no sum of its writers, naming the field; or
        more heads than any network has.
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
    owners = config.num_layers * (config.num_heads + 1)
    if owners**2 > _MOST_PAIRS:  # each has up to three readers, of half of the writers
        raise ValueError(
            f"the network has {config.num_layers} layers of {config.num_heads} heads, and about "
            f"{3 * owners**2 // 2:,} residual edges: more than are listed; choose another grain"
        )
    writers = ["embed", "pos"][: first_count(config)]
    readers: list[str] = []
    edges: list[tuple[int, int]] = []
    feeds: list[tuple[int, ...]] = []
    heads, group = config.num_heads, config.queries_per_kv

    def read(name: str, seen: int, *feed: int) -> None:
        edges.extend((writer, len(readers)) for writer in range(seen))
        readers.append(name)
        feeds.append(feed)

    for layer in range(config.num_layers):
        before = len(writers)
        for part in "qkv":
            each = 1 if part == "q" else group
            name = "h" if each == 1 else "kv"
            for index in range(heads // each):
                first = before + index * each
                read(f"a{layer}.{name}{index}<{part}>", before, *range(first, first + each))
        writers += [f"a{layer}.h{head}" for head in range(heads)]
        seen = before if config.parallel else len(writers)
        read(f"m{layer}<in>", seen, len(writers))
        writers.append(f"m{layer}")
    read("logits", len(writers))
    return Graph(tuple(writers), tuple(readers), tuple(edges), tuple(feeds))


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
    v = v.reshape(*v.shape[:3], config.kv_heads, config.d_head).swapaxes(2, 3)
    v = jnp.repeat(v, config.queries_per_kv, axis=2)
    heads, mlps = [], []
    for index in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=index: leaf[i], dict(params["layers"]))
        mixed = jnp.matmul(pattern[index], v[index], precision=jax.lax.Precision.HIGHEST)
        outputs = write_heads(config, layer["attn_out"], mixed)
        heads.append(attention_writes(config, layer, outputs)[0])
        mlps.append(normed_write(config, layer, "mlp", mlp[index][None]))
    first = first_writes(config, params, tokens[written])
    return output.logits, Writers(first, tuple(heads), tuple(mlps))


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
    return run_graph(config, params, tokens, gates, replacement, positions)[0]


def run_graph(
    config: TransformerConfig,
    params: Params,
    tokens: jax.Array,
    gates: jax.Array,
    replacement: Writers,
    positions: jax.Array,
) -> tuple[jax.Array, Writers]:
    """As `apply_graph`, and y - r of every writer, `Writers` of `[., B, T, D]`.

    What the last layer's writers wrote is known at `positions` alone; elsewhere theirs is zero.
    """
    graph = residual_graph(config)
    if jnp.shape(gates) != (graph.num_edges,):
        raise ValueError(f"gates are shaped {jnp.shape(gates)}; they must be ({graph.num_edges},)")
    edges = Edges.unflatten(config, gates)
    length, last = tokens.shape[1], config.num_layers - 1
    first = first_writes(config, params, tokens)
    # base: the replaced writers' sum, as a reader of all of them closed sees it.
    base = jnp.broadcast_to(jnp.sum(replacement.first, axis=0, keepdims=True), first[:1].shape)
    blocks = [first - replacement.first]
    for start, stop in stretches(last):
        base, block = run_stretch(
            config, params, (start, stop), edges, replacement, base, blocks, length
        )
        blocks.append(block)
    layer, traits = jax.tree.map(
        lambda leaf: leaf[-1], (dict(params["layers"]), layer_traits(config))
    )
    extra = extra_channels(config, params, layer, "attn", length)
    reads = read(config, layer, "attn", base + pull(edges.qkv[last], blocks), extra)
    written = head_outputs(config, layer, reads, places_of(length, None, traits), positions)
    written, bias = attention_writes(config, layer, written)
    before, blocks, base = blocks, [at(block, positions) for block in blocks], at(base, positions)
    extra = extra_channels(config, params, layer, "mlp", length)
    if extra is not None:
        extra = at(jnp.broadcast_to(extra, (1, 1, length, extra.shape[-1])), positions)
    seen = base + pull(edges.mlp[last], blocks) if config.parallel else None
    replaced = at(replacement.heads[last], positions)
    blocks.append(written - replaced)
    base = base + jnp.sum(replaced, axis=0, keepdims=True)
    if bias is not None:
        base = base + bias
    if seen is None:
        seen = base + pull(edges.mlp[last], blocks)
    written = mlp_output(config, layer, read(config, layer, "mlp", seen, extra))
    replaced = at(replacement.mlp[last], positions)
    blocks.append(written - replaced)
    base = base + replaced
    seen = base + pull(edges.logits, blocks)
    logits = final_logits(config, params, seen[0], tokens, positions)
    ends = [_spread(block, positions, length) for block in blocks[-2:]]
    return logits, _regrouped(config, [*before, *ends])


def _spread(x: jax.Array, positions: jax.Array, length: int) -> jax.Array:
    """x `[W, B, P, D]` at its positions `[B, P]` of `[W, B, T, D]`, else zero."""
    rows = jnp.arange(len(positions))[:, None]
    shape = (x.shape[0], x.shape[1], length, x.shape[-1])
    return jnp.zeros(shape, x.dtype).at[:, rows, positions].set(x)


def _regrouped(config: TransformerConfig, blocks: list[jax.Array]) -> Writers:
    """Blocks of one or more layers `[., B, T, D]` in forward order, as `Writers`."""
    heads, mlps, own = [], [], config.num_heads + 1
    stretched = [*blocks[1:-2], jnp.concatenate(blocks[-2:])]
    for block in stretched:
        for start in range(0, len(block), own):
            heads.append(block[start : start + own - 1])
            mlps.append(block[start + own - 1 : start + own])
    return Writers(blocks[0], tuple(heads), tuple(mlps))
