"""What a circuit's page holds is true, complete, and cannot run."""

import base64
import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import SITES
from circuitjax.model.families import FAMILIES
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import parse_address
from circuitjax.model.transformer import apply
from circuitjax.report.drawing import draw_circuit
from circuitjax.report.viewer.collect import page_data
from circuitjax.report.viewer.facts import audit_table, curve_of, figures_of
from circuitjax.report.viewer.packing import pack, pack_scaled
from circuitjax.report.viewer.page import render_page
from tests.prune.planted import CONFIG, PLANTED, planted_model, planted_problem
from tests.report.viewer_pages import (
    AUDIT,
    EXTRA,
    REPORT,
    check,
    planted_circuit,
    planted_data,
    point,
)


def unpack(packed) -> np.ndarray:
    kinds = {"u1": "<u1", "i1": "<i1", "u2": "<u2", "i4": "<i4"}
    raw = np.frombuffer(base64.b64decode(packed["base64"]), kinds[packed["type"]])
    values = raw.reshape(packed["shape"])
    if "scale" not in packed:
        return values
    scale = np.array(packed["scale"]).reshape((-1,) + (1,) * (values.ndim - 1))
    return values / 127 * scale


def node(name):
    return next(node for node in planted_data()["nodes"] if node["id"] == name)


@jax.jit
def logits_at(gates, fills):
    examples = planted_problem().test
    tokens, positions = jnp.asarray(examples.tokens)[:, 0], jnp.asarray(examples.positions)
    params = jax.tree.map(jnp.asarray, dict(planted_model().params))
    return apply(CONFIG, params, tokens, gates, fills, positions=positions).logits[:, 0]


def loss_without(name) -> float:
    """The circuit's loss with one node closed, by the plain forward pass and NumPy."""
    circuit, examples = planted_circuit(), planted_problem().test
    gates = {site: np.array(m, np.float32) for site, m in circuit.opened["mask"].items()}
    if name:
        layer, site, index = parse_address(CONFIG, name)
        gates[site][layer, index] = 0
    logits = np.asarray(logits_at(gates, dict(circuit.held)), np.float64)
    each = np.arange(len(logits))
    right, wrong = (np.asarray(side)[:, 0] for side in (examples.right, examples.wrong))
    return float(np.mean(np.logaddexp(0, logits[each, wrong] - logits[each, right])))


class TestEffects:
    def test_they_are_the_changes_of_the_loss(self):
        assert planted_data()["loss"] == pytest.approx(loss_without(None), abs=1e-5)
        for name in (PLANTED[0], PLANTED[4], EXTRA[0]):
            change = loss_without(name) - loss_without(None)
            assert node(name)["effect"] == pytest.approx(change, abs=1e-5)
        assert node(PLANTED[1])["effect"] > 0.5 > abs(node(EXTRA[2])["effect"])

    def test_without_a_reduced_model_they_are_the_same(self, monkeypatch):
        monkeypatch.setattr("circuitjax.gated.nodes.can_reduce", lambda config: False)
        whole = page_data(planted_circuit(), planted_model(), planted_problem())
        assert planted_data()["loss"] == pytest.approx(whole["loss"], abs=1e-5)
        for found in whole["nodes"]:
            assert node(found["id"])["effect"] == pytest.approx(found["effect"], abs=1e-5)


def test_nodes_edges_and_tokens():
    data, circuit = planted_data(), planted_circuit()
    names = [node["id"] for node in data["nodes"]]
    assert names == circuit.nodes()
    edges = {(names[a], names[b]): weight for a, b, weight, _ in data["edges"]}
    expected = {(a, b): weight for a, b, weight in circuit.edges()}
    assert edges == pytest.approx(expected)
    text = {int(key): value for key, value in data["tokens"].items()}
    near = {text[i]: weight for i, weight in node("0.attn.act_in.0")["embed"]}
    assert near == {"A": 1.0, "B": -1.0}
    # The value channel takes 6 of channel 0; the last write pushes x (4) against y (5) by 2 each.
    near = {text[i]: weight for i, weight in node("0.attn.v.h0.c0")["embed"]}
    assert near == {"A": 6.0, "B": -6.0}
    unembed = planted_model().params["unembed"]
    for name, sign in (("1.mlp.resid_delta.2", 1), ("1.mlp.post_act.1", -1)):
        away = node(name)["unembed"]
        assert {text[i] for i, _ in away[:2]} == {"x", "y"}
        push = sign * float(unembed[2, 4] - unembed[2, 5])
        assert node(name)["push"] == pytest.approx(push, rel=1e-4)
    assert [text[i] for i in data["answers"]] == ["x", "y"]


def test_contexts_are_the_extremes_of_the_model():
    part, data = planted_data()["contexts"], planted_data()
    rows, lengths = unpack(part["rows"]), np.array(part["lengths"])
    places, values = unpack(part["places"]), unpack(part["values"])
    params = {k: jnp.asarray(v) for k, v in planted_model().params.items() if k != "layers"}
    params["layers"] = planted_model().params["layers"]
    seen = apply(CONFIG, params, jnp.asarray(rows), capture=SITES).captured
    window = values.shape[-1]
    assert values.shape == (len(data["nodes"]), 2, 4, window)
    for place, found in enumerate(data["nodes"]):
        acts = np.asarray(seen[found["site"]][found["layer"]])[..., found["index"]]
        real = np.where(np.arange(rows.shape[1]) < lengths[:, None], acts, np.nan)
        for side, best in ((0, np.nanmax(real, axis=1)), (1, -np.nanmin(real, axis=1))):
            row, position = np.divmod(places[place, side], rows.shape[1])
            assert len(set(row.tolist())) == 4
            sign = 1 - 2 * side
            np.testing.assert_allclose(sign * acts[row, position], np.sort(best)[::-1][:4])
            start = np.maximum(0, np.minimum(position - part["before"], rows.shape[1] - window))
            for e in range(4):
                expected = acts[row[e], start[e] : start[e] + window]
                tolerance = part["values"]["scale"][place] / 127 + 1e-6
                np.testing.assert_allclose(values[place, side, e], expected, atol=tolerance)


def test_prompts_and_patterns():
    data = planted_data()
    part, problem = data["prompts"], planted_problem()
    np.testing.assert_array_equal(
        unpack(part["tokens"]),
        np.asarray(problem.test.tokens)[:6:2, :, : part["tokens"]["shape"][2]],
    )
    values = unpack(part["values"])
    ids = [found["id"] for found in data["nodes"]]
    first = values[ids.index("0.attn.act_in.0")]
    np.testing.assert_allclose(first[:, 0, 1], 1)  # A, behind BOS
    np.testing.assert_allclose(first[:, 1, 1], -1)  # B
    assert part["apart"][ids.index("0.attn.act_in.0")] == pytest.approx(2)
    assert part["apart"][ids.index("0.attn.act_in.5")] == 0
    # The neuron of the positive answer is on for positive prompts alone.
    mean = np.array(part["final"])[ids.index("1.mlp.post_act.0"), :, 0]
    assert mean[0] > 0.5
    assert mean[1] == 0
    differences = np.array(part["differences"])
    assert (differences[:, 0] > 0).all()
    assert (differences[:, 1] < 0).all()
    attention = data["attention"]
    assert attention["heads"] == [[0, 0], [0, 1]]
    length = len(attention["tokens"][0])
    uniform = np.tril(np.ones((length, length))) / np.arange(1, length + 1)[:, None]
    for run in ("circuit", "model"):
        found = unpack(attention[run])[:, :, :length] / 255
        np.testing.assert_allclose(found, np.broadcast_to(uniform, found.shape), atol=1 / 255)


def test_packed_numbers_come_back():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 3, 4)) * 10.0 ** np.arange(-2, 3)[:, None, None]
    values[2] = 0
    packed = pack_scaled(values)
    error = np.abs(unpack(packed) - values).max(axis=(1, 2))
    assert (error <= np.abs(values).max(axis=(1, 2)) * (0.5 / 127 + 1e-3)).all()
    np.testing.assert_array_equal(unpack(pack([[1, -7], [300, 2**31 - 1]], "i4"))[1, 0], 300)
    with pytest.raises(ValueError, match="0 to 256 do not fit into u1"):
        pack([0, 256], "u1")


def test_the_curve_and_the_figures_of_a_report():
    chosen = planted_circuit().provenance["chosen"]
    curve = curve_of(REPORT, chosen)
    assert curve["chosen"] == 0
    assert curve["jobs"][0]["points"][1] == [7, 0.2, 0.1]
    assert [job["k"] for job in curve["jobs"]] == [7, None]
    assert [job["reached"] for job in curve["jobs"]] == [True, False]
    assert (curve["unit"], curve["target"], curve["unpruned"]) == ("nodes kept", 0.15, 0.02)
    assert curve_of(REPORT, None)["chosen"] is None
    figures = dict(figures_of(REPORT))
    assert figures["Loss of the circuit"] == "0.1000 nats"
    assert figures["Status"] == "reached, target 0.15 nats"
    assert curve_of(None, chosen) is None
    assert figures_of(None) == []
    aimed = {**REPORT, "grain": "edges", "target": "kl", "target_value": 0.2}
    row = {
        "seed": 2,
        "hyper": {},
        "reached": True,
        "k": 9,
        "curve": [{**point(9, 0.5, 0.4, 0.1), "parts": 8}],
    }
    curve = curve_of({**aimed, "jobs": [row]}, None)
    assert curve["jobs"][0]["points"] == [[8, 0.1, 0.1]]
    assert (curve["target"], curve["unit"]) == (0.2, "edges kept")
    assert curve["measure"] == "KL to the model"
    assert curve_of(REPORT, None)["measure"] == "task loss"
    assert "0.2 nats of KL" in dict(figures_of(aimed))["Status"]
    assert curve_of({**REPORT, "jobs": []}, None) is None


def test_figures_stand_with_their_intervals():
    test = {"p": 0.005, "exceeded": 0, "draws": 200}
    told = {**REPORT, "intervals": {"loss_circuit": [0.08, 0.13]}, "necessity": test}
    figures = dict(figures_of(told))
    assert figures["Loss of the circuit"] == "0.1000 (0.0800 to 0.1300) nats"
    assert figures["Test against random sets"] == "p = 0.005, 0 of 200 sets hurt as much"
    one = {**check("a", 0.4, 1.0, True), "unit": "nats", "low": 0.3, "high": 0.55}
    assert audit_table({"checks": [one]})["rows"][0][2] == "0.4 (0.3 to 0.55) nats"


def test_the_table_of_an_audit():
    table = audit_table(AUDIT)
    assert table["columns"] == ["group", "name", "figure", "threshold", "passed"]
    assert table["passed"] == [True, False]
    assert table["rows"][1] == ["task", "necessity", "0.4", "≥ 0.95", "no"]
    one = {**check("a", None, 1.0, None), "unit": "nats", "note": "not asked"}
    assert audit_table({"checks": [one]})["rows"] == [["task", "a", "≤ 1 nats", "not asked"]]
    assert audit_table(None) is None


EVERY_GRAIN = [("nodes", "mean"), ("nodes", "interchange"), ("nodes", "resample")]
EVERY_GRAIN += [("weights", "mean"), ("weights", "interchange"), ("edges", "interchange")]


@pytest.mark.parametrize(("grain", "ablation"), EVERY_GRAIN)
def test_circuits_of_every_grain_have_a_page_and_a_picture(grain, ablation, tmp_path):
    model, planted = planted_model(), planted_circuit()
    opened = dict(planted.opened)
    if grain == "weights":
        opened["weights"] = {f.name: np.ones(f.shape(CONFIG), bool) for f in FAMILIES}
    if grain == "edges":
        opened = {"kept": np.arange(residual_graph(CONFIG).num_edges) % 2 == 0}
    held = planted.held if ablation == "mean" else None
    circuit = Circuit.of(
        model, grain, opened, ablation=ablation, held=held, provenance=planted.provenance
    )
    data = page_data(circuit, model, planted_problem())
    assert (data["grain"], data["ablation"]) == (grain, ablation)
    assert len(data["nodes"]) == circuit.num_nodes
    assert len(data["edges"]) == circuit.num_edges
    render_page(data)
    inside = grain == "nodes" or ablation == "mean"
    assert (data["prompts"] is not None) == inside
    assert (data["attention"]["circuit"] is not None) == inside
    assert ("No effects" in data["note"]) == (grain == "weights" and not inside)
    if inside:
        assert all(abs(found["effect"]) < 10 for found in data["nodes"])
        differences = np.array(data["prompts"]["differences"])
        assert (differences[:, 0] > 0).all()
        assert (differences[:, 1] < 0).all()
    draw_circuit(tmp_path / "circuit.png", model, circuit)
    assert (tmp_path / "circuit.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["circuit.png"]


def test_a_task_without_pairs_shows_the_corrupted_prompt_as_the_second():
    pairs = planted_problem().test
    alone = dataclasses.replace(pairs.take(np.arange(pairs.items)), paired=False)
    alone = alone.take(np.arange(0, pairs.size, 2))
    problem = dataclasses.replace(planted_problem(), train=alone, validation=alone, test=alone)
    data = page_data(planted_circuit(), planted_model(), problem)
    for name in ("tokens", "last", "answers", "differences"):
        assert data["prompts"][name] == planted_data()["prompts"][name]
    assert data["attention"] == planted_data()["attention"]


@pytest.mark.parametrize(("limit", "value"), [("_MOST_VALUES", 100), ("_ROOM", 0)])
def test_a_circuit_too_large_for_contexts_keeps_the_strongest_nodes(monkeypatch, limit, value):
    from circuitjax.report.viewer import collect

    monkeypatch.setattr(collect, limit, value)
    before = copy.deepcopy(planted_data()["nodes"])
    data = collect.page_data(planted_circuit(), planted_model(), planted_problem())
    kept = unpack(data["prompts"]["nodes"])
    assert 0 < len(kept) < len(before)
    effects = np.abs([found["effect"] for found in before])
    assert effects[kept].min() >= np.delete(effects, kept).max()
    np.testing.assert_array_equal(kept, unpack(data["contexts"]["nodes"]))
