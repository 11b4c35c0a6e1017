"""A circuit in the graph format of the mechanistic-interpretability benchmark's circuit track.

Its nodes are `input`, heads, MLPs and `logits`; its edges go from what writes the residual stream to
what reads it (a head through q, k or v), and every edge that exists is listed, with a score and
whether it is in the circuit.

A circuit of residual edges is of that kind already: kept edges score 1, others 0; `input` stands for
token and position embedding together, and their scores add up. The benchmark gives each query head
its own key and value: an edge into a shared one is an edge into each of its heads, which share its
score, so that scores add up here too. Scores of a ranking are written and read alike (`scores_graph`,
`read_scores`). A circuit of nodes or weights is finer, and is summed up: an
edge is in the circuit if what it writes on some channel, through kept nodes and open weights, is read
there by kept nodes; its score is the sum over channels of the norm of the weights that write times the
norm of those that read (for tokens and logits: the root-mean-square over the vocabulary). The edge
from input to logits is always there, since no gate touches it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.files import cut
from circuitjax.core.records import is_number
from circuitjax.gated.weight_index import close_weights
from circuitjax.model.config import TransformerConfig
from circuitjax.model.graph import edge_masks
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph

__all__ = ["benchmark_graph", "read_scores", "scores_graph"]


def benchmark_graph(circuit: Circuit, model: Model) -> dict[str, Any]:
    """{"cfg", "nodes", "edges"}, JSON-able.

    Args:
      circuit: of any grain.
      model: the circuit's own.

    Raises:
      ValueError: another model's.
    """
    circuit.check_model(model)
    if "kept" in circuit.opened:
        kept = np.asarray(circuit.opened["kept"], bool)
        found = _by_name(circuit.config, kept)
        scores = {name: float(inside) for name, inside in found.items()}
    else:
        scores = _strengths(circuit, model)
        found = {name: score > 0 for name, score in scores.items()} | {"input->logits": True}
    return _graph(circuit.config, scores, found)


def scores_graph(
    config: TransformerConfig, scores: np.ndarray, opened: np.ndarray | None = None
) -> dict[str, Any]:
    """A ranking of residual edges, as real-valued scores.

    Args:
      config: the model's.
      scores: `[E]`, in the order of `residual_graph(config).edges`.
      opened: bool `[E]`, the edges in the circuit; None: none.

    Raises:
      ValueError: scores that are not `[E]` finite numbers.
    """
    names = _peers(config)
    if np.shape(scores) != (len(names),) or not np.all(np.isfinite(scores)):
        raise ValueError(
            f"scores are shaped {np.shape(scores)}; they must be {len(names)} finite numbers"
        )
    found: dict[str, float] = {}
    for peers, score in zip(names, np.asarray(scores, np.float64), strict=True):
        for name in peers:
            found[name] = found.get(name, 0.0) + float(score) / len(peers)
    kept = np.zeros(len(names), bool) if opened is None else np.asarray(opened, bool)
    return _graph(config, found, _by_name(config, kept))


def read_scores(
    graph: Mapping[str, Any], config: TransformerConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Scores `[E]` and what is in the circuit, bool `[E]`, of a graph in the benchmark's format.

    An edge from the position embedding, which the benchmark has none of, gets no score, and is in the
    circuit where that of the token embedding is.

    Args:
      graph: the parsed file.
      config: of the model that it is about.

    Raises:
      ValueError: another model's graph, an edge that is missing or unknown, a score that is no number.
    """
    edges = graph.get("edges")
    if not isinstance(edges, Mapping) or not isinstance(graph.get("cfg"), Mapping):
        raise ValueError("the graph has no 'cfg' and 'edges': it is not in the benchmark's format")
    for name, own in _shape(config).items():
        if graph["cfg"].get(name, own) != own:
            raise ValueError(
                f"the graph is of a model with {name}={cut(graph['cfg'][name])}, and this one has {own}"
            )
    names = _peers(config)
    known = {name for peers in names for name in peers}
    unknown, missing = sorted(set(edges) - known), sorted(known - set(edges))
    if unknown or missing:
        what = f"unknown edge {cut(unknown[0])}" if unknown else f"no edge {missing[0]!r}"
        raise ValueError(f"the graph has {what} ({len(unknown)} unknown, {len(missing)} missing)")
    values = {}
    for name, edge in edges.items():
        score: Any = edge.get("score") if isinstance(edge, Mapping) else None
        if not is_number(score):
            raise ValueError(
                f"edge {name!r} has the score {cut(score)}; it must be a finite number"
            )
        values[name] = (float(score), edge.get("in_graph") is True)
    fixed = residual_graph(config).from_positions
    scores = [sum(values[name][0] for name in peers) for peers in names]
    inside = [any(values[name][1] for name in peers) for peers in names]
    return np.where(fixed, 0.0, scores), np.array(inside)


def _peers(config: TransformerConfig) -> list[tuple[str, ...]]:
    """The benchmark's names of each residual edge: several into a shared key or value head."""
    graph, found = residual_graph(config), []
    for writer, reader in graph.edges:
        source = graph.writers[writer]
        source = "input" if source in ("embed", "pos") else source
        part = graph.readers[reader].partition("<")[2]
        end = f"<{part}" if part in ("q>", "k>", "v>") else ""
        owners = [graph.writers[owner] + end for owner in graph.feeds[reader]] or ["logits"]
        found.append(tuple(f"{source}->{owner}" for owner in owners))
    return found


def _by_name(config: TransformerConfig, kept: np.ndarray) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for peers, inside in zip(_peers(config), kept, strict=True):
        for name in peers:
            found[name] = found.get(name, False) or bool(inside)
    return found


def _shape(config: TransformerConfig) -> dict[str, Any]:
    return {
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "parallel_attn_mlp": bool(config.parallel),
        "d_model": config.d_model,
    }


def _graph(
    config: TransformerConfig, scores: Mapping[str, float], inside: Mapping[str, bool]
) -> dict[str, Any]:
    touched = {
        part.partition("<")[0] for name, kept in inside.items() if kept for part in name.split("->")
    }
    names = ["input"]
    for layer in range(config.num_layers):
        names += [f"a{layer}.h{head}" for head in range(config.num_heads)] + [f"m{layer}"]
    return {
        "cfg": _shape(config),
        "nodes": {name: {"in_graph": name in touched} for name in (*names, "logits")},
        "edges": {
            name: {"score": float(score), "in_graph": inside[name]}
            for name, score in scores.items()
        },
    }


def _strengths(circuit: Circuit, model: Model) -> dict[str, float]:
    """Score of every edge, in the order of the forward pass."""
    config, params, opened = circuit.config, model.params, circuit.opened
    if "weights" in opened:
        config, params = close_weights(config, params, circuit.held, opened["weights"])
    kernels = {
        name: np.asarray(params["layers"][kernel], np.float64) * kept
        for (name, kept), kernel in zip(
            edge_masks(config, params, opened["mask"]).items(),
            (family.kernel for family in config.families),
            strict=True,
        )
    }
    writers = [("input", _tokens_write(config, model))]
    found: dict[str, float] = {}

    def read(name: str, strength: np.ndarray) -> None:
        for writer, written in writers:
            channels = min(len(written), len(strength))  # concatenated positions: input alone
            found[f"{writer}->{name}"] = float(written[:channels] @ strength[:channels])

    for layer in range(config.num_layers):
        for part in "qkv":
            own = config.heads_of(f"attn.{part}")
            reads = kernels[f"act_in->{part}"][layer].reshape(-1, own, config.d_head)
            reads = np.repeat(reads, config.num_heads // own, axis=1)
            for head, strength in enumerate(np.linalg.norm(reads, axis=2).T):
                read(f"a{layer}.h{head}<{part}>", strength)
        kernel = kernels["v->resid_delta"][layer]
        written = np.linalg.norm(kernel.reshape(config.num_heads, config.d_head, -1), axis=1)
        heads = [(f"a{layer}.h{head}", row) for head, row in enumerate(written)]
        writers += [] if config.parallel else heads
        inputs = [f.name for f in config.families if f.source == "mlp.act_in"]
        read(f"m{layer}", np.linalg.norm([kernels[n][layer] for n in inputs], axis=(0, 2)))
        writers += heads if config.parallel else []
        neurons = kernels["post_act->resid_delta"][layer]
        writers.append((f"m{layer}", np.linalg.norm(neurons, axis=0)))
    embed = np.asarray(params["embed"], np.float64)
    unembed = embed.T if config.tied_unembedding else np.asarray(params["unembed"], np.float64)
    read("logits", _rms(unembed.T))
    return found


def _tokens_write(config: TransformerConfig, model: Model) -> np.ndarray:
    """How strongly tokens and positions write each channel that blocks read: `[D_in]`."""
    embed = _rms(np.asarray(model.params["embed"], np.float64))
    if config.position == "none":
        return embed
    places = _rms(np.asarray(model.params["positions"], np.float64))
    if config.position == "concatenated":
        return np.concatenate([embed, places])
    return np.hypot(embed, places)


def _rms(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(rows**2, axis=0))
