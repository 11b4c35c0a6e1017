"""A circuit as a layered drawing: columns are steps of the forward pass, lines are edges.

Of nodes and weights: columns are sites; solid lines are edges (open weights between kept nodes), blue
for positive and orange for negative, wider for larger. Thin grey lines are the residual stream: what one
block writes to a channel, a later block reads from it. Of residual edges: columns are the embedding,
each layer's heads, its MLP, and the logits; a line's colour says what reads: q, k, v, or anything else.
Rows within a column are ordered by the average row of what feeds a node, so that lines cross little.
A circuit with more than 120 nodes, or 300 lines, is drawn as a summary by layer and head.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.description import describe
from circuitjax.model.record import Model
from circuitjax.report.circuit_summary import draw_summary
from circuitjax.report.plots import save_figure

__all__ = ["circuit_figure", "draw_circuit"]

_COLUMN = {
    "attn.act_in": 0,
    "attn.q": 1,
    "attn.k": 1,
    "attn.v": 1,
    "attn.resid_delta": 2,
    "mlp.act_in": 3,
    "mlp.gate": 4,
    "mlp.up": 4,
    "mlp.post_act": 5,
    "mlp.resid_delta": 6,
}
_TITLES = ("attn\nread", "q k v", "attn\nwrite", "mlp\nread", "gate up", "neuron", "mlp\nwrite")
_MARKER = {"attn.q": "^", "attn.k": "v", "attn.v": "D", "mlp.post_act": "s", "mlp": "s"}
_MARKER |= {"mlp.gate": "<", "mlp.up": ">"}
# What markers stand for, in the legend.
_NAMED = {
    "^": "q",
    "v": "k",
    "D": "v",
    "<": "gate",
    ">": "up",
    "s": "MLP",
    "o": "read, write, head",
}
_POSITIVE, _NEGATIVE = "#0072B2", "#D55E00"
_READERS = {"q": "#009E73", "k": "#CC79A7", "v": "#56B4E9"}
_OTHER_READER = "#7F7F7F"
_NODES, _LINES = 120, 300  # above either the drawing would be a tangle, and is a summary
_ROW = 0.17  # inches of the figure that a label needs


class _Place(NamedTuple):
    """Where a node stands and how it looks; equal columns have equal titles."""

    column: int
    title: str
    order: tuple[str, int]
    marker: str
    label: str


def _channel(node: Mapping) -> _Place:
    """Of a node of the transformer."""
    layer, site, index = node["layer"], node["site"], node["index"]
    column = _COLUMN[site]
    label = str(index)
    if "head" in node:
        label = f"{site[-1]} h{node['head']}.c{node['channel']}"
    title = f"{layer}. {_TITLES[column]}"
    return _Place(
        len(_TITLES) * layer + column, title, (site, index), _MARKER.get(site, "o"), label
    )


def _component(node: Mapping, layers: int) -> _Place:
    """Of a writer or reader of the residual graph."""
    name, kind = node["id"], node["kind"]
    if kind in ("head", "mlp"):
        column = 1 + 2 * node["layer"] + (kind == "mlp")
        title = f"{node['layer']}. {'heads' if kind == 'head' else 'mlp'}"
    else:
        column = 1 + 2 * layers if kind == "logits" else 0
        title = "logits" if kind == "logits" else "input"
    return _Place(column, title, (kind, node.get("head", 0)), _MARKER.get(kind, "o"), name)


def _rows(
    places: Mapping[str, _Place], edges: Sequence[tuple[str, str]]
) -> dict[str, tuple[int, float]]:
    """Column, counted without gaps, and height in (0, 1) of each node."""
    sources: dict[str, list[str]] = {}
    for a, b in edges:
        sources.setdefault(b, []).append(a)
    row: dict[str, float] = {}
    at = {}

    def height(name: str) -> tuple[float, tuple[str, int]]:
        feeding = [row[s] for s in sources.get(name, ()) if s in row]
        return (float(np.mean(feeding)) if feeding else 0.5, places[name].order)

    for number, column in enumerate(sorted({place.column for place in places.values()})):
        ordered = sorted((n for n, p in places.items() if p.column == column), key=height)
        for index, name in enumerate(ordered):
            row[name] = (index + 0.5) / len(ordered)
            at[name] = number, row[name]
    return at


def draw_circuit(path: str | pathlib.Path, model: Model, circuit: Circuit, title: str = "") -> None:
    """Draws a circuit of any grain to a PNG; see `circuit_figure`.

    Args:
      path: file to write.
      model: the network the circuit was cut from.
      circuit: what to draw; an empty one is an empty drawing.
      title: of the figure.

    Raises:
      ValueError: the circuit is of another model.
    """
    save_figure(circuit_figure(model, circuit, title), path)


def circuit_figure(model: Model, circuit: Circuit, title: str = "") -> Figure:
    """A circuit of any grain as a figure: node by node, or its summary where it is large.

    Args:
      model: the network the circuit was cut from.
      circuit: what to draw; an empty one is an empty drawing.
      title: of the figure.

    Raises:
      ValueError: the circuit is of another model.
    """
    circuit.check_model(model)
    title = title or f"{circuit.num_nodes} nodes, {circuit.num_edges} edges"
    described = describe(circuit, model) if circuit.num_nodes else {"nodes": [], "edges": []}
    if len(described["nodes"]) > _NODES or len(described["edges"]) > _LINES:
        return draw_summary(model.config, described, title)
    channels = "mask" in circuit.opened
    places = {
        node["id"]: _channel(node) if channels else _component(node, model.config.num_layers)
        for node in described["nodes"]
    }
    at = _rows(places, [(edge["source"], edge["target"]) for edge in described["edges"]])
    columns = {at[name][0]: place.title for name, place in places.items()}
    tallest = max([sum(x == column for x, _ in at.values()) for column in columns] or [1])
    height = max(min(14.0, 1.8 + 0.24 * tallest), _ROW * tallest)
    figure = Figure(figsize=(max(5.0, 1.5 * len(columns)), height))
    axes = figure.subplots()
    _draw_lines(axes, at, described["edges"])
    for name, place in places.items():
        x, y = at[name]
        axes.plot(x, y, place.marker, color="black", markersize=4, zorder=3)
        beside = {"textcoords": "offset points", "fontsize": 6, "ha": "left", "va": "center"}
        text = axes.annotate(place.label, (x, y), (4, 0), **beside)  # type: ignore[arg-type]
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])  # over lines
    axes.set_xticks(sorted(columns), [columns[x] for x in sorted(columns)], fontsize=7)
    axes.set(yticks=[], xlim=(-0.6, max(len(columns) - 0.4, 0.6)), ylim=(-0.02, 1.06))
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, fontsize=9)
    _explain(axes, height, places.values(), described["edges"])
    return figure


def _explain(axes: Axes, height: float, places: Iterable[_Place], edges: Sequence[Mapping]) -> None:
    """A legend of the markers and the lines that there are, below axes of a height in inches."""
    lines = {
        "weight above 0": (
            _POSITIVE,
            any(e["kind"] == "weight" and e["weight"] > 0 for e in edges),
        ),
        "weight below 0": (
            _NEGATIVE,
            any(e["kind"] == "weight" and e["weight"] < 0 for e in edges),
        ),
        "residual stream": ("0.75", any(e["kind"] == "residual" for e in edges)),
    }
    read = {e.get("reader", "") for e in edges if e["kind"] == "residual_edge"}
    lines |= {f"read as {name}": (colour, name in read) for name, colour in _READERS.items()}
    lines["read by another"] = (_OTHER_READER, bool(read - set(_READERS)))
    shown = [Line2D([], [], color=c, label=name) for name, (c, there) in lines.items() if there]
    markers = {place.marker for place in places}
    shown += [
        Line2D([], [], color="black", marker=marker, linestyle="", markersize=4, label=name)
        for marker, name in _NAMED.items()
        if marker in markers
    ]
    if shown:
        below: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.55 / height)}
        axes.legend(handles=shown, ncols=5, fontsize=6, frameon=False, **below)


def _draw_lines(axes: Axes, at: Mapping[str, tuple[int, float]], edges: Sequence[Mapping]) -> None:
    """The residual stream behind, then residual edges, then weights."""

    def lines(kind: str) -> tuple[list[Mapping], list]:
        some = [edge for edge in edges if edge["kind"] == kind]
        return some, [(at[edge["source"]], at[edge["target"]]) for edge in some]

    _, ends = lines("residual")
    axes.add_collection(LineCollection(ends, colors="0.75", linewidths=0.7))
    some, ends = lines("residual_edge")
    colours = [_READERS.get(edge.get("reader", ""), _OTHER_READER) for edge in some]
    axes.add_collection(LineCollection(ends, colors=colours, linewidths=1.0, alpha=0.75))
    some, ends = lines("weight")
    weights = np.array([edge["weight"] for edge in some])
    strength = np.abs(weights) / np.abs(weights).max(initial=1e-30)
    colours = [_POSITIVE if weight > 0 else _NEGATIVE for weight in weights]
    widths = 0.4 + 2.2 * strength
    axes.add_collection(LineCollection(ends, colors=colours, linewidths=widths, alpha=0.75))
