"""The optimiser's links against their formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from circuitjax.model.transformer import init_params
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.optimizer import make_optimizer, scale_to_rms


def rms(tree) -> float:
    return float(
        np.sqrt(np.mean(np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) ** 2))
    )


@pytest.mark.parametrize("size", [1e-4, 1.0, 30.0])
@pytest.mark.parametrize("always", [True, False])
def test_the_gradient_is_scaled_as_a_whole(size, always, rng):
    tree = {"a": rng.normal(size=(3, 5)) * size, "b": {"c": rng.normal(size=7) * size}}
    tree = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
    link = scale_to_rms(2.0, always=always)
    found, _ = link.update(tree, link.init(tree))
    expected = 2.0 if always or rms(tree) > 2 else rms(tree)
    assert rms(found) == pytest.approx(expected, rel=1e-5)
    factor = expected / rms(tree)
    jax.tree.map(lambda f, t: np.testing.assert_allclose(f, t * factor, rtol=1e-5), found, tree)


def test_a_zero_gradient_stays_zero():
    link = scale_to_rms()
    found, _ = link.update({"a": jnp.zeros(4)}, link.init({}))
    np.testing.assert_array_equal(found["a"], 0)


def sharkfin(config: PretrainConfig, step: int) -> float:
    """peak * warm-up and decay / sqrt(density), by hand."""
    warmup = config.warmup_fraction * config.steps
    rise = min(1.0, (step + 1) / max(warmup, 1)) if warmup else 1.0
    fall = 1 - max(0.0, step - warmup) / (config.steps - warmup)
    annealed = min(1.0, (step + 1) / (config.anneal_fraction * config.steps))
    density = 1 - (1 - config.density) * annealed
    return config.learning_rate * rise * fall / density**0.5


def test_the_rate_is_a_sharkfin(tiny_config):
    config = PretrainConfig(
        tiny_config, steps=10, length=8, density=0.04, anneal_fraction=0.6, warmup_fraction=0.3,
        learning_rate=0.01, weight_decay=0.0, b1=0.0, b2=0.0, eps=1e-8,
    )  # fmt: skip
    chain = make_optimizer(config)
    params = dict(init_params(jax.random.key(0), tiny_config))
    state = chain.init(params)
    rates = []
    for _ in range(config.steps):
        gradient = jax.tree.map(jnp.ones_like, params)
        updates, state = jax.jit(chain.update)(gradient, state, params)
        # With b1 = b2 = 0 Adam's step is the sign; norm scales are neither decayed nor cut.
        rates.append(-float(updates["final_norm_scale"][0]))
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(rates, [sharkfin(config, n) for n in range(10)], rtol=1e-4)
    assert max(rates) > 2 * config.learning_rate
    kept = np.count_nonzero(params["embed"]) / params["embed"].size
    assert kept == pytest.approx(0.04, abs=1 / params["embed"].size)


def test_only_sparse_matrices_decay(tiny_config):
    config = PretrainConfig(tiny_config, steps=10, length=8, density=1, weight_decay=0.5)
    chain = make_optimizer(config)
    params = jax.tree.map(jnp.ones_like, init_params(jax.random.key(0), tiny_config))
    updates, _ = chain.update(jax.tree.map(jnp.zeros_like, params), chain.init(params), params)
    rate = sharkfin(config, 0)
    np.testing.assert_allclose(updates["layers"]["mlp_in"], -0.5 * rate, rtol=1e-5)
    np.testing.assert_allclose(updates["layers"]["attn_q_bias"], -0.5 * rate, rtol=1e-5)
    for name in ("attn_norm_scale", "attn_sink"):
        np.testing.assert_array_equal(updates["layers"][name], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": 0}, r"density is 0; it must be in \(0, 1\]"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": "9"}, "steps is '9'; it must be of type int"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup_fraction": 1.5}, "warmup_fraction is 1.5"),
        ({"b2": 1.0}, "b2 is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"length": 17}, "length is 17, above the model's context of 16"),
        ({"model": None}, "field `model`"),
        ({"stepz": 3}, "unknown fields .'stepz'"),
    ],
)
def test_bad_configs_are_named(tiny_config, change, message):
    fields = {"model": tiny_config.to_dict(), "length": 8, **change}
    with pytest.raises(ValueError, match=message):
        PretrainConfig.from_dict(fields)


def test_a_config_survives_its_dict(tiny_config):
    config = PretrainConfig(tiny_config, steps=7, length=8, min_per_neuron=2)
    assert PretrainConfig.from_dict(config.to_dict()) == config
    assert hash(config) != hash(dataclasses.replace(config, seed=1))
