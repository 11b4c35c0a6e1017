"""A circuit of any grain as a value: it survives the disk, knows its model, gives its logits."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.core.records import seal
from circuitjax.model.families import FAMILIES
from circuitjax.model.graph import edge_list
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.transformer import apply
from tests.drawn import assert_same

GRAINS = ("nodes", "weights", "edges")
ABLATIONS = ("mean", "zero", "resample", "interchange")
PROVENANCE = {"task": "quotes", "seeds": {"train": 1}}


@pytest.fixture(scope="module")
def model(draw):
    config = draw.config(attention_sinks=True)
    # Some weight enters every node: one that none enters holds its replacement where weights are gated.
    params = draw.params(config, np.random.default_rng(0), density=1.0)
    return Model("tiny", config, params)


@pytest.fixture(scope="module")
def make(draw, model):
    """Makes a random circuit of a grain, or one that keeps all or nothing."""

    def made(grain: str, ablation: str = "mean", kept: bool | None = None) -> Circuit:
        rng, config = np.random.default_rng(1), model.config
        mask = draw.mask(config, rng, 0.6)
        weights = {f.name: rng.random(f.shape(config)) < 0.7 for f in FAMILIES}
        graph = residual_graph(config)
        opened = {
            "nodes": {"mask": mask},
            "weights": {"mask": mask, "weights": weights},
            "edges": {"kept": rng.random(graph.num_edges) < 0.5},
        }[grain]
        if kept is not None:
            opened = jax.tree.map(lambda leaf: np.full(leaf.shape, kept), opened)
        fills = draw.fills(config, rng)
        if grain == "edges":
            fills = rng.normal(size=(len(graph.writers), config.d_model)).astype(np.float32)
        held = fills if ablation in ("mean", "zero") else None
        if ablation == "zero":
            held = jax.tree.map(np.zeros_like, held)
        fields = {"scale": 1.5, "shift": -0.25, "provenance": PROVENANCE}
        return Circuit.of(model, grain, opened, ablation=ablation, held=held, **fields)

    return made


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("ablation", ["mean", "interchange"])
def test_save_and_load_are_inverse(make, model, tmp_path, grain, ablation):
    circuit = make(grain, ablation)
    circuit.save(tmp_path / "run" / "circuit", model)
    loaded = load_circuit(tmp_path / "run")
    assert jax.tree.structure(loaded.opened) == jax.tree.structure(circuit.opened)
    assert_same(loaded.opened, circuit.opened)
    assert (loaded.held is None) == (ablation == "interchange")
    assert_same(loaded.held, circuit.held)
    for field in dataclasses.fields(Circuit):
        if field.name not in ("opened", "held"):
            assert getattr(loaded, field.name) == getattr(circuit, field.name), field.name
    assert loaded.content_hash == circuit.content_hash
    loaded.check_model(model)


@pytest.mark.parametrize("grain", GRAINS)
def test_the_record_names_every_node_and_edge(make, model, tmp_path, grain):
    circuit = make(grain)
    circuit.save(tmp_path, model)
    record = json.loads((tmp_path / "circuit.json").read_text())
    assert record["nodes"] == circuit.nodes()
    assert [tuple(edge) for edge in record["edges"]] == circuit.edges()
    counts = record["counts"]
    assert (counts["nodes"], counts["edges"]) == (circuit.num_nodes, circuit.num_edges)
    assert circuit.num_nodes == len(circuit.nodes())
    assert circuit.num_edges == len(circuit.edges())
    if grain == "edges":
        names = residual_graph(model.config).names
        kept = [name for name, k in zip(names, circuit.opened["kept"], strict=True) if k]
        assert [f"{a}->{b}" for a, b, _ in circuit.edges()] == kept
        return
    of_nodes = set(edge_list(model.config, model.params, circuit.opened["mask"]))
    assert set(circuit.edges()) <= of_nodes
    assert (len(circuit.edges()) == len(of_nodes)) == (grain == "nodes")
    assert counts["of_nodes"] == model.config.num_nodes


def test_edges_of_single_weights_are_those_open_between_kept_nodes(make, model):
    circuit = make("weights")
    mask, weights = circuit.opened["mask"], circuit.opened["weights"]
    count = sum(
        int(
            np.sum(
                (np.asarray(model.params["layers"][f.kernel]) != 0)
                & weights[f.name]
                & mask[f.source][:, :, None]
                & mask[f.target][:, None, :]
            )
        )
        for f in FAMILIES
    )
    assert circuit.num_edges == count


def test_another_model_is_refused(make, model, tmp_path):
    layers = {k: v.copy() for k, v in model.params["layers"].items()}
    layers["mlp_in"][0, 0, 0] += 1
    other = dataclasses.replace(model, params=dict(model.params) | {"layers": layers})
    for grain in GRAINS:
        circuit = make(grain)
        for use in (
            circuit.check_model,
            circuit.view,
            circuit.parts,
            lambda m, circuit=circuit: circuit.logits(m, np.zeros((1, 2), int)),
            lambda m, circuit=circuit: circuit.changed(m, circuit.opened),
            lambda m, circuit=circuit: circuit.save(tmp_path / "c", m),
        ):
            with pytest.raises(ValueError, match=f"{model.hash}.*{other.hash}"):
                use(other)
    assert not (tmp_path / "c").exists()


def test_saving_again_replaces(make, model, tmp_path):
    circuit = make("nodes")
    circuit.save(tmp_path, model)
    mask = {site: ~kept for site, kept in circuit.opened["mask"].items()}
    changed = circuit.changed(model, {"mask": mask})
    changed.save(tmp_path, model)
    assert_same(Circuit.load(tmp_path).opened, {"mask": mask})
    assert changed.content_hash != circuit.content_hash


@pytest.mark.parametrize("grain", GRAINS)
def test_the_hash_covers_what_the_circuit_is(make, model, grain):
    circuit = make(grain)
    again = dataclasses.replace(circuit, provenance={"other": 1}, model_name="x")
    assert again.content_hash == circuit.content_hash
    hashes = {
        circuit.content_hash,
        dataclasses.replace(circuit, scale=2.0).content_hash,
        dataclasses.replace(circuit, shift=0.5).content_hash,
        make(grain, "zero").content_hash,
        make(grain, "resample").content_hash,
        make(grain, "interchange").content_hash,
        make(grain, kept=True).content_hash,
    }
    assert len(hashes) == 7


def _change(root, **fields):
    path = root / "circuit.json"
    record = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(seal({k: v for k, v in record.items() if v is not None})))


def _truncate(root):
    path = root / "circuit.json"
    path.write_text(path.read_text()[:-40])


def _unsealed(root):
    path = root / "circuit.json"
    path.write_text(path.read_text().replace('"scale": 1.5', '"scale": 1.6'))


def _other_nodes(root):
    record = json.loads((root / "circuit.json").read_text())
    _change(root, nodes=record["nodes"][1:])


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: (root / "circuit.json").unlink(), "no readable circuit"),
        (lambda root: (root / "circuit.json").write_text("[1]"), "no readable circuit"),
        (_truncate, "no readable circuit"),
        (_unsealed, "no readable circuit"),
        (lambda root: _change(root, format="other"), "no readable circuit.*'other'"),
        (lambda root: _change(root, format="circuitjax-circuit-3"), "newer"),
        (lambda root: _change(root, calibration=None), "calibration"),
        (lambda root: _change(root, grain="layers"), "no grain 'layers'"),
        (lambda root: _change(root, arrays_hash="0" * 64), "is damaged"),
        (_other_nodes, "is damaged"),
        (lambda root: shutil.rmtree(root / "arrays"), "no checkpoint"),
    ],
)
def test_a_damaged_directory_is_refused_in_one_line(make, model, tmp_path, grain, harm, message):
    make(grain).save(tmp_path, model)
    harm(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        Circuit.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_fields_are_named(make, model):
    circuit, edges, mask = make("nodes"), make("edges"), make("nodes").opened["mask"]
    weights = {"mask": mask, "weights": {"act_in->z": np.ones((2, 8, 8), bool)}}
    for grain, opened, changes, message in (
        ("nodes", {"mask": mask}, {"scale": 0.0}, "scale must be above 0"),
        ("nodes", {"mask": mask}, {"shift": float("nan")}, "both finite"),
        ("nodes", {"mask": {}}, {}, "mask of attn.act_in is shaped None"),
        ("nodes", {"mask": mask}, {"held": {}}, "fills of attn.act_in are shaped None"),
        ("nodes", {"mask": mask}, {"ablation": "noise"}, "ablation is 'noise'"),
        ("nodes", {"mask": mask}, {"ablation": "resample"}, "leave `held` out"),
        ("weights", weights, {}, "unknown family 'act_in->z'"),
        ("weights", {"mask": mask, "weights": {}}, {}, "weights of act_in->q are shaped None"),
        ("edges", {"kept": np.ones(3, bool)}, {"held": edges.held}, "edges are shaped"),
        ("edges", edges.opened, {"held": np.zeros((1, 1))}, "replacements are shaped"),
        ("layers", {}, {}, "there is no grain 'layers'"),
    ):
        with pytest.raises(ValueError, match=message):
            Circuit.of(model, grain, opened, **{"held": circuit.held, **changes})


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_all_open_is_the_model(make, model, draw, grain, ablation):
    circuit = make(grain, ablation, kept=True)
    expected = np.asarray(apply(model.config, model.params, draw.tokens).logits)
    found = circuit.logits(model, draw.tokens, corrupted=draw.tokens[::-1])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    places = np.asarray(draw.positions)
    found = circuit.logits(model, draw.tokens, places, draw.tokens[::-1])
    picked = expected[np.arange(len(places))[:, None], places]
    np.testing.assert_allclose(found, picked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grain", GRAINS)
def test_all_closed_under_interchange_is_the_corrupted_run(make, model, draw, grain):
    circuit = make(grain, "interchange", kept=False)
    corrupted = draw.tokens[::-1]
    other = apply(model.config, model.params, corrupted).logits
    found = circuit.logits(model, draw.tokens, corrupted=corrupted)
    if grain != "edges":
        # The stream begins with the clean prompt's embedding, which no gate touches.
        sites = ("attn.resid_delta", "mlp.resid_delta")
        written = apply(model.config, model.params, corrupted, capture=sites).captured
        stream = model.params["embed"][draw.tokens] + model.params["positions"][None, :6]
        stream = stream + sum(np.sum(written[site], axis=0) for site in sites)
        size = np.sqrt(np.mean(stream**2, axis=-1, keepdims=True))
        other = stream / size * model.params["final_norm_scale"][None, None]
        other = other @ model.params["unembed"]
    np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="give corrupted prompts"):
        circuit.logits(model, draw.tokens)


def test_resampling_is_drawn_by_its_seed(make, model, draw):
    circuit = make("nodes", "resample")
    one, again, other = (circuit.logits(model, draw.tokens, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("grain", ["nodes", "weights"])
def test_its_parts_are_the_circuit(make, model, draw, grain):
    """The circuit as gates on its nodes answers as the plain forward pass under mask and fills does."""
    circuit = make(grain)
    view = circuit.parts(model)["nodes"]
    gates = view.model.tree(jnp.asarray(view.gates, jnp.float32))
    for site, kept in circuit.opened["mask"].items():
        np.testing.assert_array_equal(gates[site], kept)
    found = apply(view.model.config, view.model.params, draw.tokens, gates, circuit.held).logits
    if grain == "nodes":
        np.testing.assert_allclose(found, circuit.logits(model, draw.tokens), rtol=1e-4, atol=1e-4)
        whole = circuit.view(model)
        np.testing.assert_array_equal(whole.gates, view.gates)
