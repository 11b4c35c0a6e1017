"""Gates on residual edges, writer -> reader: a closed edge carries what replaces the writer's output.

    z_effective(writer -> reader) = z_edge(writer -> reader) * z_writer      (Bhaskar et al. 2024, 2.3)

A gate opens one edge, or all edges of a larger unit (`units.py`).
Under interchange the position embedding is the same in both runs: its edges carry nothing, are always
open and count apart. The network's graph and its forward pass are `model/residual_graph.py`.

Axis letters: G gates, E edges (as many, unless units are larger), W writers, B sequences, T positions,
D channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.mesh import placed_params
from circuitjax.gated.examples import Batch, Examples, picked
from circuitjax.gated.protocol import Part, View
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.gated.units import Units, edge_units, gathered
from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import (
    Graph,
    Writers,
    apply_graph,
    first_count,
    residual_graph,
    run_writers,
)
from circuitjax.model.transformer import Params, apply

__all__ = [
    "AT_ONCE",
    "EdgeGates",
    "at_once",
    "bytes_of_slope",
    "edge_view",
    "fixed_writers",
    "flat_shape",
    "flatten_writers",
    "touched",
    "unflatten_writers",
]

AT_ONCE = 16  # items, at most
_MEAN_BATCH = 64
_USUAL = 32  # tokens of a prompt, where none is known
_KEPT = 10  # arrays the size of all reads and writes that a slope keeps; seen on 30 layers of 576


@flax.struct.dataclass
class EdgeGates:
    """A `GatedModel` with gates on residual edges.

    Attributes:
      params: of the network.
      held: replacements that are the same for every token, `Writers` of `[., 1, 1, D]`, or None.
      config: of the network (static).
      ablation: what closed edges carry (static).
      folds: as in `NodeGates`; edges fold nothing (static).
      units: what a gate opens (static).
      coarse: units that have a gate besides, which multiplies those of their edges; `none`: writers
        are owners (static).
    """

    params: Any
    held: Any
    config: TransformerConfig = flax.struct.field(pytree_node=False)
    ablation: str = flax.struct.field(pytree_node=False, default="interchange")
    folds: bool = flax.struct.field(pytree_node=False, default=True)
    units: Units = flax.struct.field(pytree_node=False, default="channel")
    coarse: str = flax.struct.field(pytree_node=False, default="none")

    grain = "edges"
    shares_rows = False
    always_compares = True
    slope_levels = (1.0,)
    freezes_norms = False
    tied = False

    @property
    def eval_items(self) -> int:
        """As `at_once`: an edge is an activation in memory."""
        return at_once(self.config)

    @property
    def scouted_items(self) -> int:
        """Four batches."""
        return 4 * self.eval_items

    @property
    def graph(self) -> Graph:
        """Writers, readers and edges."""
        return residual_graph(self.config)

    @property
    def num_gates(self) -> int:
        """G, the number of units."""
        return len(self.names())

    @property
    def num_owners(self) -> int:
        """W, or the number of coarse units."""
        return len(self.graph.writers) if self.coarse == "none" else len(self._coarse()[1])

    def _units(self) -> tuple[np.ndarray, tuple[str, ...]]:
        return edge_units(self.config, self.units)

    def _coarse(self) -> tuple[np.ndarray, tuple[str, ...]]:
        return edge_units(self.config, cast(Units, self.coarse))

    def edges(self, gates: Any) -> Any:
        """Of each edge its gate, `[..., E]` from `[..., G]`."""
        return gates if self.units == "channel" else gates[..., self._units()[0]]

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """Of each gate the sum over its edges, or whether any: `[G]` from `[E]`."""
        if self.units == "channel":
            return values
        return gathered(self._units()[0], values, self.num_gates)

    def _carrying(self) -> np.ndarray:
        """Edges that can matter: all, but those from positions under interchange; bool `[E]`."""
        if self.ablation == "interchange":
            return ~self.graph.from_positions
        return np.ones(self.graph.num_edges, bool)

    def _kept(self, opened: np.ndarray) -> np.ndarray:
        """Open edges that can matter, bool `[E]`."""
        kept: np.ndarray = self.edges(np.asarray(opened, bool)) & self._carrying()
        return kept

    def exists(self) -> np.ndarray:
        """Gates of some edge that can matter."""
        return self.gathered(self._carrying())

    def draw(self, key: jax.Array) -> jax.Array:
        """Standard normal numbers `[G]`."""
        return jax.random.normal(jax.random.fold_in(key, 0), (self.num_gates,))

    def owned(self, owners: jax.Array, least: bool = False) -> jax.Array:
        """Of each edge's writer, or coarse unit: `[G]`."""
        del least
        return owners[self._coarse()[0] if self.coarse != "none" else self.graph.sources]

    def count(self, chance: jax.Array) -> jax.Array:
        """Expected number of open edges among those that can matter."""
        return jnp.sum(self.edges(chance) * self._carrying())

    def size(self, chance: jax.Array) -> jax.Array:
        """As `count`: gates are edges."""
        return self.count(chance)

    def training_slices(self, batch: Batch) -> int:
        """Four where they keep items whole: every edge is an activation in memory."""
        assert isinstance(batch, Examples)
        return 4 if batch.items % 4 == 0 else 1

    def full(self, batch: Batch) -> jax.Array:
        """Logits of the whole network, `[M, P, V]`."""
        asked = batch.prompts
        return apply(self.config, self.params, asked.tokens, positions=asked.positions).logits

    def observed(
        self, tokens: jax.Array, positions: jax.Array, kept: slice = slice(None)
    ) -> tuple[jax.Array, Writers]:
        """Logits, and what every writer wrote, `Writers` of `[., B, T, D]`."""
        return run_writers(self.config, self.params, tokens, positions, kept)

    def needed(self, held: Writers) -> Writers:
        """All of it."""
        return held

    def logits(self, gates: jax.Array, batch: Batch, held: Writers | None = None) -> jax.Array:
        """Logits `[M, P, V]` under gates `[G]`."""
        asked = batch.prompts
        gates = jnp.where(self._carrying(), self.edges(gates), 1.0)
        held = self.held if held is None else held
        return apply_graph(self.config, self.params, asked.tokens, gates, held, asked.positions)

    def answers(self, gates: jax.Array, batch: Batch, held: Writers | None = None) -> jax.Array:
        """Logits of the right and wrong completions, `[M, R + R']`."""
        return picked(self.logits(gates, batch, held), batch)

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """Of the open gates those with an edge on a path from the input to the logits."""
        return self.gathered(self._connected(opened))

    def _connected(self, opened: np.ndarray) -> np.ndarray:
        """Of the open edges those on a path from the input to the logits, bool `[E]`.

        Closing the others changes no output under interchange. Otherwise a writer that reads nothing
        still writes something of its own, so only edges without a way to the logits are closed.
        """
        graph = self.graph
        logits = len(graph.writers)
        # What a read is worked into: one writer, several that share a key or value head, the logits.
        feeds = [list(feed) or [logits] for feed in graph.feeds]
        kept = self._kept(opened)
        reached = np.zeros(len(graph.writers) + 1, bool)  # from the input; the last is the logits
        useful = np.zeros(len(graph.writers) + 1, bool)
        useful[-1] = True
        if self.ablation == "interchange":
            reached[graph.writers.index("embed")] = True  # positions are the same in both runs
            for edge in np.argsort(graph.sources, kind="stable"):
                if kept[edge] and reached[graph.sources[edge]]:
                    reached[feeds[graph.targets[edge]]] = True
        else:
            reached[:] = True
        for edge in np.argsort(-graph.sources, kind="stable"):
            if kept[edge] and useful[feeds[graph.targets[edge]]].any():
                useful[graph.sources[edge]] = True
        read = np.array([useful[feed].any() for feed in feeds])
        return kept & reached[graph.sources] & read[graph.targets]

    def cut(self, first: np.ndarray) -> np.ndarray:
        """Those on a path."""
        return self.alive(first)

    def cost(self, opened: np.ndarray) -> int:
        """How many edges are open."""
        return int(np.sum(self._kept(opened)))

    def saves(self, opened: np.ndarray) -> np.ndarray:
        """One for each edge."""
        return np.asarray(self.gathered(self._kept(opened).astype(int)), int)

    def nodes(self, opened: np.ndarray) -> int:
        """Writers and owners of readers that some open edge touches."""
        return len(touched(self.graph, self._kept(opened)))

    def totals(self) -> tuple[int, int]:
        """Writers and the logits; edges that can matter."""
        return len(self.graph.writers) + 1, int(self._carrying().sum())

    def work(self) -> int:
        """Edges that can matter."""
        return int(self._carrying().sum())

    def sizes(self) -> Sequence[int]:
        """No reduced model exists."""
        return ()

    def reduced(
        self, opened: np.ndarray, *, own_widths: bool = False, at_least: Any = None
    ) -> "EdgeGates":
        """Itself."""
        del opened, own_widths, at_least
        return self

    def clean(self, opened: np.ndarray) -> Part:
        """Closes edges on no path."""
        kept = self._connected(opened)
        removed = self.cost(opened) - int(kept.sum())
        held = None if self.held is None else flatten_writers(self.held)
        parts = {"unconnected": removed}
        return Part({"kept": kept}, held, parts, len(touched(self.graph, kept)), int(kept.sum()))

    def groups(self) -> np.ndarray:
        """One group of all that can matter."""
        return np.where(self.exists(), 0, -1)

    def names(self) -> list[str]:
        """`writer->reader` of each edge, or of larger units as in `units.py`."""
        return list(self._units()[1])


def at_once(config: TransformerConfig) -> int:
    """Items of which a slope is held in about 3 GiB: 1, 2, 4, 8 or, of small networks, 16."""
    fit = 3 * 2**30 // bytes_of_slope(config, _USUAL)
    return min(1 << (max(int(fit), 1).bit_length() - 1), AT_ONCE)


def bytes_of_slope(config: TransformerConfig, length: int) -> int:
    """About what the slope of one example of T tokens by all edges holds at a time, in bytes."""
    graph = residual_graph(config)
    rows = len(graph.writers) + len(graph.readers)
    return _KEPT * rows * length * config.d_model * 4


def touched(graph: Graph, kept: np.ndarray) -> list[str]:
    """Writers that some kept edge leaves or is worked into, and the logits, in forward order."""
    found = {graph.writers[w] for w in graph.sources[kept]}
    for reader in graph.targets[kept]:
        found |= {graph.writers[w] for w in graph.feeds[reader]} or {"logits"}
    return [name for name in (*graph.writers, "logits") if name in found]


def fixed_writers(
    config: TransformerConfig, params: Mapping[str, Any], ablation: str, examples: Examples
) -> Writers | None:
    """Replacements that are the same for every token, `[., 1, 1, D]`, or None where they are per prompt.

    `mean` is over all tokens of the corrupted prompts up to the last answer position.
    """
    if is_per_prompt(ablation):
        return None
    zero = unflatten_writers(config, np.zeros(flat_shape(config), np.float32))
    if ablation == "zero":
        return zero
    assert ablation == "mean", f"which constants are those of {ablation!r}?"

    @jax.jit
    def add(total: Writers, batch: Examples) -> tuple[Writers, jax.Array]:
        _, found = run_writers(config, params, batch.tokens[:, 1], batch.positions)
        length = batch.tokens.shape[-1]
        counts = jnp.arange(length)[None, :] <= jnp.max(batch.positions, axis=1, keepdims=True)
        weight = counts[None, :, :, None].astype(jnp.float32)
        summed = jax.tree.map(
            lambda t, x: t + jnp.sum(x * weight, axis=(1, 2), keepdims=True), total, found
        )
        return summed, jnp.sum(counts)

    total, count = zero, 0
    items = _MEAN_BATCH // examples.unit
    for start in range(0, examples.items, items):
        chosen = np.arange(start, min(start + items, examples.items))
        total, tokens = add(total, examples.take(chosen))
        count += int(tokens)
    return jax.tree.map(lambda x: x / count, total)


def edge_view(
    config: TransformerConfig,
    params: Params,
    opened: Mapping[str, Any],
    held: np.ndarray | None,
    ablation: str,
) -> View:
    """A circuit of residual edges as gates."""
    writers = None if held is None else unflatten_writers(config, held)
    params = placed_params(dict(params))
    model = EdgeGates(params, writers, config=config, ablation=ablation)
    return View(model, np.asarray(opened["kept"], bool))


def flat_shape(config: TransformerConfig) -> tuple[int, int]:
    """`[W, D]`, of fixed replacements as a circuit keeps them."""
    return len(residual_graph(config).writers), config.d_model


def flatten_writers(writers: Writers) -> np.ndarray:
    """Fixed replacements `[W, D]` from blocks `[., 1, 1, D]`."""
    return np.concatenate([np.asarray(block)[:, 0, 0] for block in writers.blocks()])


def unflatten_writers(config: TransformerConfig, fixed: np.ndarray) -> Writers:
    """The inverse of `flatten_writers`."""
    first = first_count(config)
    rows = jnp.asarray(fixed)[:, None, None, :]
    step = config.num_heads + 1
    starts = range(first, len(fixed), step)
    return Writers(
        rows[:first],
        tuple(rows[start : start + step - 1] for start in starts),
        tuple(rows[start + step - 1 : start + step] for start in starts),
    )
