"""Gates on nodes: single channels and neurons of every layer, x -> m x + (1 - m) r.

A gate opens a *unit*: one node or, where q and k are tied, a q channel and the k channel it is
multiplied with (Gao et al. 2025, section 2.2); or a head, an MLP, a block (`units.py`). The replacement
r is {site: `[L, W]`} where it is a constant, {site: `[L, B, T, W]`} where it is what another run held.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.mesh import placed_params
from circuitjax.gated.cleanup import cleanup
from circuitjax.gated.examples import Batch, picked
from circuitjax.gated.node_rows import reduced_answers, reduced_rows, whole_rows
from circuitjax.gated.protocol import Part, View
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.gated.units import Units, gathered, units_of
from circuitjax.model.config import TransformerConfig
from circuitjax.model.graph import count_edges, edges_at, total_edges
from circuitjax.model.reduced import Reduced, can_reduce, reduce_model
from circuitjax.model.reduced_tokens import TokenReduced, held_within, reduce_for_tokens
from circuitjax.model.sites import address, shapes
from circuitjax.model.transformer import Fills, Norms, Params, apply

__all__ = ["NodeGates", "constants", "node_view"]


@flax.struct.dataclass
class NodeGates:
    """A `GatedModel` with gates on nodes.

    Attributes:
      params: of the whole network; None where it is reduced and replacements are constant.
      held: {site: `[L, W]`} constants that closed nodes hold, or None.
      small: the network without what no gate will open; None for the whole. Where replacements are
        per prompt it has to be told what they feed, and the whole parameters are kept to say so.
      config: of the whole network (static).
      ablation: what closed nodes hold (static).
      tied: whether a q channel and its k channel share a gate (static).
      folds: whether what is constant may be folded into constants (static): not where a circuit is
        asked to hold under several conditions, which fill it differently.
      units: what a gate opens (static).
      coarse: units that have a gate besides, which multiplies those of their nodes (static).
    """

    params: Any
    held: Any
    config: TransformerConfig = flax.struct.field(pytree_node=False)
    small: Reduced | TokenReduced | None = None
    ablation: str = flax.struct.field(pytree_node=False, default="mean")
    tied: bool = flax.struct.field(pytree_node=False, default=False)
    folds: bool = flax.struct.field(pytree_node=False, default=True)
    units: Units = flax.struct.field(pytree_node=False, default="channel")
    coarse: str = flax.struct.field(pytree_node=False, default="none")

    grain = "nodes"
    eval_items = 64
    scouted_items = 128
    shares_rows = True
    always_compares = False
    slope_levels = (1.0, 0.8)
    freezes_norms = True

    @property
    def num_gates(self) -> int:
        """G, the number of units."""
        if self.units != "channel":
            return len(self._units()[1])
        return sum(layers * width for layers, width in self._shapes().values())

    @property
    def num_owners(self) -> int:
        """Coarse units."""
        return len(self._coarse()[1]) if self.coarse != "none" else 0

    def _units(self) -> tuple[np.ndarray, tuple[str, ...]]:
        return units_of(self.config, self.units, tuple(self._shapes()))

    def _coarse(self) -> tuple[np.ndarray, tuple[str, ...]]:
        return units_of(self.config, cast(Units, self.coarse), tuple(self._shapes()))

    def _shapes(self) -> dict[str, tuple[int, int]]:
        wide = shapes(self.config)
        return {s: shape for s, shape in wide.items() if not (self.tied and s == "attn.k")}

    def tree(self, gates: Any) -> dict[str, Any]:
        """{site: `[..., L, W]`} over all sites from gates `[..., G]`."""
        if self.units != "channel":
            gates = gates[..., self._units()[0]]
        found, start = {}, 0
        for site, (layers, width) in self._shapes().items():
            stop = start + layers * width
            found[site] = gates[..., start:stop].reshape(*gates.shape[:-1], layers, width)
            start = stop
        return {**found, "attn.k": found["attn.q"]} if self.tied else found

    def flat(self, tree: Mapping[str, Any]) -> np.ndarray:
        """`[G]` from {site: `[L, W]`}; of a tied pair the q's, of a larger unit the sum, or any."""
        return self.gathered(
            np.concatenate([np.asarray(tree[site]).reshape(-1) for site in self._shapes()])
        )

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """Of each gate the sum over its nodes, or whether any: `[G]` from `[N]`."""
        if self.units == "channel":
            return values
        return gathered(self._units()[0], values, self.num_gates)

    def exists(self) -> np.ndarray:
        """Every gate."""
        return np.ones(self.num_gates, bool)

    def draw(self, key: jax.Array) -> jax.Array:
        """Standard normal numbers `[G]`, site by site."""
        if self.units != "channel":
            return jax.random.normal(jax.random.fold_in(key, 0), (self.num_gates,))
        parts = []
        for index, (site, shape) in enumerate(shapes(self.config).items()):
            if site in self._shapes():
                noise = jax.random.normal(jax.random.fold_in(key, index), shape)
                parts.append(noise.reshape(-1))
        return jnp.concatenate(parts)

    def owned(self, owners: jax.Array, least: bool = False) -> jax.Array:
        """Of each node's coarse unit: `[G]`; 1 where there are none."""
        del least
        return owners[self._coarse()[0]] if self.coarse != "none" else jnp.ones(self.num_gates)

    def count(self, chance: jax.Array) -> jax.Array:
        """Expected number of open nodes; a tied pair is two."""
        return sum((jnp.sum(m) for m in self.tree(chance).values()), start=jnp.zeros(()))

    def size(self, chance: jax.Array) -> jax.Array:
        """Expected number of open nodes and of nonzero weights between them.

        Nodes alone would be closed without a thought for what hangs on them: a channel that everything
        reads costs what a neuron does. Edges alone would leave nodes without any open for nothing.
        """
        tree = self.tree(chance)
        total = self.count(chance)
        for family in self.config.families:
            kernel = jnp.asarray(self.params["layers"][family.kernel]) != 0
            sources = tree[family.source][:, family.rows(self.config)]
            total += jnp.einsum(
                "li,lio,lo->", sources, kernel.astype(sources.dtype), tree[family.target]
            )
        return total

    def training_slices(self, batch: Batch) -> int:
        """As many as the batch says."""
        return batch.slices

    def full(self, batch: Batch) -> jax.Array:
        """Logits of the whole network, `[M, P, V]`."""
        return whole_rows(self.config, self.params, batch)

    def observed(
        self, tokens: jax.Array, positions: jax.Array, kept: slice = slice(None)
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits, and what every node held, {site: `[L, B, T, W]`}."""
        found = apply(
            self.config, self.params, tokens, positions=positions, capture=self.config.sites
        )
        return found.logits, {site: value[:, kept] for site, value in found.captured.items()}

    def logits(
        self,
        gates: jax.Array,
        batch: Batch,
        held: Fills | None = None,
        norms: Norms | None = None,
    ) -> jax.Array:
        """Logits `[M, P, V]` under gates `[G]`; `norms` as in `transformer.apply`."""
        tree = self.tree(gates)
        if self.small is not None:
            return reduced_rows(self.small, batch, tree, held)
        held = self.held if held is None else held
        return whole_rows(self.config, self.params, batch, tree, held, norms=norms)

    def answers(self, gates: jax.Array, batch: Batch, held: Fills | None = None) -> jax.Array:
        """Logits of the right and wrong completions, `[M, R + R']`."""
        if self.small is not None:
            return reduced_answers(self.small, batch, self.tree(gates), held)
        return picked(self.logits(gates, batch, held), batch)

    def needed(self, held: Fills) -> Fills:
        """All of it, or of a reduced network what it feeds."""
        if isinstance(self.small, TokenReduced):
            return held_within(self.small, self.params, held)
        return held

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The open nodes without dead and constant ones."""
        mask = self._mask(opened)
        kept, _, _ = cleanup(self.config, self._host(), mask, self._fills())
        return self.flat({site: kept[site] | (self.tied & mask[site] & _tied_alive(kept, site))
                          for site in self._shapes()})  # fmt: skip

    def cut(self, first: np.ndarray) -> np.ndarray:
        """All of them: clean-up, which is slow, closes the dead ones of the k that is chosen."""
        return first & self.exists()

    def cost(self, opened: np.ndarray) -> int:
        """Nonzero weights between open nodes."""
        return count_edges(self.config, self._host(), self._mask(opened))

    def saves(self, opened: np.ndarray) -> np.ndarray:
        """The edges of each open node; of a tied pair both nodes'."""
        found = edges_at(self.config, self._host(), self._mask(opened))
        if self.tied:
            found["attn.q"] = found["attn.q"] + found["attn.k"]
        return self.flat(found)

    def nodes(self, opened: np.ndarray) -> int:
        """How many nodes are open."""
        return sum(int(kept.sum()) for kept in self._mask(opened).values())

    def totals(self) -> tuple[int, int]:
        """Nodes, and nonzero weights between them."""
        return self.config.num_nodes, total_edges(self.config, self._host())

    def work(self) -> int:
        """Nodes."""
        return self.config.num_nodes

    def sizes(self) -> Sequence[int]:
        """A 64th, a 16th, a quarter of the units, where an exact reduction exists."""
        if not can_reduce(self.config):
            return ()
        return tuple(self.num_gates // share for share in (64, 16, 4))

    def reduced(
        self, opened: np.ndarray, *, own_widths: bool = False, at_least: Any = None
    ) -> "NodeGates":
        """The network without nodes that no gate will open."""
        if self.small is not None or not can_reduce(self.config):
            return self
        if self.held is None:
            kept, room = self._mask(opened), {"own_widths": own_widths, "at_least": at_least}
            within = reduce_for_tokens(self.config, self._host(), kept, **room)
            return dataclasses.replace(self, small=within)
        small = reduce_model(
            self.config,
            self._host(),
            self._mask(opened),
            jax.tree.map(np.asarray, dict(self.held)),
            own_widths=own_widths,
            at_least=at_least,
        )
        return dataclasses.replace(self, params=None, held=None, small=small)

    def clean(self, opened: np.ndarray) -> Part:
        """Closes dead and constant nodes, and writes the constants into what is held."""
        mask, fills, report = cleanup(self.config, self._host(), self._mask(opened), self._fills())
        held = fills if self.folds else jax.tree.map(np.asarray, self.held)
        held = None if self.held is None else held
        nodes = sum(int(kept.sum()) for kept in mask.values())
        return Part({"mask": mask}, held, report.counts, nodes, report.edges_after)

    def groups(self) -> np.ndarray:
        """A number for each site of each layer, or for each kind of larger unit."""
        if self.units != "channel":
            kinds = [name.partition(".")[2].rstrip("0123456789") for name in self.names()]
            return np.unique(kinds, return_inverse=True)[1]
        found = []
        for number, (layers, width) in enumerate(self._shapes().values()):
            found.append(number * layers + np.repeat(np.arange(layers), width))
        return np.concatenate(found)

    def names(self) -> list[str]:
        """Addresses, of a tied pair the q's; of larger units as in `units.py`."""
        if self.units != "channel":
            return list(self._units()[1])
        return [
            address(self.config, layer, site, index)
            for site, (layers, width) in self._shapes().items()
            for layer in range(layers)
            for index in range(width)
        ]

    def _mask(self, opened: np.ndarray) -> dict[str, np.ndarray]:
        return self.tree(np.asarray(opened, bool))

    def _host(self) -> dict[str, Any]:
        return jax.tree.map(np.asarray, dict(self.params))

    def _fills(self) -> dict[str, np.ndarray] | None:
        if self.held is None or not self.folds:
            return None
        return {s: np.asarray(f) for s, f in self.held.items()}


def _tied_alive(kept: Mapping[str, np.ndarray], site: str) -> np.ndarray | bool:
    """Of a tied pair's q: whether its k is alive."""
    return kept["attn.k"] if site == "attn.q" else False


def constants(
    config: TransformerConfig, ablation: str, means: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray] | None:
    """{site: float32 `[L, W]`} that closed nodes hold: means, zeros; None where it is per prompt.

    Raises:
      ValueError: mean ablation without means.
    """
    if is_per_prompt(ablation):
        return None
    if ablation == "zero":
        return {site: np.zeros(shape, np.float32) for site, shape in shapes(config).items()}
    assert ablation == "mean", f"which constants are those of {ablation!r}?"
    if means is None:
        raise ValueError(
            "the model has no activation means: compute them with `python -m experiments.means`, "
            "or use ablation=zero"
        )
    return {site: np.asarray(means[site], np.float32) for site in shapes(config)}


def node_view(
    config: TransformerConfig,
    params: Params,
    mask: Mapping[str, np.ndarray],
    held: Mapping[str, np.ndarray] | None,
    ablation: str,
) -> View:
    """A node mask as gates of the whole network."""
    params = placed_params(dict(params))
    fills = None if held is None else {s: jnp.asarray(f) for s, f in held.items()}
    model = NodeGates(params, fills, config=config, ablation=ablation)
    return View(model, model.flat(mask).astype(bool))
