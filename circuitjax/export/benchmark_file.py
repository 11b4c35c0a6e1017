"""A circuit in the graph format of the mechanistic-interpretability benchmark's circuit track.

Its nodes are `input`, heads, MLPs and `logits`; its edges go from what writes the residual stream to
what reads it (a head through q, k or v), and every edge that exists is listed, with a score and
whether it is in the circuit.

A circuit of residual edges is of that kind already: kept edges score 1, others 0; `input` stands for
token and position embedding together. A circuit of nodes or weights is finer, and is summed up: an
edge is in the circuit if what it writes on some channel, through kept nodes and open weights, is read
there by kept nodes; its score is the sum over channels of the norm of the weights that write times the
norm of those that read (for tokens and logits: the root-mean-square over the vocabulary). The edge
from input to logits is always there, since no gate touches it.
"""

from typing import Any

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.weight_index import close_weights
from circuitjax.model.config import TransformerConfig
from circuitjax.model.graph import edge_masks
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph

__all__ = ["benchmark_graph"]


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
        scores = _kept_edges(circuit)
        inside = {name: score > 0 for name, score in scores.items()}
    else:
        scores = _strengths(circuit, model)
        inside = {name: score > 0 for name, score in scores.items()} | {"input->logits": True}
    touched = {
        part.partition("<")[0] for name, kept in inside.items() if kept for part in name.split("->")
    }
    config = circuit.config
    names = ["input"]
    for layer in range(config.num_layers):
        names += [f"a{layer}.h{head}" for head in range(config.num_heads)] + [f"m{layer}"]
    return {
        "cfg": {
            "n_layers": config.num_layers,
            "n_heads": config.num_heads,
            "parallel_attn_mlp": bool(config.parallel),
            "d_model": config.d_model,
        },
        "nodes": {name: {"in_graph": name in touched} for name in (*names, "logits")},
        "edges": {
            name: {"score": float(score), "in_graph": inside[name]}
            for name, score in scores.items()
        },
    }


def _kept_edges(circuit: Circuit) -> dict[str, float]:
    found: dict[str, float] = {}
    names = residual_graph(circuit.config).names
    for name, kept in zip(names, circuit.opened["kept"], strict=True):
        writer, reader = name.split("->")
        writer = "input" if writer in ("embed", "pos") else writer
        key = f"{writer}->{reader.removesuffix('<in>')}"
        found[key] = max(found.get(key, 0.0), float(kept))
    return found


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
