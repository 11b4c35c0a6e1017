"""A circuit too large to draw line by line: how many parts it keeps where, and what sends to what.

Two tables with shaded cells. Left, rows are layers: of nodes and weights how many nodes are kept in
each head and at each other place, of residual edges how many edges touch each head and each MLP. Right,
rows are what writes to the residual stream and columns what reads from it: of nodes and weights the
pairs of a kept write and a later kept read of the same channel, of residual edges the edges themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitjax.model.config import TransformerConfig

__all__ = ["Table", "draw_summary", "kept_table", "stream_table"]

_BEFORE = {"attn.act_in": "attn read"}  # columns left of the heads, and right of them
_AFTER = {"attn.resid_delta": "attn write", "mlp.act_in": "mlp read", "mlp.gate": "gate"}
_AFTER |= {"mlp.up": "up", "mlp.post_act": "neurons", "mlp.resid_delta": "mlp write"}
_NUMBERED = 24  # rows or columns; above that a cell has no room for its number
_TICKS = 40  # of a side; above that only some blocks are named


class Table(NamedTuple):
    """Counts `[rows, columns]` with their names."""

    rows: Sequence[str]
    columns: Sequence[str]
    counts: np.ndarray


def _counted(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[tuple[str, str]]
) -> Table:
    counts = np.zeros((len(rows), len(columns)), int)
    row, column = ({name: i for i, name in enumerate(names)} for names in (rows, columns))
    for a, b in cells:
        counts[row[a], column[b]] += 1
    return Table(rows, columns, counts)


def kept_table(config: TransformerConfig, described: Mapping[str, Any]) -> Table:
    """What a circuit keeps, by layer and head.

    Args:
      config: of the model.
      described: the circuit, as `circuit.description.describe` gives it.

    Returns:
      Rows are layers. Of nodes and weights a column is a head (a group of heads that share keys and
      values is one of its own, `kv`), or another site; of residual edges a head or `mlp`, and an edge
      counts at both of its ends.
    """
    layers = [f"layer {layer}" for layer in range(config.num_layers)]
    nodes = {node["id"]: node for node in described["nodes"]}
    heads = [f"h{head}" for head in range(config.num_heads)]
    if not any(node["kind"] == "node" for node in nodes.values()):
        ends = [nodes[e[side]] for e in described["edges"] for side in ("source", "target")]
        cells = [
            (layers[node["layer"]], f"h{node['head']}" if node["kind"] == "head" else "mlp")
            for node in ends
            if "layer" in node
        ]
        return _counted(layers, [*heads, "mlp"], cells)
    shared = config.kv_heads != config.num_heads
    groups = [f"kv{head}" for head in range(config.kv_heads)] if shared else []
    names = {**_BEFORE, **_AFTER}

    def column(node: Mapping[str, Any]) -> str:
        if "head" not in node:
            return names[node["site"]]
        return f"{'kv' if shared and node['site'] != 'attn.q' else 'h'}{node['head']}"

    sites = set(config.sites)
    before, after = ([text for s, text in some.items() if s in sites] for some in (_BEFORE, _AFTER))
    cells = [(layers[node["layer"]], column(node)) for node in nodes.values()]
    return _counted(layers, [*before, *heads, *groups, *after], cells)


def stream_table(config: TransformerConfig, described: Mapping[str, Any]) -> Table:
    """What of a circuit sends to what through the residual stream.

    Args:
      config: of the model.
      described: the circuit, as `circuit.description.describe` gives it.

    Returns:
      Rows write and columns read, each a layer's attention or MLP; of residual edges also the embeddings
      (`input`) and the `logits`.
    """
    nodes = {node["id"]: node for node in described["nodes"]}
    blocks = [f"{layer} {kind}" for layer in range(config.num_layers) for kind in ("attn", "mlp")]

    def block(name: str) -> str:
        node = nodes[name]
        if "layer" not in node:
            return "logits" if node["kind"] == "logits" else "input"
        mlp = node["kind"] == "mlp" or node.get("site", "").startswith("mlp")
        return f"{node['layer']} {'mlp' if mlp else 'attn'}"

    sent = [e for e in described["edges"] if e["kind"] in ("residual", "residual_edge")]
    cells = [(block(edge["source"]), block(edge["target"])) for edge in sent]
    if any(node["kind"] == "node" for node in nodes.values()):
        return _counted(blocks, blocks, cells)
    return _counted(["input", *blocks], [*blocks, "logits"], cells)


def draw_summary(config: TransformerConfig, described: Mapping[str, Any], title: str) -> Figure:
    """Both tables as a figure.

    Args:
      config: of the model.
      described: the circuit, as `circuit.description.describe` gives it.
      title: of the figure.
    """
    kept, stream = kept_table(config, described), stream_table(config, described)
    channels = any(node["kind"] == "node" for node in described["nodes"])
    width = [min(12.0, 1.6 + 0.36 * len(table.columns)) for table in (kept, stream)]
    tall = max(min(12.0, 0.34 * len(table.rows)) for table in (kept, stream))
    figure = Figure(figsize=(sum(width) + 0.6, 2.2 + tall), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=width)
    _shade(left, kept, "nodes kept" if channels else "edges that begin or end there")
    what = "channels written and later read" if channels else "edges"
    _shade(right, stream, f"{what}, from row to column")
    figure.suptitle(title, fontsize=9)
    return figure


def _shade(axes: Axes, table: Table, title: str) -> None:
    counts = table.counts
    # By its root, so that few are told from none beside many.
    strength = np.sqrt(counts / max(counts.max(initial=0), 1))
    axes.imshow(strength, cmap="Blues", vmin=0, vmax=1.15, aspect="auto", interpolation="nearest")
    for side, names in ((axes.xaxis, table.columns), (axes.yaxis, table.rows)):
        step = -(-len(names) // _TICKS)
        side.set_ticks(range(0, len(names), step), list(names[::step]), fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(length=0)
    axes.set_title(f"{title}; largest {counts.max(initial=0):,}", fontsize=8)
    if max(counts.shape) > _NUMBERED:
        return
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = strength[row, column] > 0.65
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6}
            axes.text(column, row, str(count), color="white" if dark else "black", **style)
