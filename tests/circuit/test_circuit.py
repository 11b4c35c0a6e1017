"""The record: a round trip, and a clear refusal of whatever is foreign, truncated or changed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from circuitjax.circuit.graph import edge_list

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import SITES
from circuitjax.model.record import Model


@pytest.fixture
def model(draw):
    config = draw.config(attention_sinks=True)
    return Model("tiny", config, draw.params(config, np.random.default_rng(0)))


@pytest.fixture
def circuit(draw, model):
    rng = np.random.default_rng(1)
    return Circuit(
        model_name=model.name,
        model_hash=model.hash,
        config=model.config,
        mask=draw.mask(model.config, rng, 0.3),
        fills=draw.fills(model.config, rng),
        scale=1.5,
        shift=-0.25,
        provenance={"task": "quotes", "seeds": {"train": 1}},
    )


def test_save_and_load_are_inverse(circuit, model, tmp_path):
    circuit.save(tmp_path / "c", model)
    loaded = Circuit.load(tmp_path / "c")
    for site in SITES:
        np.testing.assert_array_equal(loaded.mask[site], circuit.mask[site])
        np.testing.assert_array_equal(loaded.fills[site], circuit.fills[site])
        np.testing.assert_array_equal(loaded.gates()[site], circuit.mask[site].astype(np.float32))
    for field in ("model_name", "model_hash", "config", "scale", "shift", "provenance", "nodes"):
        assert getattr(loaded, field) == getattr(circuit, field)
    loaded.check_model(model)


def test_the_record_names_every_node_and_edge(circuit, model, tmp_path):
    circuit.save(tmp_path, model)
    record = json.loads((tmp_path / "circuit.json").read_text())
    edges = edge_list(model.config, model.params, circuit.mask)
    assert record["nodes"] == circuit.nodes
    assert [tuple(edge) for edge in record["edges"]] == edges
    counts = record["counts"]
    assert (counts["nodes"], counts["edges"]) == (circuit.num_nodes, len(edges))
    assert (counts["nodes"], counts["of_nodes"]) == (len(circuit.nodes), model.config.num_nodes)


def test_another_model_is_refused(circuit, model, tmp_path):
    layers = {k: v.copy() for k, v in model.params["layers"].items()}
    layers["mlp_in"][0, 0, 0] += 1
    other = dataclasses.replace(model, params=dict(model.params) | {"layers": layers})
    for use in (circuit.check_model, circuit.edges, lambda m: circuit.save(tmp_path / "c", m)):
        with pytest.raises(ValueError, match=f"{model.hash}.*{other.hash}"):
            use(other)
    assert not (tmp_path / "c").exists()


def test_saving_again_replaces(circuit, model, tmp_path):
    circuit.save(tmp_path, model)
    mask = {site: ~kept for site, kept in circuit.mask.items()}
    dataclasses.replace(circuit, mask=mask).save(tmp_path, model)
    np.testing.assert_array_equal(Circuit.load(tmp_path).mask["attn.q"], mask["attn.q"])


def _truncate(root):
    path = root / "circuit.json"
    path.write_text(path.read_text()[:-40])


def _foreign(root):
    (root / "circuit.json").write_text('{"format": "other"}')


def _incomplete(root):
    record = json.loads((root / "circuit.json").read_text())
    del record["calibration"]
    (root / "circuit.json").write_text(json.dumps(record))


def _changed(root):
    record = json.loads((root / "circuit.json").read_text())
    record["arrays_hash"] = "0" * 64
    (root / "circuit.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: (root / "circuit.json").unlink(), "no readable circuit"),
        (lambda root: (root / "circuit.json").write_text("[1]"), "no readable circuit"),
        (_truncate, "no readable circuit"),
        (_foreign, "format is 'other'"),
        (_incomplete, "lacks 'calibration'"),
        (_changed, "is damaged"),
        (lambda root: shutil.rmtree(root / "arrays"), "no checkpoint"),
    ],
)
def test_a_damaged_directory_is_refused_in_one_line(circuit, model, tmp_path, harm, message):
    circuit.save(tmp_path, model)
    harm(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        Circuit.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0.0}, "scale must be above 0"),
        ({"shift": float("nan")}, "both finite"),
        ({"mask": {}}, "mask of attn.act_in is shaped None"),
        ({"fills": {}}, "fills of attn.act_in are shaped None"),
    ],
)
def test_bad_fields_are_named(circuit, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(circuit, **changes)
