"""A circuit taken apart: each node and each edge closed by itself, or any set of them.

A closed node holds its fill; a closed edge contributes its weight times the fill of its source. The
circuit is folded into a reduced model once (`model.reduced`), gates of nodes and of weights act
within it, and every knock-out is one more row of a single compiled program: rows follow one another on
CPU and lie side by side on an accelerator.

    effect of a part = task loss without it - task loss of the circuit,   in nats

under the circuit's stored calibration. Axis letters: K variants, N nodes of the model (in the order of
`model.sites`), E gates on weights, M pairs.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.families import FAMILIES
from circuitjax.model.reduced import can_reduce
from circuitjax.model.sites import address, flatten, unflatten
from circuitjax.model.transformer import Gates
from circuitjax.prune.evaluate import mean_binary_loss
from circuitjax.prune.objective import AnyPairs, Pairs, binary_losses, calibrated_differences
from circuitjax.prune.packing import packed_batches, uneven_batches
from circuitjax.prune.problem import Problem
from circuitjax.prune.weight_gates import (
    WeightData,
    reduce_weights,
    weight_differences,
    weight_index,
    whole_weights,
)
from circuitjax.prune.weight_paths import real_gates

__all__ = ["Effects", "Parts", "effects"]

_ROOM = 64  # variants per call of the compiled program
_MOST = 192  # parts of one kind that are closed one by one; beyond, the rest is estimated


class Parts:
    """A circuit whose nodes and edges can be closed.

    Attributes:
      mask: bool `[N]`, its nodes.
      edges: bool `[E]`, its edges among the gates on weights (the others are padding).
    """

    def __init__(self, gated: Problem, circuit: Circuit) -> None:
        """Folds the circuit.

        Args:
          gated: `evidence.gated_problem` of the circuit.
          circuit: of nodes or of weights.
        """
        config = self._config = gated.config
        params = jax.tree.map(np.asarray, dict(gated.params))
        self._index = weight_index(config, params, circuit.mask)
        if can_reduce(config):
            data = reduce_weights(
                config, params, circuit.fills, circuit.mask, self._index, own_widths=True
            )
        else:
            data = whole_weights(gated.params, circuit.fills, circuit.mask, self._index)
        self._data = data
        self.mask = np.asarray(flatten(circuit.gates())) > 0.5
        self.edges = real_gates(self._index)

    def differences(
        self, pairs: Pairs, nodes: np.ndarray | None = None, edges: np.ndarray | None = None
    ) -> np.ndarray:
        """Logit differences `[K, M, 2]` of variants.

        Args:
          pairs: M of them.
          nodes: bool `[K, N]`, subsets of the circuit's nodes; None: all of them.
          edges: bool `[K, E]`, subsets of its edges; None: all of them.
        """
        count = len(nodes) if nodes is not None else len(edges) if edges is not None else 1
        nodes = np.broadcast_to(self.mask, (count, self.mask.size)) if nodes is None else nodes
        edges = np.broadcast_to(self.edges, (count, self.edges.size)) if edges is None else edges
        side_by_side = jax.default_backend() != "cpu"
        (batches, places), groups = packed_batches(pairs, self._config.causal), []
        for start in range(0, count, _ROOM):
            used = min(_ROOM, count - start)
            rows = start + np.minimum(np.arange(_ROOM), used - 1)
            gates = unflatten(self._config, nodes[rows].astype(np.float32))
            z = edges[rows].astype(np.float32)
            parts = [
                _differences(self._config, side_by_side, self._data, batch, gates, z, used)
                for batch in batches
            ]
            groups.append(np.concatenate(jax.device_get(parts), axis=1)[:used, places])
        return np.concatenate(groups)

    def slopes(
        self,
        pairs: Pairs,
        scale: float,
        shift: float,
        nodes: np.ndarray | None = None,
        edges: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """To first order, the rise in nats by closing each node `[N]` and each edge `[E]`.

        Args:
          pairs: to measure on.
          scale, shift: calibration.
          nodes: bool `[N]`, a subset of the circuit's: where the slopes are taken; None: all of them.
          edges: bool `[E]`, likewise.
        """
        gates = unflatten(self._config, (self.mask if nodes is None else nodes).astype(np.float32))
        z = (self.edges if edges is None else edges).astype(np.float32)
        of_nodes, of_edges = np.zeros(self.mask.size), np.zeros(z.size)
        for batch in uneven_batches(pairs, self._config.causal):
            found = _slopes(self._config, self._data, batch, gates, z, scale, shift)
            of_nodes -= np.asarray(flatten(found[0])) * batch.size / pairs.size
            of_edges -= np.asarray(found[1]) * batch.size / pairs.size
        return of_nodes, of_edges

    def between(self, nodes: np.ndarray) -> np.ndarray:
        """bool `[E]`: the edges between nodes of bool `[N]`."""
        tree = unflatten(self._config, jnp.asarray(nodes, jnp.float32))
        ends = [np.asarray(self._index.at_ends(tree, end)) > 0 for end in ("source", "target")]
        return self.edges & ends[0] & ends[1]

    def open_weights(self, edges: np.ndarray) -> dict[str, np.ndarray]:
        """{family name: bool `[L, in, out]`}: all weights are open but edges left out of bool `[E]`."""
        return self._index.opened(self._config, edges & self.edges)

    def edge_names(self) -> list[tuple[str, str]]:
        """(source, target) addresses of the edges, in the order of `edges` where it is true."""
        names = []
        for family in FAMILIES:
            _, inputs, outputs = family.shape(self._config)
            real = np.asarray(self._index.values[family.name]) != 0
            for place in np.asarray(self._index.flat[family.name])[real]:
                layer, rest = divmod(int(place), inputs * outputs)
                source, target = divmod(rest, outputs)
                names.append(
                    (
                        address(self._config, layer, family.source, source),
                        address(self._config, layer, family.target, target),
                    )
                )
        return names


@functools.partial(jax.jit, static_argnums=(0, 1))
def _differences(
    config: TransformerConfig,
    side_by_side: bool,
    data: WeightData,
    pairs: AnyPairs,
    gates: Gates,
    z: jax.Array,
    used: int,
) -> jax.Array:
    """`[K, B, 2]`; one after another only the first `used` are worked out."""

    def one(row: jax.Array | int) -> jax.Array:
        own = {site: gate[row] for site, gate in gates.items()}
        return weight_differences(config, data, z[row], own, pairs)

    if side_by_side:
        return jax.vmap(one)(jnp.arange(_ROOM))
    empty = jnp.zeros((_ROOM, pairs.size, 2))
    return lax.fori_loop(0, used, lambda row, found: found.at[row].set(one(row)), empty)


@functools.partial(jax.jit, static_argnums=0)
def _slopes(
    config: TransformerConfig,
    data: WeightData,
    pairs: AnyPairs,
    gates: Gates,
    z: jax.Array,
    scale: jax.Array | float,
    shift: jax.Array | float,
) -> tuple[Gates, jax.Array]:
    def loss_of(gates: Gates, z: jax.Array) -> jax.Array:
        found = weight_differences(config, data, z, gates, pairs)
        return jnp.mean(binary_losses(calibrated_differences(found, scale, shift)))

    return jax.grad(loss_of, argnums=(0, 1))(gates, z)


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """What each part does by itself; losses in nats.

    Attributes:
      loss: of the circuit, on the same pairs.
      nodes: {address: effect}.
      edges: {(source, target): effect}.
      estimated_nodes, estimated_edges: how many of them, those with the smallest estimates, are known
        to first order only.
    """

    loss: float
    nodes: dict[str, float]
    edges: dict[tuple[str, str], float]
    estimated_nodes: int = 0
    estimated_edges: int = 0


def effects(
    parts: Parts,
    circuit: Circuit,
    pairs: Pairs,
    *,
    calibrated: bool = True,
    most: int = _MOST,
    edges: bool = True,
) -> Effects:
    """Closes every node and every edge of a circuit, one at a time.

    Args:
      parts: of the circuit.
      circuit: for its calibration.
      pairs: to measure on.
      calibrated: whether its stored calibration counts.
      most: nodes, and edges, that are closed one by one: those of the largest first-order estimates.
      edges: False leaves the edges out.
    """
    scale, shift = (circuit.scale, circuit.shift) if calibrated else (1.0, 0.0)

    def losses(found: np.ndarray) -> np.ndarray:
        return mean_binary_loss(calibrated_differences(found, scale, shift))

    base = float(losses(parts.differences(pairs))[0])
    rises: list[np.ndarray] = []
    left: list[int] = []
    slopes = None
    for kind, whole in enumerate((parts.mask, parts.edges) if edges else (parts.mask,)):
        places = np.flatnonzero(whole)
        found = np.zeros(len(places))
        chosen = np.arange(len(places))
        if len(places) > most:
            slopes = slopes or parts.slopes(pairs, scale, shift)
            found = slopes[kind][places]
            chosen = np.argsort(-np.abs(found), kind="stable")[:most]
        for start in range(0, len(chosen), _ROOM):  # rows of N gates each: no more than needed
            some = chosen[start : start + _ROOM]
            rows = np.broadcast_to(whole, (len(some), whole.size)).copy()
            rows[np.arange(len(some)), places[some]] = False
            closed = (rows, None) if kind == 0 else (None, rows)
            found[some] = losses(parts.differences(pairs, *closed)) - base
        rises.append(found)
        left.append(len(places) - len(chosen))
    return Effects(
        loss=base,
        nodes=dict(zip(_flat_addresses(circuit), rises[0].tolist(), strict=True)),
        edges=dict(zip(parts.edge_names(), rises[1].tolist(), strict=True)) if edges else {},
        estimated_nodes=left[0],
        estimated_edges=left[1] if edges else 0,
    )


def _flat_addresses(circuit: Circuit) -> list[str]:
    """Addresses of the kept nodes in the order of `sites.flatten`."""
    return [
        address(circuit.config, layer, site, int(index))
        for site in SITES
        for layer, row in enumerate(circuit.mask[site])
        for index in np.flatnonzero(row)
    ]
