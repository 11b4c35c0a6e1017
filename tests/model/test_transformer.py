"""Laws of the forward pass."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.layers import norm_factors
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import (
    CAPTURABLE,
    Transformer,
    apply,
    init_params,
)

# Compiled as one program: much less to compile than operation by operation.
run = jax.jit(apply, static_argnums=0, static_argnames="capture")
TOKENS = np.random.default_rng(0).integers(0, 24, (3, 9)).astype(np.int32)


def test_all_gates_open_is_the_plain_model_to_the_bit(tiny_model, rng):
    config, params = tiny_model.config, tiny_model.params
    ones = {s: np.ones(shape, np.float32) for s, shape in shapes(config).items()}
    fills = {s: rng.normal(size=shape).astype(np.float32) for s, shape in shapes(config).items()}
    plain = apply(config, params, TOKENS).logits
    np.testing.assert_array_equal(apply(config, params, TOKENS, ones).logits, plain)
    np.testing.assert_array_equal(apply(config, params, TOKENS, ones, fills).logits, plain)
    np.testing.assert_array_equal(apply(config, params, TOKENS, None, fills).logits, plain)


def test_all_closed_with_another_runs_activations_is_that_run(tiny_model):
    config, params = tiny_model.config, tiny_model.params
    other = np.roll(TOKENS, 1, axis=0)
    # Embeddings and the bigram row are past every gate: make them the same for both runs.
    params = {
        **params,
        "embed": np.tile(params["embed"][:1], (24, 1)),
        "bigram": np.zeros((24, 24)),
    }
    zeros = {s: np.zeros(shape, np.float32) for s, shape in shapes(config).items()}
    corrupted = run(config, params, other, capture=SITES)
    found = run(config, params, TOKENS, zeros, corrupted.captured)
    np.testing.assert_allclose(found.logits, corrupted.logits, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_asking_for_positions_is_slicing(tiny_config, num_layers, rng):
    config = dataclasses.replace(tiny_config, num_layers=num_layers)
    params = init_params(jax.random.key(0), config)
    gates = {s: (rng.random(shape) < 0.7).astype(np.float32) for s, shape in shapes(config).items()}
    asked = jnp.asarray([[8, 2, 0], [4, 4, 4], [0, 1, 8]])
    whole = run(config, params, TOKENS, gates).logits
    expected = np.take_along_axis(np.asarray(whole), np.asarray(asked)[:, :, None], axis=1)
    cut = run(config, params, TOKENS, gates, positions=asked)
    np.testing.assert_allclose(cut.logits, expected, atol=1e-5)
    assert cut.captured == {}
    seen = run(config, params, TOKENS, gates, positions=asked, capture=("mlp.post_act",))
    np.testing.assert_allclose(seen.logits, expected, atol=1e-5)
    assert seen.captured["mlp.post_act"].shape == (num_layers, *TOKENS.shape, config.d_mlp)


def test_padding_on_the_right_is_harmless_when_causal(tiny_model):
    config, params = tiny_model.config, tiny_model.params
    padded = np.concatenate([TOKENS[:, :6], np.full((3, 4), 23, np.int32)], axis=1)
    short = run(config, params, TOKENS[:, :6]).logits
    np.testing.assert_allclose(run(config, params, padded).logits[:, :6], short, atol=1e-5)
    seeing = dataclasses.replace(config, causal=False)
    both = (run(seeing, params, t).logits[:, :6] for t in (padded, TOKENS[:, :6]))
    assert np.abs(np.subtract(*both)).max() > 1e-2


def test_sequences_do_not_see_each_other(tiny_model):
    config, params = tiny_model.config, tiny_model.params
    together = run(config, params, TOKENS).logits
    for row in range(3):
        alone = run(config, params, TOKENS[row : row + 1]).logits[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_the_stream_is_what_the_blocks_write(tiny_model):
    seen = run(tiny_model.config, tiny_model.params, TOKENS, capture=CAPTURABLE).captured
    np.testing.assert_allclose(
        seen["resid.mid"], seen["resid.pre"] + seen["attn.resid_delta"], atol=1e-5
    )
    np.testing.assert_allclose(
        seen["resid.post"], seen["resid.mid"] + seen["mlp.resid_delta"], atol=1e-5
    )
    np.testing.assert_array_equal(seen["resid.pre"][1], seen["resid.post"][0])
    rows = np.asarray(seen["attn.pattern"]).sum(axis=-1)
    assert ((rows > 0) & (rows < 1)).all()  # the sink takes its share


def test_bfloat16_is_close_to_float32(tiny_config):
    params = init_params(jax.random.key(0), tiny_config)
    half = dataclasses.replace(tiny_config, matmul_dtype="bfloat16")
    exact, rough = (run(c, params, TOKENS).logits for c in (tiny_config, half))
    assert rough.dtype == jnp.float32
    difference = np.abs(np.asarray(exact - rough))
    assert 0 < difference.max() < 0.03 * np.abs(np.asarray(exact)).max() + 0.03


def test_the_program_does_not_grow_with_depth(tiny_config):
    def lines(num_layers: int) -> int:
        config = dataclasses.replace(tiny_config, num_layers=num_layers)
        abstract = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
        tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
        traced = jax.make_jaxpr(lambda p, t: apply(config, p, t).logits)(abstract, tokens)
        return len(str(traced).splitlines())

    assert abs(lines(2) - lines(24)) <= 2


def test_initial_parameters_are_random_in_every_layer(tiny_config):
    params = init_params(jax.random.key(0), tiny_config)
    first, second = params["layers"]["mlp_in"]
    assert np.abs(first - second).min() > 0
    again = Transformer(tiny_config).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gates": {"attn.z": np.ones((2, 8))}}, "unknown site 'attn.z'"),
        ({"fills": {"mlp": np.ones((2, 8))}}, "unknown site 'mlp'"),
        ({"capture": ("resid.end",)}, "unknown site 'resid.end'"),
        ({"gates": {"attn.q": np.ones((2, 9))}}, r"gate of attn.q .*\(2, 9\); it must be \(2, 8\)"),
        ({"gates": {"attn.q": np.ones(8)}}, r"gate of attn.q"),
        ({"gates": {"attn.q": np.ones((3, 8))}}, r"gate of attn.q"),
        ({"fills": {"attn.q": np.ones((2, 3, 8))}}, r"fill of attn.q"),
        ({"tokens": np.zeros((1, 17), int)}, r"17 tokens exceed .* 16"),
        ({"tokens": np.zeros(5, int)}, r"tokens are shaped \(5,\)"),
    ],
)
def test_bad_arguments_are_named(tiny_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        apply(tiny_model.config, tiny_model.params, **{"tokens": TOKENS, **arguments})


GOOD: dict[str, Any] = {
    "num_layers": 1,
    "d_model": 4,
    "num_heads": 1,
    "d_head": 4,
    "d_mlp": 4,
    "vocab_size": 5,
    "context_length": 6,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"d_model": 2.5}, "d_model is 2.5"),
        ({"norm": "batch"}, "norm is 'batch'; choose one of"),
        ({"activation": "silu"}, "activation is 'silu'"),
        ({"matmul_dtype": "float16"}, "matmul_dtype is 'float16'"),
        ({"d_position": 3}, "d_position is 3"),
        ({"position": "concatenated"}, "d_position is 0"),
        ({"abs_top_k_sites": ("attn.pattern",)}, "abs_top_k_sites holds"),
        ({"abs_top_k_fraction": 1.5}, "abs_top_k_fraction is 1.5"),
        ({"rotary": True}, "unknown fields .'rotary'"),
    ],
)
def test_bad_configs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig.from_dict({**GOOD, **change})


def test_a_missing_field_is_named_and_a_config_survives_json(tiny_config):
    with pytest.raises(ValueError, match=r"lacks the fields .'d_mlp'"):
        TransformerConfig.from_dict({k: v for k, v in GOOD.items() if k != "d_mlp"})
    config = dataclasses.replace(tiny_config, abs_top_k_fraction=0.5, abs_top_k_sites=SITES[:2])
    fields = config.to_dict()
    assert TransformerConfig.from_dict({**fields, "abs_top_k_sites": list(SITES[:2])}) == config
    assert hash(config) == hash(TransformerConfig.from_dict(fields))


def test_norms_frozen_at_their_own_run_change_nothing_and_at_anothers_they_do(tiny_model):
    config, params = tiny_model.config, tiny_model.params
    streams = ("resid.pre", "resid.mid", "resid.post")
    frozen = jax.jit(
        lambda norms, gates, asked: (
            apply(config, params, TOKENS, gates, positions=asked, norms=norms).logits
        )
    )
    plain = run(config, params, TOKENS, capture=streams)
    norms = norm_factors(config, plain.captured)
    asked = jnp.asarray([[8], [4], [0]])
    ones = {s: jnp.ones(shape) for s, shape in shapes(config).items()}
    expected = np.take_along_axis(np.asarray(plain.logits), np.asarray(asked)[:, :, None], axis=1)
    np.testing.assert_allclose(frozen(norms, ones, asked), expected, atol=1e-5)
    # A stream scaled by a half is read as if it were whole only where its norm is its own.
    gates = {**ones, "attn.resid_delta": ones["attn.resid_delta"] * 0.5}
    own = run(config, params, TOKENS, gates, capture=streams)
    cut = np.take_along_axis(np.asarray(own.logits), np.asarray(asked)[:, :, None], axis=1)
    held = norm_factors(config, own.captured)
    np.testing.assert_allclose(frozen(held, gates, asked), cut, atol=1e-5)
    assert np.abs(np.asarray(frozen(norms, gates, asked)) - cut).max() > 1e-3


def test_a_models_own_arrays_serve_inside_a_jit(tiny_model):
    """They are numpy's: whatever indexes them by what is traced would fail."""
    config, params = tiny_model.config, tiny_model.params
    asked = jnp.asarray([[8], [4], [0]])
    inside = jax.jit(lambda tokens, at: apply(config, params, tokens, positions=at).logits)
    expected = apply(config, params, TOKENS, positions=asked).logits
    np.testing.assert_allclose(inside(jnp.asarray(TOKENS), asked), expected, atol=1e-5)
