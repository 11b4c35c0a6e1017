"""The model against implementations that share no code with it.

One is NumPy in float64 (`reference.py`), for every variant; the other is PyTorch's, whose logits
and activations on five tiny random models were recorded (`tests/data/make_openai_fixtures.py`).
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import CAPTURABLE, apply, init_params
from tests.model import reference

BASE = TransformerConfig(
    num_layers=2, d_model=12, num_heads=2, d_head=4, d_mlp=16, vocab_size=24, context_length=16
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer norm": {"norm": "layer"},
    "layer norm without its bias": {"norm": "layer", "norm_bias": False, "norm_eps": 1e-2},
    "no norm": {"norm": "none", "num_layers": 1},
    "rms with a large eps": {"norm_eps": 0.1},
    "tanh gelu and sinks": {"activation": "gelu_tanh", "attention_sinks": True},
    "relu without biases": {"activation": "relu", "biases": False},
    "sinks, bigram, final bias": {"attention_sinks": True, "bigram": True, "final_bias": True},
    "bidirectional with sinks": {"causal": False, "attention_sinks": True},
    "bidirectional without positions": {"causal": False, "position": "none"},
    "concatenated positions": {"position": "concatenated", "d_position": 5},
    "concatenated, layer norm": {"position": "concatenated", "d_position": 5, "norm": "layer"},
    "tied": {"tied_unembedding": True, "position": "none"},
    "top-k at every node": {"abs_top_k_fraction": 0.3, "abs_top_k_sites": SITES},
    "top-k of the stream": {
        "abs_top_k_fraction": 0.5,
        "abs_top_k_sites": ("resid.post_attn", "resid.post_mlp"),
    },
    "relu stream": {"residual_activation": "relu", "norm": "none", "num_layers": 3},
}
OPENAI = pathlib.Path(__file__).parents[1] / "data" / "openai"


def variant(name: str) -> tuple[TransformerConfig, Any]:
    config = dataclasses.replace(BASE, **VARIANTS[name])
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    return config, reference.draw_params(shapes, np.random.default_rng(5))


TOKENS = np.random.default_rng(0).integers(0, 24, (2, 7))


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_every_activation_equal_numpys(name):
    config, params = variant(name)
    run = jax.jit(lambda p, t: apply(config, p, t, capture=CAPTURABLE))
    found = run(params, TOKENS)
    logits, seen = reference.run(config, params, TOKENS)
    np.testing.assert_allclose(found.logits, logits, atol=2e-4, rtol=2e-4)
    assert seen.keys() == set(CAPTURABLE) == found.captured.keys()
    for site, value in seen.items():
        np.testing.assert_allclose(found.captured[site], value, atol=2e-4, rtol=2e-4, err_msg=site)


@pytest.mark.parametrize("name", ["plain", "concatenated positions", "top-k at every node"])
def test_a_closed_gate_is_the_activation_overwritten_by_hand(name, rng):
    config, params = variant(name)
    run = jax.jit(lambda gates, fills: apply(config, params, TOKENS, gates, fills).logits)
    gates = {s: np.ones((config.num_layers, config.width(s)), np.float32) for s in SITES}
    fills = {s: rng.normal(size=gates[s].shape).astype(np.float32) for s in SITES}
    for site in SITES:
        layer = int(rng.integers(config.num_layers))
        node = int(rng.integers(config.width(site)))
        closed = gates[site].copy()
        closed[layer, node] = 0

        def edit(at_layer, at_site, value, here=(layer, site), node=node):
            if (at_layer, at_site) == here:
                value = value.copy()
                value[:, node] = fills[at_site][at_layer, node]
            return value

        expected, _ = reference.run(config, params, TOKENS, edit)
        found = run({**gates, site: closed}, fills)
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=2e-4, err_msg=site)


def test_soft_gates_and_fills_for_each_token(rng):
    config, params = variant("sinks, bigram, final bias")
    gates = {s: rng.random((config.num_layers, config.width(s))).astype(np.float32) for s in SITES}
    fills = {
        s: rng.normal(size=(config.num_layers, *TOKENS.shape, config.width(s))).astype(np.float32)
        for s in SITES
    }
    rows = []
    for row in range(len(TOKENS)):

        def edit(layer, site, value, row=row):
            gate = gates[site][layer].astype(np.float64)
            return gate * value + (1 - gate) * fills[site][layer, row]

        rows.append(reference.run(config, params, TOKENS[row : row + 1], edit)[0][0])
    found = jax.jit(lambda g, f: apply(config, params, TOKENS, g, f).logits)(gates, fills)
    np.testing.assert_allclose(found, np.stack(rows), atol=2e-4, rtol=2e-4)
    asked = np.array([[6, 1], [3, 3]])
    cut = apply(config, params, jnp.asarray(TOKENS), gates, fills, positions=jnp.asarray(asked))
    np.testing.assert_allclose(
        cut.logits, np.take_along_axis(np.stack(rows), asked[:, :, None], 1), atol=2e-4, rtol=2e-4
    )


@pytest.mark.parametrize("name", ["abstopk", "catpos", "layernorm_tied", "plain", "sink"])
def test_the_recorded_models(name):
    config = TransformerConfig.from_dict(json.loads((OPENAI / f"{name}.json").read_text()))
    params: dict[str, Any] = {"layers": {}}
    expected = {}
    with np.load(OPENAI / f"{name}.npz") as file:
        for key in file.files:
            kind, rest = key.split("/", 1)
            if kind == "reference":
                expected[rest] = file[key]
            elif rest.startswith("layers/"):
                params["layers"][rest.removeprefix("layers/")] = file[key]
            else:
                params[rest] = file[key]
    Model(name=name, config=config, params=params)  # every name and shape is the model's own
    tokens, logits = expected.pop("tokens"), expected.pop("logits")
    output = jax.jit(lambda p, t: apply(config, p, t, capture=SITES))(params, tokens)
    print(f"\n| {name} | {np.abs(output.logits - logits).max():.1e} |")  # pytest -s: of parity
    np.testing.assert_allclose(output.logits, logits, atol=1e-4)
    assert len(expected) == config.num_layers * len(SITES)
    for key, value in expected.items():
        layer, site = key.split(".", 1)
        found = output.captured[site][int(layer)]
        np.testing.assert_allclose(found, value, atol=1e-4, err_msg=key)
