"""Gates on single weights: every nonzero weight of the network is open, or contributes a replacement.

    open     W_ij x_i
    closed   W_ij r_i,   r_i a constant of its source, or what the source held in another run

A weight whose ends are closed counts as closed. A node that no open weight enters holds its own
replacement; a closed v closes the weights that read it. Where r differs from prompt to prompt, closed
weights are a second product, of what their sources held there; of v that is what attention made of it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.mesh import placed_params
from circuitjax.gated.cleanup import cleanup
from circuitjax.gated.examples import Batch, picked
from circuitjax.gated.node_rows import reduced_answers, reduced_rows, whole_rows
from circuitjax.gated.nodes import NodeGates
from circuitjax.gated.protocol import Part, View
from circuitjax.gated.reduced_weights import gated_small, place_gates
from circuitjax.gated.weight_index import (
    WeightIndex,
    biased,
    close_weights,
    gated_params,
    weight_index,
)
from circuitjax.gated.weight_paths import kept_paths
from circuitjax.model.config import TransformerConfig
from circuitjax.model.graph import total_edges
from circuitjax.model.reduced import Reduced, can_reduce, reduce_model
from circuitjax.model.sites import address, shapes
from circuitjax.model.transformer import Fills, Norms, Params, apply

__all__ = ["WeightGates", "weight_gates", "weight_view", "weights_within"]

_SMALLEST = 512  # weights of the smallest reduced model: below, another program costs more


@flax.struct.dataclass
class WeightGates:
    """A `GatedModel` with gates on weights.

    Attributes:
      params: of the whole network; None where it is reduced.
      held: {site: `[L, W]`} constants of sources and of closed nodes, or None.
      index: where the gates lie in the kernels.
      base: {site: float `[L, W]`} nodes that may be open at all.
      small: the network without what no gate will open; None for the whole.
      config: of the whole network (static).
      ablation: what closed weights and nodes hold (static).
      tied: whether gates on nodes, if there are any, tie q and k (static).
      folds: as in `NodeGates` (static).
    """

    params: Any
    held: Any
    index: WeightIndex
    base: Any
    config: TransformerConfig = flax.struct.field(pytree_node=False)
    small: Reduced | None = None
    ablation: str = flax.struct.field(pytree_node=False, default="mean")
    tied: bool = flax.struct.field(pytree_node=False, default=False)
    folds: bool = flax.struct.field(pytree_node=False, default=True)

    grain = "weights"
    units = "channel"
    eval_items = 64
    scouted_items = 128
    shares_rows = True
    always_compares = False
    slope_levels = (1.0, 0.8)
    freezes_norms = True

    @property
    def num_gates(self) -> int:
        """G, padding included."""
        return self.index.total

    @property
    def _units(self) -> NodeGates:
        return NodeGates(None, None, config=self.config, tied=self.tied)

    @property
    def num_owners(self) -> int:
        """Nodes, or units where q and k are tied."""
        return self._units.num_gates

    def exists(self) -> np.ndarray:
        """Gates that are no padding."""
        return np.asarray(self.index.real())

    def draw(self, key: jax.Array) -> jax.Array:
        """Standard normal numbers `[G]`."""
        return jax.random.normal(key, (self.num_gates,))

    def owned(self, owners: jax.Array, least: bool = False) -> jax.Array:
        """Of both ends of each weight: `[G]`."""
        tree = self._units.tree(owners)
        ends = [self.index.at_ends(tree, end) for end in ("source", "target")]
        return jnp.minimum(*ends) if least else ends[0] * ends[1]

    def count(self, chance: jax.Array) -> jax.Array:
        """Expected number of open weights."""
        return jnp.sum(chance * self.index.real())

    def size(self, chance: jax.Array) -> jax.Array:
        """As `count`: gates are edges."""
        return self.count(chance)

    def training_slices(self, batch: Batch) -> int:
        """As many as the batch says."""
        return batch.slices

    def full(self, batch: Batch) -> jax.Array:
        """Logits of the whole network, `[M, P, V]`."""
        return self._nodes().full(batch)

    def _nodes(self) -> NodeGates:
        return NodeGates(self.params, self.held, config=self.config, ablation=self.ablation)

    def observed(
        self, tokens: jax.Array, positions: jax.Array, kept: slice = slice(None)
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits, and what nodes and attention's mixed values held, {name: `[L, B, T, W]`}."""
        names = (*self.config.sites, "attn.mixed")
        found = apply(self.config, self.params, tokens, positions=positions, capture=names)
        return found.logits, {name: value[:, kept] for name, value in found.captured.items()}

    def needed(self, held: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """All of it."""
        return held

    def gates_of(self, z: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Gates of weights `[G]` and of nodes {site: `[L, W]`} that follow from those of weights.

        A closed v is closed at the weights that read it, unless it may not be open at all.
        """
        entered, index = self.index.entered(self.config, z), self.index
        parts, name = index.split(z), "v->resid_delta"
        reads = jnp.where(self.base["attn.v"] > 0, entered["attn.v"], 1.0)
        parts[name] = parts[name] * reads.reshape(-1)[index.source[name]]
        nodes = {s: base * entered[s] if s != "attn.v" else base for s, base in self.base.items()}
        return index.join(parts), nodes

    def logits(
        self,
        gates: jax.Array,
        batch: Batch,
        held: Fills | None = None,
        norms: Norms | None = None,
    ) -> jax.Array:
        """Logits `[M, P, V]` under gates `[G]`."""
        if held is not None and next(iter(held.values())).ndim == 4:
            return self._per_token(gates, batch, held, norms)
        z, nodes = self.gates_of(gates)
        if self.small is not None:
            return reduced_rows(gated_small(self.small, self.index, z), batch, nodes)
        held = self.held if held is None else held
        params = gated_params(self.config, self.params, held, self.index, z)
        return whole_rows(
            biased(self.config), params, batch, nodes, self._of_nodes(held), norms=norms
        )

    def _of_nodes(self, held: Fills) -> Fills:
        """What nodes hold, without what is held for the weights that mixed values are read by."""
        return {site: held[site] for site in self.config.sites}

    def answers(self, gates: jax.Array, batch: Batch, held: Fills | None = None) -> jax.Array:
        """Logits of the right and wrong completions, `[M, R + R']`."""
        if self.small is None:
            return picked(self.logits(gates, batch, held), batch)
        z, nodes = self.gates_of(gates)
        return reduced_answers(gated_small(self.small, self.index, z), batch, nodes)

    def _per_token(self, z: jax.Array, batch: Batch, held: Fills, norms: Norms | None) -> jax.Array:
        """Closed weights as a second product, of what their sources held token by token."""
        parts, stack = self.index.split(z), dict(self.params["layers"])
        added: dict[str, jax.Array] = {}
        for family in self.index.families:
            kernel = jnp.asarray(stack[family.kernel])
            places, values = self.index.flat[family.name], self.index.values[family.name]
            opened = (
                kernel.reshape(-1)
                .at[places]
                .set(values * parts[family.name], mode="drop", unique_indices=True)
            )
            opened = opened.reshape(kernel.shape)
            source = "attn.mixed" if family.source == "attn.v" else family.source
            more = jnp.einsum(
                "lbti,lio->lbto", held[source], kernel - opened, precision=jax.lax.Precision.HIGHEST
            )
            stack[family.kernel] = opened
            added[family.target] = added[family.target] + more if family.target in added else more
        params = {**self.params, "layers": stack}
        return whole_rows(
            self.config,
            params,
            batch,
            dict(self.base),
            self._of_nodes(held),
            norms=norms,
            added=added,
        )

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The open weights on complete paths through their block."""
        return self._kept(opened)[0]

    def _kept(self, opened: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        base = {site: np.asarray(kept) > 0 for site, kept in self.base.items()}
        return kept_paths(self.config, self.index, np.asarray(opened, bool), base)

    def cut(self, first: np.ndarray) -> np.ndarray:
        """Those on complete paths."""
        return self.alive(first)

    def cost(self, opened: np.ndarray) -> int:
        """How many weights are open."""
        return int(np.sum(opened & self.exists()))

    def saves(self, opened: np.ndarray) -> np.ndarray:
        """One each."""
        return np.asarray(opened & self.exists(), int)

    def nodes(self, opened: np.ndarray) -> int:
        """How many nodes open weights keep."""
        return sum(int(kept.sum()) for kept in self._kept(opened)[1].values())

    def totals(self) -> tuple[int, int]:
        """Nodes and nonzero weights."""
        return self.config.num_nodes, total_edges(self.config, self._host())

    def work(self) -> int:
        """Nonzero weights, those of closed nodes included."""
        return self.totals()[1]

    def sizes(self) -> Sequence[int]:
        """A 64th, a 16th, a quarter of the weights; all of a start that is a small model itself."""
        if self.held is None or self.small is not None or not can_reduce(self.config):
            return ()
        size = int(self.exists().sum())
        steps = [size // share for share in (64, 16, 4)]
        if 2 * sum(int(np.sum(kept)) for kept in self.base.values()) < self.config.num_nodes:
            steps.append(size)
        return tuple(step for step in steps if step >= min(_SMALLEST, size))

    def reduced(
        self, opened: np.ndarray, *, own_widths: bool = False, at_least: Any = None
    ) -> "WeightGates":
        """The network without weights and nodes that no gate will open."""
        if self.held is None or self.small is not None or not can_reduce(self.config):
            return self
        opened, mask = self._kept(opened)
        held = {site: np.asarray(self.held[site]) for site in self.config.sites}
        config, params = self.config, self._host()
        weights = self.index.opened(config, opened)
        if any(not np.all(kept) for kept in weights.values()):
            config, params = close_weights(config, params, held, weights)
        small = reduce_model(config, params, mask, held, own_widths=own_widths, at_least=at_least)
        index = place_gates(self.config, small, self.index, opened)
        base = {site: jnp.asarray(kept, jnp.float32) for site, kept in mask.items()}
        index = jax.tree.map(jnp.asarray, index)
        return dataclasses.replace(
            self, params=None, held=None, index=index, base=base, small=small
        )

    def clean(self, opened: np.ndarray) -> Part:
        """Closes weights on no complete path, and nodes that then do nothing."""
        opened, mask = self._kept(opened)
        weights = self.index.opened(self.config, opened)
        held = (
            None if self.held is None else {s: np.asarray(self.held[s]) for s in self.config.sites}
        )
        folded = held if self.folds else None
        gated = close_weights(self.config, self._host(), folded, weights)
        kept, fills, report = cleanup(*gated, mask, folded)
        nodes = sum(int(part.sum()) for part in kept.values())
        return Part(
            {"mask": kept, "weights": weights},
            fills if folded is not None else held,
            report.counts,
            nodes,
            report.edges_after,
        )

    def groups(self) -> np.ndarray:
        """A number for each family of each layer; padding has its own."""
        found = []
        for number, family in enumerate(self.index.families):
            layers, width = shapes(self.config)[family.source]
            layer = np.asarray(self.index.source[family.name]) // width
            real = np.asarray(self.index.values[family.name]) != 0
            found.append(np.where(real, number * layers + layer, -1))
        return np.concatenate(found)

    def names(self) -> list[str]:
        """`source->target` of every weight; padding is empty."""
        config, found = self.config, []
        for family in self.index.families:
            inputs, outputs = shapes(config)[family.source][1], shapes(config)[family.target][1]
            ends = (self.index.source[family.name], self.index.target[family.name])
            for source, target, value in zip(
                *(np.asarray(e) for e in ends),
                np.asarray(self.index.values[family.name]),
                strict=True,
            ):
                if value == 0:
                    found.append("")
                    continue
                first = address(config, int(source) // inputs, family.source, int(source) % inputs)
                second = address(
                    config, int(target) // outputs, family.target, int(target) % outputs
                )
                found.append(f"{first}->{second}")
        return found

    def _host(self) -> dict[str, Any]:
        return jax.tree.map(np.asarray, dict(self.params))


def weight_gates(
    config: TransformerConfig,
    params: Params,
    held: Mapping[str, np.ndarray] | None,
    ablation: str,
    mask: Mapping[str, np.ndarray] | None = None,
    *,
    tied: bool = False,
) -> WeightGates:
    """A gate on every nonzero weight, of the whole network or between the nodes of a mask.

    Raises:
      ValueError: no weight to put a gate on.
    """
    index = weight_index(config, jax.tree.map(np.asarray, dict(params)), mask)
    if not np.any(index.real()):
        raise ValueError("there is no nonzero weight between kept nodes: nothing can be pruned")
    mask = (
        {s: np.ones(shape, bool) for s, shape in shapes(config).items()} if mask is None else mask
    )
    base = {site: np.asarray(kept, np.float32) for site, kept in mask.items()}
    arrays = jax.tree.map(jnp.asarray, (held and dict(held), index, base))
    on_device, (constants, places, kept) = placed_params(dict(params)), arrays
    return WeightGates(
        on_device, constants, places, kept, config=config, ablation=ablation, tied=tied
    )


def weight_view(
    config: TransformerConfig,
    params: Params,
    opened: Mapping[str, Any],
    held: Mapping[str, np.ndarray] | None,
    ablation: str,
) -> View:
    """A circuit of weights as gates of the whole network.

    A v node that is closed although weights that read it are not was closed before any weight was: it
    may not be open.
    """
    mask, weights = opened["mask"], opened["weights"]
    kernel = np.asarray(params["layers"]["attn_out"]) != 0
    read = np.any(weights["v->resid_delta"] & kernel, axis=2)  # rows of the kernel
    (written,) = (family for family in config.families if family.source == "attn.v")
    by_node = np.zeros(shapes(config)["attn.v"], bool)
    for row, node in enumerate(written.rows(config)):
        by_node[:, node] |= read[:, row]
    closed_v = ~mask["attn.v"] & by_node
    base = {site: np.ones(shape, bool) for site, shape in shapes(config).items()}
    base["attn.v"] = ~closed_v
    model = weight_gates(config, params, held, ablation, base)
    gates = []
    for family in config.families:
        places = np.asarray(model.index.flat[family.name])
        flat = np.append(weights[family.name].reshape(-1), False)
        gates.append(flat[np.minimum(places, flat.size - 1)])
    ends = [
        np.asarray(model.index.at_ends({s: jnp.asarray(m) for s, m in mask.items()}, end))
        for end in ("source", "target")
    ]
    return View(model, np.concatenate(gates) & ends[0] & ends[1] & model.exists())


def weights_within(
    config: TransformerConfig,
    params: Params,
    mask: Mapping[str, np.ndarray],
    held: Mapping[str, np.ndarray] | None,
    ablation: str,
) -> View:
    """The weights between the nodes of a mask as gates, all of them open: the node circuit itself."""
    model = weight_gates(config, params, held, ablation, mask)
    return View(model, model.exists())
