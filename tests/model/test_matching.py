"""What is called dead or constant can be closed at anything, or at its value, and no output changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.matching import alive_gates, alive_matches, constant_products
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply
from tests.model.test_architectures import TOKENS, VARIANTS, make

run = jax.jit(apply, static_argnums=0)


def half_closed(config, rng):
    """Masks with few q, k, gate and up nodes open, and fills half of which are 0."""
    keep = {site: rng.random(shape) < 0.7 for site, shape in shapes(config).items()}
    for site in ("attn.q", "attn.k", "mlp.gate", "mlp.up"):
        if site in keep:
            keep[site] = rng.random(keep[site].shape) < 0.25
    fill = {
        site: rng.normal(size=m.shape) * (rng.random(m.shape) < 0.4) for site, m in keep.items()
    }
    return keep, {site: value.astype(np.float32) for site, value in fill.items()}


def logits(config, params, keep, fill):
    gates = {site: jnp.asarray(value, jnp.float32) for site, value in keep.items()}
    return np.asarray(run(config, params, TOKENS[0], gates, fill).logits)


def layer(tree, index):
    return {site: value[index] for site, value in tree.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_dead_nodes_change_nothing(variant):
    config, params = make(variant)
    rng = np.random.default_rng(5)
    keep, fill = half_closed(config, rng)
    before = logits(config, params, keep, fill)
    dead = 0
    for index in range(config.num_layers):
        found = dict(
            zip(
                ("attn.q", "attn.k"),
                alive_matches(
                    config, layer(keep, index), layer(fill, index), np.ones(config.num_heads, bool)
                ),
                strict=True,
            )
        )
        if config.gated_mlp:
            products = keep["mlp.post_act"][index]
            alive = alive_gates(config, layer(keep, index), layer(fill, index), products)
            found |= dict(zip(("mlp.gate", "mlp.up"), alive, strict=True))
        for site, alive in found.items():
            closed = keep[site][index] & ~alive
            keep[site][index][closed] = False  # at zero, so that what it met stays as it was
            fill[site][index][closed] = 0.0
            dead += closed.sum()
    assert dead > (0 if config.qk_norm else 5)
    np.testing.assert_allclose(logits(config, params, keep, fill), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["llama", "qwen"])
def test_constant_products_are_closed_at_their_values(variant):
    config, params = make(variant)
    keep, fill = half_closed(config, np.random.default_rng(6))
    before = logits(config, params, keep, fill)
    for index in range(config.num_layers):
        constant, value = constant_products(config, layer(keep, index), layer(fill, index))
        assert 0 < constant.sum() < config.d_mlp
        closed = constant & keep["mlp.post_act"][index]
        keep["mlp.post_act"][index][closed] = False
        fill["mlp.post_act"][index][closed] = value[closed]
    np.testing.assert_allclose(logits(config, params, keep, fill), before, atol=1e-5, rtol=1e-4)


def test_alive_ones_do_change_something():
    """Rotary: a q against a closed k of 1 is alive, and a plain model would call it dead."""
    config, params = make("rotary")
    keep = {site: np.ones(shape, bool) for site, shape in shapes(config).items()}
    fill = {site: np.zeros(shape, np.float32) for site, shape in shapes(config).items()}
    keep["attn.q"][:], keep["attn.k"][:] = False, False
    keep["attn.q"][0, 0] = True
    fill["attn.k"][0, 3] = 1.0  # the partner of channel 0
    matters = np.ones(config.num_heads, bool)
    q, k = alive_matches(config, layer(keep, 0), layer(fill, 0), matters)
    assert q.sum() == 1
    assert k.sum() == 0
    before = logits(config, params, keep, fill)
    keep["attn.q"][0, 0] = False
    assert np.abs(logits(config, params, keep, fill) - before).max() > 1e-3
    fill["attn.k"][0, 3] = 0.0
    keep["attn.q"][0, 0] = True
    assert not alive_matches(config, layer(keep, 0), layer(fill, 0), matters)[0].any()
