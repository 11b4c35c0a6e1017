"""What one gate opens: a channel, a head or MLP, or a whole block; between them, the edges.

    nodes   channel   every node has a gate of its own (Gao et al. 2025)
            head      l.h<i>    q, k and v of a head; only q where several queries share keys and values
                      l.kv<g>   shared k and v
                      l.attn    what the layer's attention reads from the stream, and writes to it
                      l.mlp     an MLP: what it reads, its neurons, what it writes
            block     l.attn, l.mlp: all of a layer's attention, all of its MLP
    edges   channel   every residual edge: q, k and v of a head read apart (Bhaskar et al. 2024)
            head      what a head or MLP reads of a writer: q, k and v together, a shared k and v
            block     what a layer's attention, or its MLP, reads of another one

Axis letters: G gates, N nodes, in the order of `model/sites.py`, E residual edges, in the graph's.
"""

import functools
from typing import Literal

import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import shapes

__all__ = ["UNITS", "Units", "edge_units", "gathered", "units_of"]

Units = Literal["channel", "head", "block"]
UNITS: tuple[Units, ...] = ("channel", "head", "block")


@functools.lru_cache(maxsize=64)
def units_of(
    config: TransformerConfig, units: Units, sites: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The unit of each node, int `[N]`, and the units' names `[G]`, in the order in which they come.

    Args:
      config: the model's.
      units: `head` or `block`.
      sites: those that have gates of their own, in order.
    """
    names: dict[str, int] = {}
    owner: list[int] = []
    for site in sites:
        layers, width = shapes(config)[site]
        for layer in range(layers):
            for index in range(width):
                name = f"{layer}.{_unit(config, units, site, index)}"
                owner.append(names.setdefault(name, len(names)))
    return np.array(owner, np.int32), tuple(names)


def _unit(config: TransformerConfig, units: Units, site: str, index: int) -> str:
    block, _, part = site.partition(".")
    if units == "block" or part not in ("q", "k", "v"):
        return block
    shared = part != "q" and config.queries_per_kv > 1
    return f"{'kv' if shared else 'h'}{index // config.d_head}"


@functools.lru_cache(maxsize=64)
def edge_units(config: TransformerConfig, units: Units) -> tuple[np.ndarray, tuple[str, ...]]:
    """The unit of each residual edge, int `[E]`, and the units' names `[G]`, in order."""
    names: dict[str, int] = {}
    owner = []
    for edge in residual_graph(config).names:
        ends = edge.split("->")
        if units != "channel":
            ends = [end.partition("<")[0] for end in ends]
        if units == "block":
            ends = [end.partition(".")[0] for end in ends]
        owner.append(names.setdefault("->".join(ends), len(names)))
    return np.array(owner, np.int32), tuple(names)


def gathered(owner: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Of each of `count` units the sum over what it owns, or, of bools, whether it owns any."""
    found = np.bincount(owner, weights=values, minlength=count)
    return found > 0 if values.dtype == bool else found
