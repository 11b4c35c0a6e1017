"""Everything a page shows of one circuit, as plain data: `page_data`.

    format, grain ("nodes", "weights" or "edges"), title, task, note (what is missing, or "")
    model      name, hash, layers, heads, queries_per_key, d_head, d_model
    counts     nodes, of_nodes, edges, of_edges;  calibration  scale, shift;  ablation
    nodes      [id, kind, layer, site, index, head, channel, embed, unembed, effect, push], all but
               the first two where they have a meaning; embed, unembed: [token id, weight];
               effect in nats; push: what one unit of it adds to the answers' logit difference
    edges      [source, target, weight or null, port or null], places in `nodes`
    loss       of the circuit on the items that effects are measured on, in nats
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
               in 255ths; products  scale, and of circuit and model q and k `[h, 2, T, C]`, or null
               and why_no_products
    figures, curve, audit: see `facts`;  compared: see `compare`;  groups, hash: see `groups`

Of a task without pairs the corrupted prompt of an example is the second of its two prompts. What has
no meaning or cannot be had is null. Arrays are as `packing` writes them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.activations import kept_channels, node_activations
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.description import describe
from circuitjax.gated.examples import Examples
from circuitjax.gated.measures import calibrated_odds, mean_task_loss
from circuitjax.gated.protocol import View
from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address
from circuitjax.prune.evaluate import answers
from circuitjax.prune.problem import Problem, batches_of
from circuitjax.report.viewer.compare import compared
from circuitjax.report.viewer.facts import audit_table, curve_of, figures_of
from circuitjax.report.viewer.groups import Group
from circuitjax.report.viewer.packing import pack, pack_scaled
from circuitjax.report.viewer.prompts import SIZES, attention, on_prompts, same_answers, short
from circuitjax.report.viewer.texts import Contexts, prompt_contexts
from circuitjax.report.viewer.tokens import nearest_tokens, token_texts

__all__ = ["FORMAT", "page_data"]

FORMAT = "circuitjax-page-2"

_SCORED = 64  # items of the knock-outs and of means at the last token, at most
_FEWEST, _MOST_RUNS = 8, 2**14  # items of a knock-out, at least; items of all of them
_BEFORE, _WINDOW = 15, 22  # tokens of a context
_MOST_VALUES = 1_200_000  # activations in a page: 1.6 MB of base64
_CLOSED = 64  # knock-outs at a time
_ROOM = 4_600_000  # bytes of a page's data; the scripts and what is added last take the rest
_PER_NODE = 100  # bytes that a node's means on the prompts take
_MOST_HELD = 2**26  # activations held at a time: a quarter of a gibibyte, a few times over
_NO_INSIDE = (
    "No effects of nodes and no activations within the circuit: its closed weights carry something else "
    "in every prompt."
)


def page_data(
    circuit: Circuit,
    model: Model,
    problem: Problem | None = None,
    contexts: Contexts | None = None,
    report: Mapping[str, Any] | None = None,
    audit: Any = None,
    note: str = "",
    other: Circuit | None = None,
    groups: Sequence[Group] = (),
) -> dict[str, Any]:
    """Gathers what a page shows.

    Args:
      circuit: of any grain, not empty.
      model: the circuit's own.
      problem: the model's, with the circuit's task; without it there are no prompts, effects or
        patterns.
      contexts: text that each node's strongest and weakest contexts are cut from; None takes the
        task's training prompts.
      report: fields of a run's report.
      audit: fields of its audit.
      note: one sentence for the reader on what is missing and why.
      other: a circuit to compare with, of the same model.
      groups: of nodes, by the names that the reader gave them.

    Returns:
      JSON-able data; see the module docstring.

    Raises:
      ValueError: another model's, an empty circuit, or an `other` that cannot be compared.
    """
    described = describe(circuit, model)
    config = circuit.config
    ids = {node["id"]: place for place, node in enumerate(described["nodes"])}
    edges = [
        [ids[e["source"]], ids[e["target"]], short(e.get("weight")), e.get("reader")]
        for e in described["edges"]
        if e["kind"] != "residual"
    ]
    nodes = [{k: v for k, v in node.items() if k != "tokens"} for node in described["nodes"]]
    data: dict[str, Any] = {
        "format": FORMAT,
        "grain": circuit.grain,
        "title": f"{described['task'] or 'circuit'} on {circuit.model_name}",
        "task": described["task"],
        "note": note,
        "model": {
            "name": circuit.model_name,
            "hash": circuit.model_hash,
            "layers": config.num_layers,
            "heads": config.num_heads,
            "queries_per_key": config.queries_per_kv,
            "d_head": config.d_head,
            "d_model": config.d_model,
        },
        "counts": described["counts"],
        "calibration": described["calibration"],
        "ablation": circuit.ablation,
        "nodes": nodes,
        "edges": edges,
        "loss": None,
        "effect_pairs": None,
        "answers": None,
        "contexts": None,
        "prompts": None,
        "attention": None,
        "figures": figures_of(report),
        "curve": curve_of(report, circuit.provenance.get("chosen")),
        "audit": audit_table(audit),
        "compared": None if other is None else compared(circuit, other),
        "hash": circuit.content_hash,
        "groups": [{"name": group.name, "nodes": list(group.nodes)} for group in groups],
    }
    used: set[int] = set()
    pairs = None
    inside = circuit.parts(model).get("nodes")
    if problem is not None:
        pairs = problem.test.first(_SCORED).as_pairs().on_host()
        data["answers"] = same_answers(pairs, used)
        data["attention"] = attention(circuit, model, inside, pairs, used)
    if "mask" in circuit.opened:
        _add_nodes(data, circuit, model, used)
        if problem is not None:
            _add_effects(data, circuit, inside, problem)
            _add_pushes(data, circuit, model)
        if contexts is None and problem is not None:
            contexts = prompt_contexts(problem.train)
        _add_activations(data, circuit, model, inside, pairs, contexts, used)
        if inside is None and problem is not None:
            data["note"] = f"{note} {_NO_INSIDE}".strip()
    data["tokens"] = token_texts(model, used)
    return data


def _add_nodes(data: dict[str, Any], circuit: Circuit, model: Model, used: set[int]) -> None:
    """Each node's nearest tokens."""
    nearest = nearest_tokens(model, circuit.nodes(), circuit.edges())
    for node, tokens in zip(data["nodes"], nearest, strict=True):
        node |= tokens
        used.update(i for side in tokens.values() for i, _ in side)


def _add_effects(
    data: dict[str, Any], circuit: Circuit, inside: View | None, problem: Problem
) -> None:
    """How much the task loss rises, in nats, when each node is closed by itself."""
    if inside is None:
        return
    # A knock-out runs all items: of a circuit of a thousand nodes, fewer items each.
    count = len(data["nodes"])
    some = min(problem.test.items, _SCORED, max(_FEWEST, _MOST_RUNS // count))
    few = problem.test.first(some)
    batches = batches_of(inside.model)
    small = inside.model.reduced(inside.gates, own_widths=True)

    def losses(rows: np.ndarray) -> np.ndarray:
        odds = answers(small, batches, few, rows).odds
        if few.paired:
            odds = calibrated_odds(odds, circuit.scale, circuit.shift)
        return mean_task_loss(odds)

    whole, places = inside.gates, np.flatnonzero(inside.gates)
    data["loss"], data["effect_pairs"] = float(losses(whole[None])[0]), some
    names = inside.model.names()
    found: dict[str, float] = {}
    for start in range(0, len(places), _CLOSED):  # rows of G gates each: no more than needed
        chosen = places[start : start + _CLOSED]
        rows = np.broadcast_to(whole, (len(chosen), whole.size)).copy()
        rows[np.arange(len(chosen)), chosen] = False
        rises = (losses(rows) - data["loss"]).tolist()
        found |= dict(zip([names[place] for place in chosen], rises, strict=True))
    for node in data["nodes"]:
        node["effect"] = short(found[node["id"]])


def _add_pushes(data: dict[str, Any], circuit: Circuit, model: Model) -> None:
    """What one unit of a node adds straight to the logit difference of the answers."""
    if data["answers"] is None:
        return
    right, wrong = data["answers"]
    tied = model.config.tied_unembedding
    table = np.asarray(model.params["embed"]).T if tied else np.asarray(model.params["unembed"])
    direction = table[:, right] - table[:, wrong]
    pushes: dict[str, float] = {}
    for node in data["nodes"]:
        if node["site"].endswith("resid_delta"):
            pushes[node["id"]] = float(direction[node["index"]])
    for source, target, weight in circuit.edges():
        _, site, channel = parse_address(model.config, target)
        if site.endswith("resid_delta"):
            pushes[source] = pushes.get(source, 0.0) + (weight or 0.0) * float(direction[channel])
    for node in data["nodes"]:
        if node["id"] in pushes:
            node["push"] = short(pushes[node["id"]])


def _add_activations(
    data: dict[str, Any],
    circuit: Circuit,
    model: Model,
    inside: View | None,
    pairs: Examples | None,
    contexts: Contexts | None,
    used: set[int],
) -> None:
    """Contexts on text, in the whole model; activations on the prompts, in the circuit."""
    kept = kept_channels(circuit.config, circuit.opened["mask"])
    length = 0 if pairs is None else int(pairs.positions.max()) + 1
    window = 0 if contexts is None else min(_WINDOW, contexts.rows.shape[1])
    taken = len(json.dumps(data, separators=(",", ":"))) + _PER_NODE * len(data["nodes"])
    room = min(_MOST_VALUES, max(0, _ROOM - taken) * 3 // 4)  # base64 spends 4 bytes on 3
    for ends, shown in SIZES:
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
    if pairs is not None and inside is not None:
        data["prompts"] = on_prompts(
            circuit, inside, pairs, (chosen, kept), min(shown, pairs.items)
        )
        used.update(np.unique(pairs.tokens[: 2 * shown, 0]).tolist())
        used.update(i for both in data["prompts"]["answers"] for i in both)


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
