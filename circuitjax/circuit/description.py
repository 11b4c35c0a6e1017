"""A circuit as plain data that other programs read: the document of the JSON export.

Its form is published as `schema/circuit.schema.json`, beside this file. Nodes and edges are listed;
what a node is follows from its fields, not from its name. In circuits of nodes or weights there are
two kinds of edges: `weight`, the edges that are counted (open nonzero weights between kept nodes), and
`residual`, which are not counted: from what writes a residual channel to every later kept node that
reads it, so that the graph is connected as the computation is.
"""

import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.files import cut
from circuitjax.gated.grains import grain_named
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import address, parse_address
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["FORMAT", "describe", "json_schema"]

FORMAT = "circuitjax-graph-2"

_TOKENS = 5  # per node


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of `describe`."""
    folder = importlib.resources.files("circuitjax.circuit") / "schema"
    text = (folder / "circuit.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def describe(circuit: Circuit, model: Model) -> dict[str, Any]:
    """The circuit as JSON-able data, in the form of `json_schema`.

    Args:
      circuit: of any grain, not empty.
      model: the circuit's own.

    Raises:
      ValueError: another model's, or an empty circuit.
    """
    circuit.check_model(model)
    task = circuit.provenance.get("task")
    if not circuit.num_nodes:
        raise ValueError(f"the circuit of task {cut(task)} is empty: there is nothing to export")
    mask = circuit.opened.get("mask")
    of_nodes, of_edges = grain_named(circuit.grain).totals(circuit.config, model.params)
    return {
        "format": FORMAT,
        "grain": circuit.grain,
        "ablation": circuit.ablation,
        "model": {
            "name": circuit.model_name,
            "hash": circuit.model_hash,
            "config": circuit.config.to_dict(),
        },
        "task": None if task is None else str(task),
        "calibration": {"scale": circuit.scale, "shift": circuit.shift},
        "counts": {
            "nodes": circuit.num_nodes,
            "of_nodes": of_nodes,
            "edges": circuit.num_edges,
            "of_edges": of_edges,
        },
        **(_components(circuit) if mask is None else _channels(circuit, model, mask)),
        "provenance": dict(circuit.provenance),
    }


def _channels(circuit: Circuit, model: Model, mask: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nodes and edges of a circuit that keeps {site: bool `[L, W]`}."""
    nodes = [_node(circuit.config, name) for name in circuit.nodes()]
    nearest = _nearest_tokens(model, nodes)
    edges: list[dict[str, Any]] = [
        {"source": source, "target": target, "kind": "weight", "weight": weight}
        for source, target, weight in circuit.edges()
    ]
    edges += [
        {"source": source, "target": target, "kind": "residual"}
        for source, target in _residual_links(circuit.config, mask)
    ]
    return {"nodes": [{**node, "tokens": nearest[node["id"]]} for node in nodes], "edges": edges}


def _node(config: TransformerConfig, name: str) -> dict[str, Any]:
    layer, site, index = parse_address(config, name)
    fields = {"id": name, "kind": "node", "layer": layer, "site": site, "index": index}
    if site in ("attn.q", "attn.k", "attn.v"):
        head, channel = divmod(index, config.d_head)
        fields |= {"head": head, "channel": channel}
    return fields


def _residual_links(
    config: TransformerConfig, mask: Mapping[str, np.ndarray]
) -> list[tuple[str, str]]:
    """From each kept write to every later kept read of its channel, in forward order."""
    order = {site: place for place, site in enumerate(config.sites)}
    links = []
    for layer in range(config.num_layers):
        for write in ("attn.resid_delta", "mlp.resid_delta"):
            for channel in np.flatnonzero(mask[write][layer]):
                source = address(config, layer, write, int(channel))
                links += [
                    (source, address(config, later, read, int(channel)))
                    for later in range(layer, config.num_layers)
                    for read in ("attn.act_in", "mlp.act_in")
                    if (later, order[read]) > (layer, order[write]) and mask[read][later][channel]
                ]
    return links


def _nearest_tokens(
    model: Model, nodes: list[dict[str, Any]]
) -> dict[str, list[dict[str, str | int | float]]]:
    """For each node on a residual channel the tokens of largest weight there, by magnitude.

    A read's are those that write the channel (embedding), a write's those that read it (unembedding).
    """
    tokenizer = Tokenizer.from_json(model.tokenizer_json) if model.tokenizer_json else None
    embed = np.asarray(model.params["embed"])
    tied = model.config.tied_unembedding
    unembed = embed.T if tied else np.asarray(model.params["unembed"])
    found: dict[str, list[dict[str, str | int | float]]] = {}
    for node in nodes:
        site, index = node["site"], node["index"]
        on_stream = site.endswith(("act_in", "resid_delta")) and index < model.config.d_model
        if tokenizer is None or not on_stream:
            found[node["id"]] = []
            continue
        column = embed[:, index] if site.endswith("act_in") else unembed[index]
        column = column[: tokenizer.vocab_size]  # a model's table may be wider
        largest = np.argsort(-np.abs(column), kind="stable")[:_TOKENS]
        found[node["id"]] = [
            {"id": int(i), "text": tokenizer.decode([int(i)]), "weight": float(column[i])}
            for i in largest
            if column[i] != 0
        ]
    return found


_COMPONENTS: Mapping[str, str] = {"embed": "embedding", "pos": "positions", "logits": "logits"}


def _components(circuit: Circuit) -> dict[str, Any]:
    """Nodes and edges of a circuit of residual edges.

    An edge into keys or values that several query heads share is listed once for each of these heads.
    """
    graph = residual_graph(circuit.config)
    fed = {
        reader: [graph.writers[writer] for writer in feed] or [reader]
        for reader, feed in zip(graph.readers, graph.feeds, strict=True)
    }
    edges = []
    for source, reader, _ in circuit.edges():
        port = reader.partition("<")[2].rstrip(">")
        for target in fed[reader]:
            fields = {"source": source, "target": target, "kind": "residual_edge"}
            edges.append(fields | ({"reader": port} if port else {}))
    return {"nodes": [_component(name) for name in circuit.nodes()], "edges": edges}


def _component(name: str) -> dict[str, Any]:
    if name in _COMPONENTS:
        return {"id": name, "kind": _COMPONENTS[name]}
    layer, _, head = name[1:].partition(".h")
    if head:
        return {"id": name, "kind": "head", "layer": int(layer), "head": int(head)}
    return {"id": name, "kind": "mlp", "layer": int(layer)}
