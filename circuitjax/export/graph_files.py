"""GraphML and DOT of a described circuit, and the same as a networkx graph.

Names, tokens and tasks may hold anything. XML 1.0 has no place for most control characters, so in
both formats such a character is written as the six characters \\uXXXX; everything else survives.
"""

import io
from typing import Any

import networkx as nx

__all__ = ["dot_text", "graphml_text", "to_networkx", "visible"]

_COLOURS = {"positive": "#0072B2", "negative": "#D55E00", "other": "#7F7F7F"}


def visible(text: str) -> str:
    """Text with what XML 1.0 cannot hold spelled out as \\uXXXX."""

    def spelled(character: str) -> str:
        code = ord(character)
        allowed = (
            character in "\t\n"  # a carriage return would come back as a newline
            or 0x20 <= code <= 0x7E
            or 0xA0 <= code <= 0xD7FF
            or 0xE000 <= code <= 0xFFFD
            or code >= 0x10000
        )
        return character if allowed else f"\\u{code:04x}"

    return "".join(spelled(character) for character in text)


def to_networkx(described: dict[str, Any]) -> nx.MultiDiGraph:
    """A directed multigraph (a head may read one writer through q, k and v) with flat attributes.

    Args:
      described: of `description.describe`.

    Returns:
      Nodes by id with `kind`, `layer`, `site`, `index`, `head`, `channel`, `tokens` where they have
      them; edges with `kind`, `weight`, `reader`; model, task and calibration on the graph itself.
    """
    graph = nx.MultiDiGraph(
        model=visible(described["model"]["name"]),
        model_hash=described["model"]["hash"],
        task=visible(described["task"] or ""),
        grain=described["grain"],
        ablation=described["ablation"],
        scale=described["calibration"]["scale"],
        shift=described["calibration"]["shift"],
    )
    for node in described["nodes"]:
        fields = {name: value for name, value in node.items() if name not in ("id", "tokens")}
        if node.get("tokens"):
            fields["tokens"] = visible(_token_line(node))
        graph.add_node(node["id"], **fields)
    for edge in described["edges"]:
        fields = {name: value for name, value in edge.items() if name not in ("source", "target")}
        graph.add_edge(edge["source"], edge["target"], **fields)
    return graph


def graphml_text(described: dict[str, Any]) -> bytes:
    """GraphML (UTF-8) of `to_networkx`."""
    file = io.BytesIO()
    nx.write_graphml_xml(to_networkx(described), file, named_key_ids=True)
    return file.getvalue()


def dot_text(described: dict[str, Any]) -> str:
    """DOT: layers as clusters; positive weights blue, negative orange, wider for larger.

    Links along the residual stream, which are no counted edges, are dashed.
    """
    task = f"{described['task']} on " if described["task"] else ""
    lines = [
        "digraph circuit {",
        "  rankdir=BT;",
        f"  label={_quoted(task + described['model']['name'])};",
        '  node [shape=box, fontname="monospace", fontsize=10];',
    ]
    layers: dict[int | None, list[dict[str, Any]]] = {}
    for node in described["nodes"]:
        layers.setdefault(node.get("layer"), []).append(node)
    for layer, nodes in layers.items():
        texts = [f"{_quoted(node['id'])} [tooltip={_quoted(_token_line(node))}];" for node in nodes]
        if layer is None:
            lines += [f"  {text}" for text in texts]
            continue
        lines.append(f"  subgraph cluster_{layer} {{")
        lines.append(f"    label={_quoted(f'layer {layer}')};")
        lines += [f"    {text}" for text in texts]
        lines.append("  }")
    largest = max((abs(edge.get("weight", 0.0)) for edge in described["edges"]), default=0.0) or 1.0
    for edge in described["edges"]:
        ends = f"{_quoted(edge['source'])} -> {_quoted(edge['target'])}"
        lines.append(f"  {ends} [{', '.join(_edge_look(edge, largest))}];")
    return "\n".join([*lines, "}"]) + "\n"


def _edge_look(edge: dict[str, Any], largest: float) -> list[str]:
    if "weight" in edge:
        sign = "positive" if edge["weight"] > 0 else "negative"
        width = 0.3 + 2.7 * abs(edge["weight"]) / largest
        return [
            f'color="{_COLOURS[sign]}"',
            f"penwidth={width:.3f}",
            f'tooltip="{edge["weight"]:.6g}"',
        ]
    look = [f'color="{_COLOURS["other"]}"']
    if edge["kind"] == "residual":
        look += ["style=dashed", "penwidth=0.3"]
    if "reader" in edge:
        look.append(f"label={_quoted(edge['reader'])}")
    return look


def _token_line(node: dict[str, Any]) -> str:
    """A node's nearest tokens in one line; without them its name."""
    tokens = node.get("tokens")
    if not tokens:
        return str(node["id"])
    return ", ".join(f"{token['text']} ({token['weight']:.3g})" for token in tokens)


def _quoted(text: str) -> str:
    """A DOT string that shows as `text`: Graphviz reads backslashes and HTML entities in it."""
    text = visible(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\n", "\\n") + '"'
