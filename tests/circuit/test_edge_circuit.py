"""An edge circuit as a value: it survives the disk, knows its model, and gives the graph's logits."""

import dataclasses
import json

import numpy as np
import pytest
from circuitjax.circuit.edge_circuit import EdgeCircuit, flatten_writers, unflatten_writers
from circuitjax.circuit.find_edges import default_edge_jobs, find_edge_circuit
from circuitjax.prune.residual import EdgeConfig
from circuitjax.prune.residual_problem import make_edge_problem

from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.transformer import apply
from tests.prune.planted import CONFIG, TASK, planted_model

SETTINGS = EdgeConfig(
    steps=40, batch_size=16, chunk=20, train_examples=64, validation_examples=24, test_examples=40
)


def circuit_of(ablation: str, kept=None) -> EdgeCircuit:
    rng = np.random.default_rng(0)
    model, graph = planted_model(), residual_graph(CONFIG)
    kept = rng.random(graph.num_edges) < 0.5 if kept is None else kept
    fixed = None
    if ablation != "interchange":
        fixed = rng.normal(size=(len(graph.writers), CONFIG.d_model)).astype(np.float32)
    return EdgeCircuit(model.name, model.hash, CONFIG, kept, ablation, fixed, 2.0, -0.5, {"a": 1})


@pytest.mark.parametrize("ablation", ["interchange", "zero"])
def test_it_survives_the_disk(tmp_path, ablation):
    circuit = circuit_of(ablation)
    circuit.save(tmp_path / "c", planted_model())
    again = EdgeCircuit.load(tmp_path / "c")
    np.testing.assert_array_equal(again.kept, circuit.kept)
    if ablation == "zero":
        np.testing.assert_array_equal(again.fixed, circuit.fixed)
    assert (again.scale, again.shift, again.provenance) == (2.0, -0.5, {"a": 1})
    record = json.loads((tmp_path / "c" / "circuit.json").read_text())
    assert record["edges"] == circuit.edges()
    assert record["counts"]["edges"] == circuit.num_edges == len(circuit.edges())


def test_damage_foreign_files_and_other_models_are_refused(tmp_path):
    circuit, model = circuit_of("interchange"), planted_model()
    circuit.save(tmp_path / "c", model)
    path = tmp_path / "c" / "circuit.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"arrays_hash": "0"}))
    with pytest.raises(ValueError, match="damaged"):
        EdgeCircuit.load(tmp_path / "c")
    path.write_text(json.dumps(record | {"format": "circuitjax-circuit-1"}))
    with pytest.raises(ValueError, match="format"):
        EdgeCircuit.load(tmp_path / "c")
    path.write_text("{")
    with pytest.raises(ValueError, match="no readable circuit"):
        EdgeCircuit.load(tmp_path / "c")
    other = planted_model(2.0, "other")
    for use in (circuit.check_model, lambda m: circuit.save(tmp_path / "d", m)):
        with pytest.raises(ValueError, match=r"of model 'planted'"):
            use(other)
    with pytest.raises(ValueError, match="shaped"):
        circuit_of("interchange", np.ones(3))
    with pytest.raises(ValueError, match="replacements"):
        dataclasses.replace(circuit_of("zero"), fixed=np.zeros((1, 1)))


def test_all_edges_are_the_model_and_none_the_corrupted_run():
    model = planted_model()
    rng = np.random.default_rng(1)
    clean, corrupted = rng.integers(1, CONFIG.vocab_size, (2, 3, 6)).astype(np.int32)
    places = np.full((3, 1), 5, np.int32)
    size = residual_graph(CONFIG).num_edges
    for value, tokens in ((True, clean), (False, corrupted)):
        circuit = circuit_of("interchange", np.full(size, value))
        expected = np.asarray(apply(CONFIG, model.params, tokens).logits)[:, 5:6]
        np.testing.assert_allclose(
            circuit.logits(model, clean, corrupted, places), expected, atol=1e-5
        )


def test_fixed_replacements_there_and_back():
    problem = make_edge_problem(
        planted_model(), TASK, dataclasses.replace(SETTINGS, ablation="mean")
    )
    flat = flatten_writers(problem.fixed)
    back = unflatten_writers(CONFIG, flat)
    for one, other in zip(back.blocks(), problem.fixed.blocks(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert flat.shape == (len(residual_graph(CONFIG).writers), CONFIG.d_model)


def test_one_call():
    seen = []
    circuit = find_edge_circuit(
        planted_model(),
        TASK,
        SETTINGS,
        jobs=default_edge_jobs(SETTINGS, [0], target_sparsity=0.9),
        on_chunk=lambda state, metrics: seen.append(int(state.step[0])),
    )
    assert seen == [20, 40]
    assert circuit.provenance["reached"]
    assert {"embed->a0.h0<v>", "a0.h0->m1<in>", "m1->logits"} <= set(circuit.edges())
    assert circuit.nodes[0] == "embed"
    assert circuit.nodes[-1] == "logits"
