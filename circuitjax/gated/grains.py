"""The grains by name, and what a circuit of each is made of: the one table that tells them apart.

A circuit keeps {name: arrays} of what is open and, where closed parts hold constants, these; both are
described here for each grain, together with the circuit's nodes and edges and its views as gates.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from circuitjax.core.files import cut
from circuitjax.gated.edges import edge_view, flat_shape, touched
from circuitjax.gated.nodes import node_view
from circuitjax.gated.protocol import View
from circuitjax.gated.weight_index import close_weights
from circuitjax.gated.weights import weight_view, weights_within
from circuitjax.model.config import TransformerConfig
from circuitjax.model.graph import check_mask, edge_list, total_edges
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import kept_addresses, shapes
from circuitjax.model.transformer import Params

__all__ = ["GRAINS", "Grain", "grain_named"]

_Opened = Mapping[str, Any]
_Edge = tuple[str, str, float | None]


@dataclasses.dataclass(frozen=True)
class Grain:
    """What there is to know of the circuits of one grain.

    Attributes:
      name: of the grain.
      unit: what its gates are called, in the plural.
      opened: abstract arrays of what is open.
      held: abstract arrays of constants that closed parts hold.
      check: makes sure of both, as far as shapes do not say it.
      nodes: addresses of the kept nodes.
      edges: (source, target, weight) of the edges; the weight is None where an edge has none.
      totals: nodes and edges of the whole network.
      view: the circuit as gates of the whole network.
      parts: the circuit's own nodes and edges as gates, all of them open: {"nodes" or "edges": view}.
    """

    name: str
    unit: str
    opened: Callable[[TransformerConfig], Any]
    held: Callable[[TransformerConfig], Any]
    check: Callable[[TransformerConfig, _Opened], dict[str, Any]]
    nodes: Callable[[TransformerConfig, _Opened], list[str]]
    edges: Callable[[TransformerConfig, Params | None, _Opened, Any], list[_Edge]]
    totals: Callable[[TransformerConfig, Params], tuple[int, int]]
    view: Callable[[TransformerConfig, Params, _Opened, Any, str], View]
    parts: Callable[[TransformerConfig, Params, _Opened, Any, str], dict[str, View]]


def _masks(config: TransformerConfig) -> dict[str, Any]:
    return {"mask": {s: jax.ShapeDtypeStruct(x, np.bool_) for s, x in shapes(config).items()}}


def _fills(config: TransformerConfig) -> dict[str, Any]:
    return {s: jax.ShapeDtypeStruct(x, np.float32) for s, x in shapes(config).items()}


def _families(config: TransformerConfig) -> dict[str, Any]:
    kinds = {f.name: jax.ShapeDtypeStruct(f.shape(config), np.bool_) for f in config.families}
    return {**_masks(config), "weights": kinds}


def _check_nodes(config: TransformerConfig, opened: _Opened) -> dict[str, Any]:
    return {"mask": check_mask(config, opened["mask"])}


def _check_weights(config: TransformerConfig, opened: _Opened) -> dict[str, Any]:
    weights, names = opened["weights"], [family.name for family in config.families]
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(
            f"the weights have an unknown family {cut(unknown[0])}; choose from {names}"
        )
    checked = {}
    for family in config.families:
        name, shape = family.name, family.shape(config)
        found = np.shape(weights[name]) if name in weights else None
        if found != shape:
            raise ValueError(f"the weights of {name} are shaped {found}; this model's are {shape}")
        checked[name] = np.asarray(weights[name], bool)
    return {**_check_nodes(config, opened), "weights": checked}


def _check_edges(config: TransformerConfig, opened: _Opened) -> dict[str, Any]:
    count = residual_graph(config).num_edges
    if np.shape(opened["kept"]) != (count,):
        raise ValueError(
            f"the edges are shaped {np.shape(opened['kept'])}; this model's are ({count},)"
        )
    return {"kept": np.asarray(opened["kept"], bool)}


def _params(params: Params | None) -> Params:
    if params is None:
        raise ValueError(
            "the edges of a circuit of nodes or weights are its model's: give the model"
        )
    return params


def _node_edges(config: TransformerConfig, params: Any, opened: _Opened, held: Any) -> list[_Edge]:
    del held
    return list(edge_list(config, _params(params), opened["mask"]))


def _closed(
    config: TransformerConfig, params: Params | None, opened: _Opened, held: Any
) -> tuple[TransformerConfig, Params]:
    return close_weights(config, _params(params), held, opened["weights"])


def _weight_edges(
    config: TransformerConfig, params: Any, opened: _Opened, held: Any
) -> list[_Edge]:
    return list(edge_list(*_closed(config, params, opened, held), opened["mask"]))


def _graph_edges(config: TransformerConfig, params: Any, opened: _Opened, held: Any) -> list[_Edge]:
    del params, held
    names = residual_graph(config).names
    ends = [name.split("->") for name, kept in zip(names, opened["kept"], strict=True) if kept]
    return [(source, target, None) for source, target in ends]


def _node_parts(
    config: TransformerConfig, params: Params, opened: _Opened, held: Any, ablation: str
) -> dict[str, View]:
    mask = opened["mask"]
    found = {"nodes": node_view(config, params, mask, held, ablation)}
    if edge_list(config, params, mask):
        found["edges"] = weights_within(config, params, mask, held, ablation)
    return found


def _weight_parts(
    config: TransformerConfig, params: Params, opened: _Opened, held: Any, ablation: str
) -> dict[str, View]:
    if held is None:
        return {"edges": weight_view(config, params, opened, held, ablation)}
    return _node_parts(*_closed(config, params, opened, held), opened, held, ablation)


def _edge_parts(
    config: TransformerConfig, params: Params, opened: _Opened, held: Any, ablation: str
) -> dict[str, View]:
    return {"edges": edge_view(config, params, opened, held, ablation)}


def _node_totals(config: TransformerConfig, params: Params) -> tuple[int, int]:
    return config.num_nodes, total_edges(config, params)


def _graph_totals(config: TransformerConfig, params: Params) -> tuple[int, int]:
    del params
    graph = residual_graph(config)
    return len(graph.writers) + 1, graph.num_edges


def _writers(config: TransformerConfig) -> Any:
    return jax.ShapeDtypeStruct(flat_shape(config), np.float32)


GRAINS: Mapping[str, Grain] = MappingProxyType(
    {
        "nodes": Grain(
            "nodes", "nodes", _masks, _fills, _check_nodes,
            lambda config, opened: kept_addresses(config, opened["mask"]),
            _node_edges, _node_totals,
            lambda config, params, opened, *rest: node_view(config, params, opened["mask"], *rest),
            _node_parts,
        ),
        "weights": Grain(
            "weights", "weights", _families, _fills, _check_weights,
            lambda config, opened: kept_addresses(config, opened["mask"]),
            _weight_edges, _node_totals, weight_view, _weight_parts,
        ),
        "edges": Grain(
            "edges", "edges",
            lambda config: {
                "kept": jax.ShapeDtypeStruct((residual_graph(config).num_edges,), np.bool_)
            },
            _writers, _check_edges,
            lambda config, opened: touched(residual_graph(config), opened["kept"]),
            _graph_edges, _graph_totals, edge_view, _edge_parts,
        ),
    }
)  # fmt: skip


@functools.cache
def grain_named(name: str) -> Grain:
    """The grain of that name; ValueError names those there are."""
    if name not in GRAINS:
        raise ValueError(f"there is no grain {cut(name)}: choose of {', '.join(GRAINS)}")
    return GRAINS[name]
