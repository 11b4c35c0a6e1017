"""Circuits of the first version, as they were written: they load, keep their hash, and answer alike."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.core.records import seal
from circuitjax.model.record import Model
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import PLANTED, planted_model

ROOT = pathlib.Path(__file__).resolve().parents[1] / "data" / "circuits_1"
GRAINS = ("nodes", "weights", "edges")
EXPECTED = {
    "nodes": (1.5, -0.25, "mean", "quotes"),
    "weights": (0.75, 0.5, "mean", "quotes"),
    "edges": (2.0, -0.5, "interchange", "ioi"),
}


@pytest.fixture(scope="module")
def model():
    return Model.load(ROOT / "model")


@pytest.mark.parametrize("grain", GRAINS)
def test_it_loads_as_what_it_was(grain):
    circuit = load_circuit(ROOT / grain)
    assert circuit.grain == grain
    found = (circuit.scale, circuit.shift, circuit.ablation, circuit.provenance["task"])
    assert found == EXPECTED[grain]
    record = json.loads((ROOT / grain / "circuit.json").read_text())
    assert circuit.nodes() == record["nodes"]
    edges = [[a, b, w] for a, b, w in circuit.edges()]
    if grain == "edges":
        edges = [f"{a}->{b}" for a, b, _ in edges]
    assert edges == record["edges"]
    assert (circuit.num_nodes, circuit.num_edges) == (len(record["nodes"]), len(edges))


@pytest.mark.parametrize("grain", GRAINS)
def test_it_keeps_the_hash_it_was_written_with(grain, model, tmp_path):
    circuit = load_circuit(ROOT / grain)
    hashes = json.loads((ROOT / "expected.json").read_text())
    # Circuits of residual edges had a hash of their arrays only.
    found = circuit._arrays_hash() if grain == "edges" else circuit.content_hash
    assert found == hashes[grain]
    circuit.save(tmp_path, model)
    assert json.loads((tmp_path / "circuit.json").read_text())["format"] == "circuitjax-circuit-2"
    assert load_circuit(tmp_path).content_hash == circuit.content_hash


@pytest.mark.parametrize("grain", GRAINS)
def test_it_answers_as_it_did(grain, model):
    answered = np.load(ROOT / "expected.npz")
    circuit = load_circuit(ROOT / grain)
    found = circuit.logits(model, answered["tokens"], corrupted=answered["corrupted"])
    np.testing.assert_allclose(found, answered[grain], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grain", GRAINS)
def test_it_says_that_no_hash_covers_it(grain, caplog):
    load_circuit(ROOT / grain)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "was written by an earlier version: no hash covers its config, calibration" in line


@pytest.mark.parametrize("grain", GRAINS)
def test_a_config_that_is_not_the_models_is_refused(grain, model, tmp_path):
    shutil.copytree(ROOT / grain, tmp_path / "circuit")
    path = tmp_path / "circuit" / "circuit.json"
    record = json.loads(path.read_text())
    config = record["config"] | {"norm_eps": 0.5}
    path.write_text(json.dumps(record | {"config": config}))
    with pytest.raises(
        ValueError, match=r"record says norm_eps 0\.5, and its model .* was changed"
    ):
        load_circuit(tmp_path / "circuit").check_model(model)


@pytest.fixture(params=GRAINS)
def copy(request, tmp_path):
    shutil.copytree(ROOT / request.param, tmp_path / "circuit")
    return tmp_path / "circuit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "circuitjax-circuit-3"}, "newer"),
        ({"format": "circuitjax-edge-circuit-9"}, "no readable circuit"),
        ({"arrays_hash": "0"}, "damaged"),
        ({"nodes": []}, "damaged"),
        ({"calibration": {"scale": 1.0}}, "shift"),
        ({"provenance": 3}, "provenance"),
        ({"calibration": {"scale": 10**400, "shift": 0}}, "scale is a whole number of"),
    ],
)
def test_a_changed_record_is_refused_in_one_line(copy, changes, message):
    path = copy / "circuit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message) as caught:
        Circuit.load(copy)
    assert "\n" not in str(caught.value)


def test_changed_arrays_are_refused(copy):
    other = next(name for name in GRAINS if (ROOT / name / "arrays").exists())
    shutil.rmtree(copy / "arrays")
    with pytest.raises(ValueError, match="no checkpoint"):
        Circuit.load(copy)
    (copy / "circuit.json").write_text((ROOT / other / "circuit.json").read_text()[:50])
    with pytest.raises(ValueError, match="no readable circuit"):
        Circuit.load(copy)


def test_an_ablation_that_nobody_knows_is_named(tmp_path):
    circuit_of(PLANTED).save(tmp_path, planted_model())
    path = tmp_path / "circuit.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | {"ablation": "swap"})))
    with pytest.raises(ValueError, match="ablation is 'swap'; it must be mean or zero"):
        Circuit.load(tmp_path)
