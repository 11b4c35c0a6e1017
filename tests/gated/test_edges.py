"""Gates on residual edges: connection against a search along paths, and what replaces writers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.edges import (
    EdgeGates,
    edge_view,
    fixed_writers,
    flatten_writers,
    unflatten_writers,
)
from circuitjax.gated.replacement import refer
from circuitjax.model.residual_graph import residual_graph
from circuitjax.prune.evaluate import answers
from circuitjax.prune.problem import batches_of
from tests.prune.planted import CONFIG, planted_model, planted_problem


def model_of(ablation: str) -> EdgeGates:
    params = jax.tree.map(jnp.asarray, dict(planted_model().params))
    held = None
    if ablation in ("mean", "zero"):
        held = fixed_writers(CONFIG, params, ablation, planted_problem().train)
    return EdgeGates(params, held, config=CONFIG, ablation=ablation)


@pytest.mark.parametrize("ablation", ["interchange", "zero"])
def test_connection_against_a_search_along_paths(ablation):
    graph, model = residual_graph(CONFIG), model_of(ablation)
    rng = np.random.default_rng(0)
    for _ in range(30):
        kept = rng.random(graph.num_edges) < rng.choice([0.1, 0.3, 0.6])
        edges = [graph.names[e].split("->") for e in np.flatnonzero(kept)]
        arcs = [(writer, reader.split("<")[0]) for writer, reader in edges]

        def reach(start, arcs):
            found, todo = {start}, [start]
            while todo:
                here = todo.pop()
                for a, b in arcs:
                    if a == here and b not in found:
                        found.add(b)
                        todo.append(b)
            return found

        forward = reach("embed", arcs) if ablation == "interchange" else set(graph.writers)
        backward = reach("logits", [(b, a) for a, b in arcs])
        expected = {
            e
            for e in np.flatnonzero(kept)
            if graph.writers[graph.sources[e]] in forward
            and graph.readers[graph.targets[e]].split("<")[0] in backward
        }
        alive = model.alive(kept)
        assert set(np.flatnonzero(alive)) == expected
        part = model.clean(kept)
        np.testing.assert_array_equal(part.opened["kept"], alive)
        assert part.edges == model.cost(alive) == len(expected)
        assert part.removed == {"unconnected": int(kept.sum()) - len(expected)}
        ends = {name for e in expected for name in graph.names[e].split("->")}
        assert part.nodes == model.nodes(alive) == len({name.split("<")[0] for name in ends})


@pytest.mark.parametrize("ablation", ["interchange", "zero"])
def test_dropping_what_is_not_connected_changes_no_answer(ablation):
    model, test = model_of(ablation), planted_problem().test
    masks = np.random.default_rng(1).random((6, model.num_gates)) < 0.4
    bare = np.stack([model.alive(mask) for mask in masks])
    assert (bare != masks).any()
    before, after = (answers(model, batches_of(model), test, m, full=True) for m in (masks, bare))
    np.testing.assert_allclose(before.odds, after.odds, atol=1e-4)
    np.testing.assert_allclose(before.kl, after.kl, atol=1e-5)


@pytest.mark.parametrize("paired", [True, False])
def test_the_mean_replacement_is_the_mean_over_real_tokens_of_corrupted_prompts(paired):
    some = planted_problem().train.first(5)
    if not paired:  # whose corrupted prompts are no one's clean ones
        alone = dataclasses.replace(some, paired=False, row_length=0)
        some = alone.take(np.arange(0, alone.size, 2))
    params = jax.tree.map(jnp.asarray, dict(planted_model().params))
    found = fixed_writers(CONFIG, params, "mean", some)
    tokens, last = np.asarray(some.tokens)[:, 1], np.asarray(some.positions)[:, 0]
    table = np.asarray(params["embed"])
    rows = [table[t] for row, end in zip(tokens, last, strict=True) for t in row[: end + 1]]
    np.testing.assert_allclose(found.first[0, 0, 0], np.mean(rows, axis=0), atol=1e-6)
    flat = flatten_writers(found)
    assert flat.shape == (len(residual_graph(CONFIG).writers), CONFIG.d_model)
    for one, other in zip(unflatten_writers(CONFIG, flat).blocks(), found.blocks(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_positions_do_not_count_under_interchange():
    config = dataclasses.replace(CONFIG, position="learned")
    graph = residual_graph(config)
    assert EdgeGates(None, None, config=config, ablation="zero").exists().all()
    model = EdgeGates(None, None, config=config, ablation="interchange")
    exists = model.exists()
    assert exists.sum() == graph.num_edges - len(graph.readers) == model.totals()[1]
    assert float(model.count(jnp.ones(graph.num_edges))) == exists.sum()
    np.testing.assert_array_equal(model.groups() == 0, exists)


def test_gates_of_writers_are_those_of_their_edges():
    model = model_of("interchange")
    owners = np.random.default_rng(2).random(model.num_owners).astype(np.float32)
    graph = residual_graph(CONFIG)
    for edge, name in enumerate(model.names()):
        writer = graph.writers.index(name.split("->")[0])
        assert model.owned(owners)[edge] == owners[writer]


@pytest.mark.parametrize("ablation", ["mean", "interchange"])
def test_a_circuit_is_seen_as_gates(ablation):
    model, batch = model_of(ablation), planted_problem().test.first(4)
    kept = np.random.default_rng(3).random(model.num_gates) < 0.5
    held = None if model.held is None else flatten_writers(model.held)
    view = edge_view(CONFIG, planted_model().params, {"kept": kept}, held, ablation)
    np.testing.assert_array_equal(view.gates, kept)
    runs = []
    for one in (model, view.model):
        reference = refer(one, batch, jax.random.key(0), full=False).held
        runs.append(one.logits(jnp.asarray(kept, jnp.float32), batch, reference))
    np.testing.assert_array_equal(*runs)
