"""The law of the reduction where closed nodes hold another value at every token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model import transformer
from circuitjax.model.reduced_forward import apply_reduced
from circuitjax.model.reduced_tokens import held_within, reduce_for_tokens
from circuitjax.model.sites import shapes
from tests.model.test_reduced import (
    BASE,
    CANDIDATES,
    POSITIONS,
    TOKENS,
    VARIANTS,
    _floats,
    _masks,
    _params,
)


def made(name, density, sparsity=1.0):
    """A model, the nodes that stay, and what every node holds at every token."""
    config = dataclasses.replace(BASE, **VARIANTS[name])
    rng = np.random.default_rng(list(VARIANTS).index(name))
    params, keep = _params(config, rng, sparsity), _masks(config, rng, density)
    held = {
        site: rng.normal(size=(layers, *TOKENS.shape, width)).astype(np.float32)
        for site, (layers, width) in shapes(config).items()
    }
    more = {s: np.clip(2 * rng.random(m.shape) - 0.5, 0, 1) for s, m in keep.items()}
    return config, params, keep, held, _floats({s: keep[s] * more[s] for s in keep})


run_reduced = jax.jit(apply_reduced)


@pytest.mark.parametrize(
    ("name", "density"),
    [(name, 0.3) for name in VARIANTS] + [("sinks and bigram", x) for x in (0.0, 0.05, 1.0)],
)
def test_equals_the_gated_model(name, density):
    number = list(VARIANTS).index(name) % 2
    config, params, keep, held, gates = made(name, density, (1.0, 0.2)[number])
    reduced = reduce_for_tokens(config, params, keep, own_widths=number == 1)
    within = jax.jit(held_within)(reduced, params, held)
    few = {"positions": POSITIONS, "candidates": CANDIDATES} if number == 0 else {}
    found = run_reduced(reduced.small, TOKENS, gates, held=within, **few)
    wanted = jax.jit(lambda: transformer.apply(config, params, TOKENS, gates, held).logits)()
    if few:
        rows = np.arange(len(TOKENS))[:, None]
        wanted = np.take_along_axis(np.asarray(wanted)[rows, POSITIONS], CANDIDATES[:, None], 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_slopes_of_open_gates_are_those_of_the_gated_model():
    config, params, keep, held, gates = made("sinks and bigram", 0.3)
    reduced = reduce_for_tokens(config, params, keep, own_widths=True)
    within = held_within(reduced, params, held)

    def small(gates):
        return jnp.sum(apply_reduced(reduced.small, TOKENS, gates, held=within) ** 2)

    def full(gates):
        return jnp.sum(transformer.apply(config, params, TOKENS, gates, held).logits ** 2)

    found, expected = jax.jit(lambda z: (jax.grad(small)(z), jax.grad(full)(z)))(gates)
    for site, kept in keep.items():
        scale = float(np.max(np.abs(expected[site]))) + 1
        np.testing.assert_allclose(
            found[site][kept] / scale, expected[site][kept] / scale, atol=1e-4
        )
