"""A circuit as a layered drawing: columns are sites in forward order, lines are edges.

Solid lines are edges (open weights between kept nodes), blue for positive and orange for negative,
wider for larger. Thin grey lines are the residual stream: what one block writes to a channel, a later
block reads from it. Rows within a column are ordered by the average row of what feeds a node, so that
lines cross little.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address

__all__ = ["draw_circuit"]

_COLUMN = {
    "attn.act_in": 0,
    "attn.q": 1,
    "attn.k": 1,
    "attn.v": 1,
    "attn.resid_delta": 2,
    "mlp.act_in": 3,
    "mlp.post_act": 4,
    "mlp.resid_delta": 5,
}
_TITLES = ("attn\nread", "q k v", "attn\nwrite", "mlp\nread", "neuron", "mlp\nwrite")
_MARKER = {"attn.q": "^", "attn.k": "v", "attn.v": "D", "mlp.post_act": "s"}
_POSITIVE, _NEGATIVE = "#0072B2", "#D55E00"
_LABELLED = 120  # nodes; above that their names would only hide the lines

_Node = tuple[int, str, int]


def _residual_links(nodes: list[_Node]) -> list[tuple[_Node, _Node]]:
    """From each write to the nearest later read of its channel, if there is one before the logits."""
    links = []
    reads = [n for n in nodes if n[1].endswith("act_in")]
    for node in nodes:
        if not node[1].endswith("resid_delta"):
            continue
        here = node[0] * 6 + _COLUMN[node[1]]
        later = [r for r in reads if r[2] == node[2] and r[0] * 6 + _COLUMN[r[1]] > here]
        links += [(node, read) for read in later]
    return links


def _rows(
    columns: Mapping[int, list[_Node]], sources: Mapping[_Node, list[_Node]]
) -> dict[_Node, float]:
    place: dict[_Node, float] = {}
    for column in sorted(columns):

        def height(node: _Node) -> tuple[float, str, int]:
            feeding = [place[s] for s in sources.get(node, ()) if s in place]
            return (float(np.mean(feeding)) if feeding else 0.5, node[1], node[2])

        ordered = sorted(columns[column], key=height)
        for row, node in enumerate(ordered):
            place[node] = (row + 0.5) / len(ordered)
    return place


def draw_circuit(path: str | pathlib.Path, model: Model, circuit: Circuit, title: str = "") -> None:
    """Draws the circuit to a PNG.

    Args:
      path: file to write.
      model: the network the circuit was cut from.
      circuit: what to draw.
      title: of the figure.

    Raises:
      ValueError: the circuit is of another model.
    """
    circuit.check_model(model)
    config = model.config
    nodes = [parse_address(config, name) for name in circuit.nodes]
    edges = [
        (parse_address(config, a), parse_address(config, b), weight)
        for a, b, weight in circuit.edges(model)
    ]
    links = _residual_links(nodes)
    used = sorted({node[0] * 6 + _COLUMN[node[1]] for node in nodes})
    column_of = {column: index for index, column in enumerate(used)}
    columns: dict[int, list[_Node]] = {}
    for node in nodes:
        columns.setdefault(column_of[node[0] * 6 + _COLUMN[node[1]]], []).append(node)
    sources: dict[_Node, list[_Node]] = {}
    for a, b in [*((a, b) for a, b, _ in edges), *links]:
        sources.setdefault(b, []).append(a)
    row = _rows(columns, sources)
    at = {n: (column_of[n[0] * 6 + _COLUMN[n[1]]], row[n]) for n in nodes}

    tallest = max([len(column) for column in columns.values()] or [1])
    figure = Figure(figsize=(max(5.0, 1.5 * len(used)), min(14.0, 1.8 + 0.24 * tallest)))
    axes = figure.subplots()
    grey = LineCollection([(at[a], at[b]) for a, b in links], colors="0.75", linewidths=0.7)
    axes.add_collection(grey)
    if edges:
        weights = np.array([weight for *_, weight in edges])
        strength = np.abs(weights) / np.abs(weights).max()
        axes.add_collection(
            LineCollection(
                [(at[a], at[b]) for a, b, _ in edges],
                colors=[_POSITIVE if weight > 0 else _NEGATIVE for weight in weights],
                linewidths=0.4 + 2.2 * strength,
                alpha=0.75,
            )
        )
    for node in nodes:
        x, y = at[node]
        axes.plot(x, y, _MARKER.get(node[1], "o"), color="black", markersize=4, zorder=3)
        if len(nodes) <= _LABELLED:
            text = str(node[2])
            if node[1] in ("attn.q", "attn.k", "attn.v"):
                head, channel = divmod(node[2], config.d_head)
                text = f"{node[1][-1]} h{head}.c{channel}"
            axes.annotate(
                text, (x, y), xytext=(0, 4), textcoords="offset points", fontsize=6, ha="center"
            )
    axes.set_xticks(range(len(used)), [f"{c // 6}. {_TITLES[c % 6]}" for c in used], fontsize=7)
    axes.set(yticks=[], xlim=(-0.6, max(len(used) - 0.4, 0.6)), ylim=(-0.02, 1.06))
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.set_title(title or f"{circuit.num_nodes} nodes, {len(edges)} edges", fontsize=9)
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}.tmp.png")
    figure.savefig(temporary, dpi=110, bbox_inches="tight")
    temporary.replace(target)
