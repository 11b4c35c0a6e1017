"""The authors' viewer: it can load the file, and what it would show is true."""

import builtins
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit.circuit import Circuit
from circuitjax.export.formats import export_circuit
from circuitjax.export.viewer_files import viewer_data
from circuitjax.model.config import SITES
from circuitjax.model.families import FAMILIES
from circuitjax.model.sites import parse_address, shapes
from circuitjax.model.transformer import apply
from tests.audit.planted_audit import mask_of
from tests.prune.planted import CONFIG, PLANTED, planted_model, planted_problem

torch = pytest.importorskip("torch")

EXTRA = ("0.attn.q.h1.c2", "1.attn.k.h0.c3", "0.mlp.post_act.9", "1.attn.v.h1.c0", "0.mlp.act_in.5")


@pytest.fixture(scope="module")
def circuit():
    mask = mask_of((*PLANTED, *EXTRA))
    rng = np.random.default_rng(4)
    fills = {s: rng.normal(0, 0.1, n).astype(np.float32) for s, n in shapes(CONFIG).items()}
    model = planted_model()
    facts = {"task": '../first "letter"', "made": {"steps": 3}}
    return Circuit.of(
        model, "nodes", {"mask": mask}, held=fills, scale=0.5, shift=0.1, provenance=facts
    )


@pytest.fixture(scope="module")
def loaded(circuit, tmp_path_factory):
    root = tmp_path_factory.mktemp("viewer")
    paths = export_circuit(circuit, planted_model(), ["viewer"], root, problem=planted_problem())
    names = [str(path.relative_to(root)) for path in paths]
    assert names == [
        "viz/planted/first__letter_/circuitjax/k_optim/viz_data.pt",
        "models/planted/final_model.pt",
    ]
    return [torch.load(path, weights_only=True) for path in paths]


@jax.jit
def logits_at(gates, fills):
    examples = planted_problem().test
    tokens, positions = jnp.asarray(examples.tokens)[:, 0], jnp.asarray(examples.positions)
    params = jax.tree.map(jnp.asarray, dict(planted_model().params))
    return apply(CONFIG, params, tokens, gates, fills, positions=positions).logits[:, 0]


def loss_of(circuit, gates) -> float:
    """By the plain forward pass: after each prompt of a pair the answers' difference, calibrated."""
    gates = {site: jnp.asarray(m, jnp.float32) for site, m in gates.items()}
    logits = np.asarray(logits_at(gates, dict(circuit.held)), np.float64)
    right, wrong = (np.asarray(planted_problem().test.right)[side::2, 0] for side in (0, 1))
    pairs, each = logits.reshape(-1, 2, logits.shape[-1]), np.arange(len(right))
    d = pairs[each, :, right] - pairs[each, :, wrong]
    return float(np.mean(np.logaddexp(0, (d * circuit.scale + circuit.shift) * [-1, 1])))


def test_the_losses_that_it_shows(loaded, circuit):
    """Half of two of them; y / 2 - interv_loss for a node, x - interv_loss / 2 for a block."""
    held = loaded[0]["importances"]
    kept = {site: np.asarray(m, np.float32) for site, m in circuit.opened["mask"].items()}
    own = loss_of(circuit, kept)
    assert held["interv_loss"] / 2 == pytest.approx(own, abs=1e-5)
    whole = dataclasses.replace(circuit, scale=1.0, shift=0.0)
    ones = {site: np.ones_like(m) for site, m in kept.items()}
    assert held["loss"] / 2 == pytest.approx(loss_of(whole, ones), abs=1e-5)
    shown = {}
    for site, losses in held["ch_interv_losses"].items():
        for channel, y in zip(loaded[0]["circuit_data"][site].tolist(), losses, strict=True):
            shown[site, channel] = y / 2 - held["interv_loss"]
    assert len(shown) == circuit.num_nodes
    for name in (PLANTED[1], PLANTED[5], EXTRA[2]):
        layer, site, index = parse_address(CONFIG, name)
        without = {s: m.copy() for s, m in kept.items()}
        without[site][layer, index] = 0
        change = loss_of(circuit, without) - own
        assert shown[f"{layer}.{site}", index] == pytest.approx(change, abs=1e-5)
    assert shown["0.attn.v", 0] > 0.1
    for block in ("0.attn", "1.mlp"):
        without = {s: m.copy() for s, m in kept.items()}
        for site in SITES:
            if site.startswith(block[2:]):
                without[site][int(block[0])] = 0
        change = held["layer_interv_losses"][block] - held["interv_loss"] / 2
        assert change == pytest.approx(loss_of(circuit, without) - own, abs=1e-5)
    assert set(held["layer_interv_losses"]) == {"0.attn", "0.mlp", "1.attn", "1.mlp"}


def test_the_circuit_and_its_weights(loaded, circuit):
    data, held = loaded[0], loaded[0]["importances"]
    order = [f"{layer}.{site}" for layer in range(2) for site in SITES]
    assert list(data["circuit_data"]) == list(held["ch_interv_losses"]) == order
    assert data["num_total_nodes"] == CONFIG.num_nodes
    assert sum(v.numel() for v in data["circuit_data"].values()) == circuit.num_nodes
    assert data["prune_config"] == circuit.provenance
    assert data["all_loss"][-1][1] == pytest.approx(held["interv_loss"] / 2)
    assert held["beeg_model_config"]["d_head"] == CONFIG.d_head
    assert held["pair_data_connections"] == {}
    pairs = {pair[-1]: pair for pair in held["pair_data"]}
    layers = planted_model().params["layers"]
    assert list(pairs) == [
        (f"{layer}.{f.source}", f"{layer}.{f.target}") for layer in range(2) for f in FAMILIES
    ]
    for (source, target), (weights, sources, targets, _) in pairs.items():
        assert sources[-1] == "bias"
        assert sources[:-1] == data["circuit_data"][source].tolist()
        assert targets == data["circuit_data"][target].tolist()
        assert weights.shape == (len(sources), len(targets))
        (family,) = [
            f
            for f in FAMILIES
            if f"0.{f.source}->0.{f.target}"[2:] == f"{source[2:]}->0.{target[2:]}"
        ]
        kernel = layers[family.kernel][int(source[0])]
        for i, a in enumerate(sources[:-1]):
            np.testing.assert_array_equal(weights[i], kernel[a, targets])
        if target.endswith("attn.resid_delta"):
            assert not weights[-1].any()  # the viewer would crash


def test_the_contexts(loaded):
    data = loaded[0]
    for site, channels in data["circuit_data"].items():
        assert list(data["samples"][site]) == channels.tolist()
        for shares in data["samples"][site].values():
            assert list(shares) == [0.001, 0.01, 0.1, 0.5]
            every = [c for both in shares.values() for some in both for c in some]
            torch.stack([acts for _, acts, _ in every])  # of one length
            for low, high in shares.values():
                assert len(low) == len(high) == 5
                bottom, top = ([acts[at] for _, acts, at in some] for some in (low, high))
                assert max(bottom) <= min(top) or shares[0.5][0] is low
    # Channel 0 is +1 on A and -1 on B, and the first token is BOS.
    low, high = data["samples"]["0.attn.act_in"][0][0.001]
    assert {int(tokens[at]) for tokens, _, at in low} == {2}
    assert {int(tokens[at]) for tokens, _, at in high} == {1}


def test_the_prompts(loaded, circuit):
    docs, acts = loaded[0]["importances"]["task_samples"]
    half = len(docs) // 2
    gates = {s: jnp.asarray(m, jnp.float32) for s, m in circuit.opened["mask"].items()}
    params = jax.tree.map(jnp.asarray, dict(planted_model().params))
    assert {int(row[1]) for row in docs[:half]} == {1}
    assert {int(row[1]) for row in docs[half:]} == {2}
    np.testing.assert_array_equal(docs[:half, 2:], docs[half:, 2:])
    fills = {site: jnp.asarray(f) for site, f in circuit.held.items()}
    tokens = jnp.asarray(docs.numpy())
    captured = apply(CONFIG, params, tokens, gates, fills, capture=SITES).captured
    end = np.asarray(planted_problem().test.positions)[: 2 * half, 0].reshape(-1, 2)
    end = end.T.reshape(-1) + 1
    for site, channels in acts.items():
        for channel, values in channels.items():
            expected = np.asarray(captured[site[2:]])[int(site[0])][..., channel]
            for row in (0, half):
                length = int(end[row])
                np.testing.assert_allclose(values[row, :length], expected[row, :length], atol=1e-5)
                assert not values[row, length:].any()


def test_the_embeddings_are_large_enough_for_its_page(loaded):
    wte = loaded[1]["transformer.wte.weight"]
    wpe = loaded[1]["transformer.wpe.weight"]
    assert wpe.shape[0] == 1024
    part = wpe[1:256, :512]
    assert part[:, (part != 0).sum(dim=0)].shape == part.shape  # what it computes
    embed = planted_model().params["embed"]
    np.testing.assert_array_equal(wte[:, : embed.shape[1]], embed)
    assert not wte[:, embed.shape[1] :].any()


def test_bad_contexts_and_a_missing_library(circuit, monkeypatch, tmp_path):
    model, problem = planted_model(), planted_problem()
    for contexts, message in (
        (np.zeros((2, 9), int), "contexts are int64"),
        (np.zeros((2, 4)), "contexts are float64"),
        (np.full((2, 4), 99), "tokens 99 to 99"),
    ):
        with pytest.raises(ValueError, match=message):
            viewer_data(circuit, model, problem, contexts)
    with pytest.raises(ValueError, match="give the problem"):
        export_circuit(circuit, model, ["viewer"], tmp_path)
    real = builtins.__import__

    def without(name, *rest):
        if name == "torch":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'circuitjax\[torch\]'"):
        export_circuit(circuit, model, ["viewer"], tmp_path, problem=problem)
    assert list(tmp_path.iterdir()) == []
