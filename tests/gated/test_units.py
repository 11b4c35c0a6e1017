"""Gates that open heads, MLPs and blocks: the same circuits as gates on their nodes, by name."""

import dataclasses

import numpy as np
import pytest

from circuitjax.audit.evidence import evidence
from circuitjax.gated.nodes import NodeGates
from circuitjax.gated.units import units_of
from circuitjax.model.config import TransformerConfig
from circuitjax.prune.find import find_circuit, prepare
from circuitjax.prune.rank import activation_moments
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
