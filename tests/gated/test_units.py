"""Gates that open heads, MLPs and blocks: the same circuits as gates on what they hold, by name."""

import dataclasses

import jax
import numpy as np
import pytest

from circuitjax.audit.evidence import evidence
from circuitjax.gated.nodes import NodeGates
from circuitjax.gated.units import edge_units, units_of
from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import residual_graph
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import default_search
from circuitjax.prune.evaluate import gate_slopes
from circuitjax.prune.find import find_circuit, prepare
from circuitjax.prune.jobs import objective_of
from circuitjax.prune.rank import (
    Baseline,
    activation_moments,
    connected,
    rank_scores,
    scores_without_training,
)
from tests.prune.planted import CONFIG, SEARCH, TASK, planted_model

SHARED = TransformerConfig(
    num_layers=2, d_model=8, num_heads=4, d_head=2, d_mlp=6, vocab_size=8, context_length=8,
    num_kv_heads=2, gated_mlp=True,
)  # fmt: skip


def searching(units, **choices):
    changed = dataclasses.replace(SEARCH.choices, units=units, **choices)
    return dataclasses.replace(SEARCH, choices=changed)


@pytest.fixture(scope="module")
def problems():
    return {
        units: prepare(planted_model(), TASK, searching(units)) for units in ("channel", "head")
    }


def test_units_of_heads_and_blocks():
    _, names = units_of(SHARED, "head", SHARED.sites)
    of_layer = {*(f"h{i}" for i in range(4)), "kv0", "kv1", "attn", "mlp"}
    assert set(names) == {f"{layer}.{name}" for layer in (0, 1) for name in of_layer}
    owner, names = units_of(SHARED, "block", SHARED.sites)
    assert set(names) == {"0.attn", "0.mlp", "1.attn", "1.mlp"}
    assert np.bincount(owner).sum() == SHARED.num_nodes
    # Without sharing a head is its q, k and v.
    owner, names = units_of(CONFIG, "head", CONFIG.sites)
    assert np.sum(owner == names.index("0.h1")) == 3 * CONFIG.d_head


def test_a_unit_is_all_of_its_nodes(problems):
    channel, head = (problems[units].whole for units in ("channel", "head"))
    assert isinstance(head, NodeGates)
    rng = np.random.default_rng(0)
    gates = rng.integers(0, 2, head.num_gates).astype(np.float32)
    nodes = gates[units_of(CONFIG, "head", CONFIG.sites)[0]]
    some = problems["head"].test.first(4)
    np.testing.assert_array_equal(head.answers(gates, some), channel.answers(nodes, some))
    opened = gates > 0
    assert head.nodes(opened) == channel.nodes(nodes > 0)
    assert head.cost(opened) == channel.cost(nodes > 0)
    assert float(head.count(gates)) == nodes.sum()
    assert head.totals() == channel.totals()
    np.testing.assert_array_equal(head.clean(opened).opened["mask"]["attn.q"],
                                  channel.clean(nodes > 0).opened["mask"]["attn.q"])  # fmt: skip
    assert len(head.names()) == len(set(head.names())) == head.num_gates == len(head.groups())


def test_variance_of_a_unit_is_the_sum_of_its_nodes(problems):
    head = problems["head"].whole
    _, spread = activation_moments(CONFIG, head.params, problems["head"].train.first(8))
    found = dict(zip(head.names(), head.flat(spread), strict=True))
    assert found["0.h1"] == pytest.approx(
        sum(spread[f"attn.{part}"][0, CONFIG.d_head :].sum() for part in "qkv")
    )


@pytest.mark.parametrize("units", ["head", "block"])
def test_a_search_of_units_ends_in_a_circuit_of_nodes(units):
    search = searching(units, ranking="attribution")
    circuit = find_circuit(planted_model(), TASK, search=search)
    assert circuit.grain == "nodes"
    assert circuit.provenance["reached"]
    problem = prepare(planted_model(), TASK, search)
    assert problem.whole.num_gates < 20
    figures = evidence(problem, search, circuit)
    assert figures["loss_circuit"] < figures["loss_without_circuit"]


def of_edges(units="channel", **more):
    sizes = {"train": 64, "validation": 64, "test": 32, "steps": 60, "batch_size": 8}
    return default_search("edges", ablation="zero", units=units, **sizes, **more)


def test_units_of_edges_are_named_by_what_they_join():
    graph = residual_graph(SHARED)
    owner, names = edge_units(SHARED, "channel")
    assert names == tuple(graph.names)
    assert list(owner) == list(range(graph.num_edges))
    owner, names = edge_units(SHARED, "head")
    assert {"embed->a0.h0", "a0.h1->a1.kv1", "m0->m1", "m1->logits"} <= set(names)
    of_shared = [graph.names[e] for e in np.flatnonzero(owner == names.index("a0.h1->a1.kv1"))]
    assert of_shared == ["a0.h1->a1.kv1<k>", "a0.h1->a1.kv1<v>"]
    _, names = edge_units(SHARED, "block")
    blocks = ["embed", "pos", "a0", "m0", "a1", "m1", "logits"]
    assert set(names) == {f"{a}->{b}" for n, b in enumerate(blocks) for a in blocks[:n]
                          if b != "pos"}  # fmt: skip


@pytest.mark.parametrize("units", ["head", "block"])
def test_a_unit_is_all_of_its_edges(units):
    large, fine = (prepare(planted_model(), TASK, of_edges(u)) for u in (units, "channel"))
    whole, edges = large.whole, fine.whole
    assert whole.num_gates < edges.num_gates
    owner = edge_units(CONFIG, units)[0]
    some, rng = large.test.first(4), np.random.default_rng(0)
    for _ in range(4):
        gates = rng.integers(0, 2, whole.num_gates).astype(np.float32)
        opened = gates > 0
        np.testing.assert_array_equal(whole.answers(gates, some), edges.answers(gates[owner], some))
        assert whole.cost(opened) == edges.cost(opened[owner]) == whole.saves(opened).sum()
        assert whole.nodes(opened) == edges.nodes(opened[owner])
        assert float(whole.count(gates)) == gates[owner].sum()
        np.testing.assert_array_equal(
            whole.clean(opened).opened["kept"], edges.clean(opened[owner]).opened["kept"]
        )
        alive = edges.alive(opened[owner])
        assert set(np.flatnonzero(whole.alive(opened))) == set(owner[alive])
    assert whole.totals() == edges.totals()
    assert len(whole.names()) == whole.num_gates == len(whole.groups())


@pytest.mark.parametrize("grain", ["nodes", "edges"])
def test_gains_of_units_are_the_slopes_of_their_own_gates(grain):
    """The sum over parts is what differentiating by the one gate of all of them gives."""
    search = default_search(
        grain, ablation="zero", units="head", ranking="attribution", sign="signed",
        train=32, validation=32, test=32,
    )  # fmt: skip
    problem = prepare(planted_model(), TASK, search)
    found = scores_without_training(problem, Baseline.of(search.choices), 0)
    examples = problem.train.first(512)
    ones = np.ones(problem.whole.num_gates, np.float32)
    slope = gate_slopes(problem, ones > 0, examples, "task")
    np.testing.assert_allclose(found, -slope, atol=1e-6)


def test_units_are_taken_from_the_logits_backwards():
    problem = prepare(planted_model(), TASK, of_edges("head", ranking="attribution"))
    scores = np.random.default_rng(1).normal(size=problem.whole.num_gates)
    ranked = connected(problem, rank_scores(problem, scores, 0), 0)
    assert sorted(ranked.ranks) == list(range(problem.whole.num_gates))
    inside = {"logits"}
    for gate in np.argsort(ranked.ranks):
        writer, reader = problem.whole.names()[gate].split("->")
        assert reader in inside
        inside.add(writer)


@pytest.mark.parametrize("units", ["head", "block"])
def test_a_search_of_larger_edges_ends_in_a_circuit_of_edges(units):
    circuit = find_circuit(planted_model(), TASK, search=of_edges(units, ranking="attribution"))
    assert circuit.provenance["reached"]
    assert circuit.num_edges == len(circuit.edges()) > 0


@pytest.mark.parametrize("grain", ["nodes", "edges"])
def test_coarse_gates_multiply_those_within(grain):
    """Owners of the gates are their heads; a part is open where both are, and both learn."""
    search = default_search(
        grain, ablation="zero", gate="heaviside", coarse="head", train=64, validation=64, test=32,
        steps=20, batch_size=8,
    )  # fmt: skip
    problem = prepare(planted_model(), TASK, search)
    model, objective = problem.trained, objective_of(problem, search)
    owner, names = (
        units_of(CONFIG, "head", CONFIG.sites) if grain == "nodes" else edge_units(CONFIG, "head")
    )
    assert model.num_owners == len(names) < model.num_gates == len(owner)
    tau, _ = objective.init(jax.random.key(0), Hyper(init_noise_scale=1.0), model)
    assert tau["owners"].shape == (len(names),)
    z = objective.gates(tau, Hyper(), model, jax.random.key(1))
    both = (np.asarray(tau["gates"]) > 0) & (np.asarray(tau["owners"]) > 0)[owner]
    np.testing.assert_array_equal(np.asarray(z) > 0, both)
    slope = jax.grad(lambda t: objective.chances(t, Hyper(), model).sum())(tau)
    within = np.bincount(owner[np.asarray(tau["gates"]) > 0], minlength=len(names))
    np.testing.assert_array_equal(np.asarray(slope["owners"]) > 0, within > 0)
    circuit = find_circuit(planted_model(), TASK, search=search)
    assert circuit.grain == grain
    assert circuit.provenance["search"]["choices"]["coarse"] == "head"
