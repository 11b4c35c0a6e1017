"""The compact model's law: the logits of the gated model, from less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.compact import compact
from circuitjax.gated.weight_index import close_weights
from circuitjax.model import transformer
from circuitjax.model.families import FAMILIES
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import shapes

VARIANTS = {
    "rms, sinks, bigram": {"attention_sinks": True, "bigram": True},
    "layer norm, tied, final bias": {
        "norm": "layer",
        "tied_unembedding": True,
        "final_bias": True,
    },
    "layer norm, relu residual": {"norm": "layer", "residual_activation": "relu"},
    "no norm, concatenated": {"norm": "none", "position": "concatenated", "d_position": 3},
    "concatenated, relu residual": {
        "position": "concatenated",
        "d_position": 3,
        "residual_activation": "relu",
    },
    "residual top-k": {"abs_top_k_fraction": 0.5, "abs_top_k_sites": ("resid.post_attn",)},
}


def _circuit(model, mask, fills):
    return Circuit.of(model, "nodes", {"mask": mask}, held=fills)


def _gates(circuit):
    return {s: jnp.asarray(m, jnp.float32) for s, m in circuit.opened["mask"].items()}


@pytest.mark.parametrize(
    ("name", "density"),
    [(n, 0.1) for n in VARIANTS]
    + [
        ("rms, sinks, bigram", 0.0),
        ("layer norm, tied, final bias", 0.02),
        ("rms, sinks, bigram", 1.0),
    ],
)
def test_equals_the_gated_model(draw, name, density):
    config = draw.config(**VARIANTS[name])
    rng = np.random.default_rng(0)
    model = Model("tiny", config, draw.params(config, rng))
    circuit = _circuit(model, draw.mask(config, rng, density), draw.fills(config, rng))

    def full(gates):
        return transformer.apply(config, model.params, draw.tokens, gates, circuit.held).logits

    expected = np.asarray(jax.jit(full)(_gates(circuit)))
    small = compact(model, circuit)
    scale = max(1.0, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(small.logits(draw.tokens) / scale, expected / scale, atol=1e-5)
    found = small.logits(draw.tokens, jnp.asarray(draw.positions))
    rows = np.arange(len(draw.tokens))[:, None]
    np.testing.assert_allclose(found / scale, expected[rows, draw.positions] / scale, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_gated_model_where_only_the_first_layer_attends(draw, name):
    config = draw.config(**VARIANTS[name])
    rng = np.random.default_rng(3)
    model = Model("tiny", config, draw.params(config, rng))
    mask = draw.mask(config, rng, 0.4)
    for site in ("attn.q", "attn.k", "attn.v"):
        mask[site][1:] = False
    circuit = _circuit(model, mask, draw.fills(config, rng))
    small = compact(model, circuit)
    everywhere = np.asarray(small.logits(draw.tokens))
    found = small.logits(draw.tokens, jnp.asarray(draw.positions))
    expected = transformer.apply(
        config, model.params, draw.tokens, _gates(circuit), circuit.held
    ).logits
    scale = max(1.0, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(everywhere / scale, expected / scale, atol=1e-5)
    rows = np.arange(len(draw.tokens))[:, None]
    np.testing.assert_allclose(found / scale, expected[rows, draw.positions] / scale, atol=1e-5)


def test_only_channels_that_matter_are_carried(draw):
    config = draw.config()
    model = Model("tiny", config, draw.params(config, np.random.default_rng(1), density=1.0))
    mask = {site: np.zeros(shape, bool) for site, shape in shapes(config).items()}
    fills = {site: np.zeros(shape, np.float32) for site, shape in shapes(config).items()}
    mask["mlp.act_in"][0, 3] = mask["mlp.post_act"][0, 7] = mask["mlp.resid_delta"][0, 5] = True
    small = compact(model, _circuit(model, mask, fills))
    assert small.channels.tolist() == [3, 5]
    whole = compact(model, _circuit(model, {k: ~v | v for k, v in mask.items()}, fills))
    assert whole.channels.tolist() == list(range(8))
    assert small.num_parameters["layers"] < whole.num_parameters["layers"]
    assert small.num_parameters["shared"] == whole.num_parameters["shared"]


def test_another_model_is_refused(draw):
    config, rng = draw.config(), np.random.default_rng(2)
    model, other = (Model("tiny", config, draw.params(config, rng)) for _ in range(2))
    circuit = _circuit(model, draw.mask(config, rng, 0.5), draw.fills(config, rng))
    with pytest.raises(ValueError, match="load the model it was found in"):
        compact(other, circuit)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_sinks": True},
        {"biases": False},
        {"norm": "layer", "biases": False, "position": "concatenated", "d_position": 3},
    ],
)
def test_single_weights_equal_the_gated_model(draw, changes):
    config, rng = draw.config(**changes), np.random.default_rng(0)
    model = Model("tiny", config, draw.params(config, rng))
    opened = {f.name: rng.random(f.shape(config)) < 0.6 for f in FAMILIES}
    mask, fills = draw.mask(config, rng, 0.8), draw.fills(config, rng)
    circuit = Circuit.of(model, "weights", {"mask": mask, "weights": opened}, held=fills)
    closed = close_weights(config, model.params, fills, opened)
    expected = transformer.apply(*closed, draw.tokens, _gates(circuit), fills).logits
    found = compact(model, circuit).logits(draw.tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_what_has_no_compact_form_is_refused(draw):
    config, rng = draw.config(), np.random.default_rng(2)
    model = Model("tiny", config, draw.params(config, rng))
    kept = np.ones(residual_graph(config).num_edges, bool)
    mask = {"mask": draw.mask(config, rng, 0.5)}
    for circuit in (
        Circuit.of(model, "edges", {"kept": kept}, ablation="interchange"),
        Circuit.of(model, "nodes", mask, ablation="resample"),
    ):
        with pytest.raises(ValueError, match="has no compact form"):
            compact(model, circuit)
