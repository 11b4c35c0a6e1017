"""Everything a page shows of one circuit, as plain data: `page_data`.

    format, kind ("nodes", "weights" or "residual_edges"), title, task, note (what is missing, or "")
    model      name, hash, layers, heads, d_head, d_model
    counts     nodes, of_nodes, edges, of_edges;  calibration  scale, shift;  ablation
    nodes      [id, kind, layer, site, index, head, channel, embed, unembed, effect, push], all but
               the first two where they have a meaning; embed, unembed: [token id, weight];
               effect in nats; push: what one unit of it adds to the answers' logit difference
    edges      [source, target, weight or null, port or null], places in `nodes`
    loss       of the circuit on the pairs that effects are measured on, in nats
    effect_pairs  how many those are
    answers    the two completions, where all prompts share them
    tokens     {id: text} of every token that is named
    contexts   source in words; rows `[R, T]`, lengths `[R]`; nodes `[n']` places in `nodes`; places
               `[n', 2, e]` (row * T + position; highest first, then lowest); values `[n', 2, e, W]`
               of the window that begins at max(0, min(position - before, T - W))
    prompts    tokens `[P, 2, T]`, last `[P, 2]`, differences `[P, 2]`, nodes `[n']`, values
               `[n', P, 2, T]`, final `[n', 2, 2]`: mean and deviation at the last token by class;
               apart `[n']`: the two prompts' largest difference at any token, mean over pairs
    attention  heads [layer, head], tokens `[2, T]`, last `[2]`, circuit and model `[h, 2, T, T]`
               in 255ths
    figures, curve, audit: see `facts`

What has no meaning or cannot be had is null. Arrays are as `packing` writes them.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.evidence import gated_problem
from circuitjax.audit.parts import Parts, effects
from circuitjax.circuit.activations import kept_channels, node_activations
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.description import describe
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address, shapes
from circuitjax.model.transformer import Fills, Gates, Params, apply
from circuitjax.prune.gates import all_gates
from circuitjax.prune.objective import Pairs, logit_differences
from circuitjax.prune.problem import Problem
from circuitjax.report.viewer.facts import audit_table, curve_of, figures_of
from circuitjax.report.viewer.packing import pack, pack_scaled
from circuitjax.report.viewer.texts import Contexts, prompt_contexts
from circuitjax.report.viewer.tokens import nearest_tokens, token_texts

__all__ = ["FORMAT", "page_data"]

FORMAT = "circuitjax-page-1"

_SCORED = 64  # pairs of the knock-outs and of means at the last token, at most
_FEWEST, _MOST_RUNS = 8, 2**14  # pairs of a knock-out, at least; pairs of all of them
_BEFORE, _WINDOW = 15, 22  # tokens of a context
_MOST_VALUES = 1_200_000  # activations in a page: 1.6 MB of base64
_ROOM = 4_600_000  # bytes of a page's data; the scripts and what is added last take the rest
_PER_NODE = 100  # bytes that a node's means on the prompts take
_MOST_HELD = 2**26  # activations held at a time: a quarter of a gibibyte, a few times over
_SIZES = ((4, 3), (3, 2), (2, 1), (1, 1))  # contexts per end and pairs shown, the most that fit


def page_data(
    circuit: Circuit | EdgeCircuit,
    model: Model,
    problem: Problem | None = None,
    contexts: Contexts | None = None,
    report: Mapping[str, Any] | None = None,
    audit: Any = None,
    note: str = "",
) -> dict[str, Any]:
    """Gathers what a page shows.

    Args:
      circuit: of any grain, not empty.
      model: the circuit's own.
      problem: the model's, with the circuit's task; without it there are no prompts, effects or
        patterns.
      contexts: text that each node's strongest and weakest contexts are cut from; None takes the
        task's training prompts.
      report: content of a run's report.json.
      audit: content of its audit.json.
      note: one sentence for the reader on what is missing and why.

    Returns:
      JSON-able data; see the module docstring.

    Raises:
      ValueError: another model's, or an empty circuit.
    """
    described = describe(circuit, model)
    config = circuit.config
    ids = {node["id"]: place for place, node in enumerate(described["nodes"])}
    edges = [
        [ids[e["source"]], ids[e["target"]], _short(e.get("weight")), e.get("reader")]
        for e in described["edges"]
        if e["kind"] != "residual"
    ]
    nodes = [{k: v for k, v in node.items() if k != "tokens"} for node in described["nodes"]]
    data: dict[str, Any] = {
        "format": FORMAT,
        "kind": described["kind"],
        "title": f"{described['task'] or 'circuit'} on {circuit.model_name}",
        "task": described["task"],
        "note": note,
        "model": {
            "name": circuit.model_name,
            "hash": circuit.model_hash,
            "layers": config.num_layers,
            "heads": config.num_heads,
            "d_head": config.d_head,
            "d_model": config.d_model,
        },
        "counts": described["counts"],
        "calibration": described["calibration"],
        "ablation": described.get("ablation") or _ablation(circuit),
        "nodes": nodes,
        "edges": edges,
        "loss": None,
        "effect_pairs": None,
        "answers": None,
        "contexts": None,
        "prompts": None,
        "attention": None,
        "figures": figures_of(report),
        "curve": curve_of(report),
        "audit": audit_table(audit),
    }
    used: set[int] = set()
    pairs = None
    if problem is not None:
        pairs = problem.test.take(np.arange(min(_SCORED, problem.test.size)))
        data["answers"] = _answers(pairs, used)
        data["attention"] = _attention(circuit, model, pairs, used)
    if isinstance(circuit, Circuit):
        _add_nodes(data, circuit, model, problem, used)
        if contexts is None and problem is not None:
            contexts = prompt_contexts(problem.train)
        _add_activations(data, circuit, model, pairs, contexts, used)
    data["tokens"] = token_texts(model, used)
    return data


def _ablation(circuit: Circuit | EdgeCircuit) -> str | None:
    settings = circuit.provenance.get("prune") or circuit.provenance.get("config")
    found = settings.get("ablation") if isinstance(settings, Mapping) else None
    return None if found is None else str(found)


def _short(weight: float | None) -> float | None:
    return None if weight is None else float(f"{weight:.5g}")


def _answers(pairs: Pairs, used: set[int]) -> list[int] | None:
    """The completions' tokens, if they are the same for every pair."""
    found = np.asarray(pairs.answers)
    if not (found == found[:1]).all():
        return None
    used.update(int(i) for i in found[0])
    return [int(i) for i in found[0]]


def _add_nodes(
    data: dict[str, Any], circuit: Circuit, model: Model, problem: Problem | None, used: set[int]
) -> None:
    """Nearest tokens, effects, and the direct push on the answers."""
    edges = circuit.edges(model)
    nearest = nearest_tokens(model, circuit.nodes, edges)
    for node, tokens in zip(data["nodes"], nearest, strict=True):
        node |= tokens
        used.update(i for side in tokens.values() for i, _ in side)
    if problem is None:
        return
    # A knock-out runs all pairs: of a circuit of a thousand nodes, fewer pairs each.
    count = len(data["nodes"])
    some = min(problem.test.size, _SCORED, max(_FEWEST, _MOST_RUNS // count))
    few = problem.test.take(np.arange(some))
    parts = Parts(gated_problem(problem, circuit), circuit)
    alone = effects(parts, circuit, few, most=count, edges=False)
    data["loss"], data["effect_pairs"] = alone.loss, some
    pushes = _pushes(data, model, edges)
    for node in data["nodes"]:
        node["effect"] = _short(alone.nodes[node["id"]])
        if node["id"] in pushes:
            node["push"] = _short(pushes[node["id"]])


def _pushes(
    data: dict[str, Any], model: Model, edges: Sequence[tuple[str, str, float]]
) -> dict[str, float]:
    """{address: what one unit of the node adds straight to the answers' logit difference}."""
    if data["answers"] is None:
        return {}
    right, wrong = data["answers"]
    tied = model.config.tied_unembedding
    table = np.asarray(model.params["embed"]).T if tied else np.asarray(model.params["unembed"])
    direction = table[:, right] - table[:, wrong]
    pushes: dict[str, float] = {}
    for node in data["nodes"]:
        if node["site"].endswith("resid_delta"):
            pushes[node["id"]] = float(direction[node["index"]])
    for source, target, weight in edges:
        _, site, channel = parse_address(model.config, target)
        if site.endswith("resid_delta"):
            pushes[source] = pushes.get(source, 0.0) + weight * float(direction[channel])
    return pushes


def _add_activations(
    data: dict[str, Any],
    circuit: Circuit,
    model: Model,
    pairs: Pairs | None,
    contexts: Contexts | None,
    used: set[int],
) -> None:
    """Contexts on text, in the whole model; activations on the prompts, in the circuit."""
    kept = kept_channels(circuit.config, circuit.mask)
    length = 0 if pairs is None else int(np.asarray(pairs.last).max()) + 1
    window = 0 if contexts is None else min(_WINDOW, contexts.rows.shape[1])
    taken = len(json.dumps(data, separators=(",", ":"))) + _PER_NODE * len(data["nodes"])
    room = min(_MOST_VALUES, max(0, _ROOM - taken) * 3 // 4)  # base64 spends 4 bytes on 3
    for ends, shown in _SIZES:
        each = 2 * ends * window + 2 * shown * length
        if each * len(data["nodes"]) <= room:
            break
    # Of a circuit too large for one context of each, the nodes of the largest effects.
    order = np.argsort([-abs(node.get("effect") or 0.0) for node in data["nodes"]], kind="stable")
    chosen = np.sort(order[: max(1, room // max(each, 1))])
    if contexts is not None:
        # All activations of the text are held at once: a circuit of many nodes sees fewer rows.
        most = _MOST_HELD // (len(data["nodes"]) * contexts.rows.shape[1])
        size = min(len(contexts.rows), max(most, 2 * ends))
        contexts = Contexts(contexts.rows[:size], contexts.lengths[:size], contexts.source)
        params = jax.tree.map(jnp.asarray, dict(model.params))
        seen = node_activations(circuit.config, params, contexts.rows, kept)
        data["contexts"] = _contexts(contexts, np.concatenate(list(seen.values()))[chosen], ends)
        data["contexts"]["nodes"] = pack(chosen, "i4")
        used.update(np.unique(contexts.rows).tolist())
    if pairs is None:
        return
    config, params = circuit.gated(model)
    params = jax.tree.map(jnp.asarray, dict(params))
    fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    gates = circuit.gates()
    rows = np.asarray(pairs.tokens)[..., :length]
    flat = rows.reshape(-1, length)
    found = node_activations(config, params, flat, kept, gates, fills)
    acts = np.concatenate(list(found.values()))[chosen].reshape(-1, pairs.size, 2, length)
    last = np.asarray(pairs.last)
    final = np.take_along_axis(acts, last[None, :, :, None], axis=3)[..., 0]
    both_real = (np.arange(length) <= last[:, :, None]).all(axis=1)
    apart = np.where(both_real, np.abs(acts[:, :, 0] - acts[:, :, 1]), 0).max(axis=2).mean(axis=1)
    some = min(shown, pairs.size)
    logits, _ = _run(config, params, _first(pairs), gates, fills)
    raw = np.asarray(logit_differences(logits[:some], pairs.answers[:some]))
    inside = np.arange(length) <= last[:some, :, None]
    used.update(np.unique(rows[:some]).tolist(), np.unique(pairs.answers[:some]).tolist())
    data["prompts"] = {
        "tokens": pack(rows[:some], "i4"),
        "last": last[:some].tolist(),
        "answers": np.asarray(pairs.answers[:some]).tolist(),
        "differences": [
            [_short(float(x)) for x in row] for row in circuit.scale * raw + circuit.shift
        ],
        "nodes": pack(chosen, "i4"),
        "values": pack_scaled(np.where(inside[None], acts[:, :some], 0)),
        "pairs": pairs.size,
        "apart": [_short(float(x)) for x in apart],
        "final": [
            [[_short(float(x)) for x in (side.mean(), side.std())] for side in both.T]
            for both in final
        ],
    }


def _contexts(contexts: Contexts, acts: np.ndarray, ends: int) -> dict[str, Any]:
    """The rows of highest and lowest activation, one place of each, around that place.

    Args:
      contexts: the text.
      acts: `[n, R, T]`.
      ends: e, contexts at each end.
    """
    length = contexts.rows.shape[1]
    window, ends = min(_WINDOW, length), min(ends, len(contexts.rows))
    real = np.arange(length) < contexts.lengths[:, None]
    places, values = [], []
    for sign in (1, -1):
        held = np.where(real[None], sign * acts, -np.inf)
        best = held.argmax(axis=2)  # [n, R]
        order = np.argsort(-held.max(axis=2), axis=1, kind="stable")[:, :ends]
        at = np.take_along_axis(best, order, axis=1)
        starts = np.maximum(0, np.minimum(at - _BEFORE, length - window))
        columns = starts[..., None] + np.arange(window)
        node = np.arange(len(acts))[:, None, None]
        values.append(acts[node, order[..., None], columns])
        places.append(order * length + at)
    return {
        "source": contexts.source,
        "before": _BEFORE,
        "rows": pack(contexts.rows, "i4"),
        "lengths": np.asarray(contexts.lengths).tolist(),
        "places": pack(np.stack(places, axis=1), "i4"),
        "values": pack_scaled(np.stack(values, axis=1)),
    }


def _first(pairs: Pairs) -> Pairs:
    """The pairs that are shown, at most."""
    return pairs.take(np.arange(min(_SIZES[0][1], pairs.size)))


@functools.partial(jax.jit, static_argnums=0)
def _run(
    config: TransformerConfig, params: Params, pairs: Pairs, gates: Gates, fills: Fills
) -> tuple[jax.Array, jax.Array]:
    """Logits `[P, 2, V]` after each prompt and patterns `[L, 2 P, H, T, T]`."""
    size, _, length = pairs.tokens.shape
    output = apply(
        config,
        params,
        pairs.tokens.reshape(size * 2, length),
        gates,
        fills,
        positions=pairs.last.reshape(size * 2, 1),
        capture=("attn.pattern",),
    )
    return output.logits.reshape(size, 2, -1), output.captured["attn.pattern"]


def _attention(
    circuit: Circuit | EdgeCircuit, model: Model, pairs: Pairs, used: set[int]
) -> dict[str, Any] | None:
    """Patterns of the circuit's heads on the first pair, in the circuit and in the whole model."""
    if isinstance(circuit, EdgeCircuit):
        named = [name[1:].split(".h") for name in circuit.nodes if ".h" in name]
        heads = [[int(layer), int(head)] for layer, head in named]
    else:
        kept: set[tuple[int, int]] = set()
        for site in ("attn.q", "attn.k", "attn.v"):
            for layer, index in np.argwhere(circuit.mask[site]):
                kept.add((int(layer), int(index) // circuit.config.d_head))
        heads = [list(head) for head in sorted(kept)]
    if not heads:
        return None
    last = np.asarray(pairs.last)[0]
    length = int(last.max()) + 1
    tokens = np.asarray(pairs.tokens)[0, :, :length]
    used.update(np.unique(tokens).tolist())
    # Open gates beside any fills: the whole model by the program that runs the circuit too.
    fills = {s: jnp.zeros(shape, jnp.float32) for s, shape in shapes(circuit.config).items()}
    runs: dict[str, Any] = {
        "model": (circuit.config, model.params, all_gates(circuit.config, 1.0), fills)
    }
    if isinstance(circuit, Circuit):
        fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
        runs["circuit"] = (*circuit.gated(model), circuit.gates(), fills)
    found: dict[str, Any] = {"circuit": None}
    some = _first(pairs)
    for name, (config, params, gates, fills) in runs.items():
        _, pattern = _run(config, jax.tree.map(jnp.asarray, dict(params)), some, gates, fills)
        first = np.asarray(pattern)[:, :2, :, :length, :length]  # [L, 2, H, T, T]
        chosen = np.stack([first[layer, :, head] for layer, head in heads])
        found[name] = pack(np.rint(255 * chosen).astype(np.int32), "u1")
    return {"heads": heads, "tokens": tokens.tolist(), "last": last.tolist(), **found}
