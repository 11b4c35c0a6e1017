"""Hard-concrete gates against Louizos et al.'s formulas, Monte Carlo and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from circuitjax.core.hard_concrete import (
    BETA,
    HIGH,
    LOW,
    log_alpha_of,
    mean_gate,
    open_probability,
    sample,
)

PLACES = jnp.array([-4.0, -1.5, 0.0, 0.7, 3.0])


def density_above(x, log_alpha):
    """P(stretched gate > x): one minus the binary concrete's distribution function (eq. 11-12)."""
    inner = (x - LOW) / (HIGH - LOW)
    return 1 - special.expit((np.log(inner) - np.log1p(-inner)) * BETA - log_alpha)


def test_the_chance_to_be_open_is_that_of_many_draws():
    many = 200_000
    draws = jax.vmap(lambda key: sample(key, PLACES))(jax.random.split(jax.random.key(0), many))
    found = np.mean(np.asarray(draws) > 0, axis=0)
    expected = np.asarray(open_probability(PLACES))
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / many**0.5)
    np.testing.assert_allclose(expected, density_above(0.0, np.asarray(PLACES)), rtol=1e-5)
    np.testing.assert_allclose(
        np.mean(np.asarray(draws) >= 1, axis=0), density_above(1.0, np.asarray(PLACES)), atol=5e-3
    )
    for level in (0.2, 0.5, 0.9):
        share = np.mean(np.asarray(draws) > level, axis=0)
        np.testing.assert_allclose(share, density_above(level, np.asarray(PLACES)), atol=5e-3)


def test_a_draw_is_its_formula():
    key = jax.random.key(3)
    u = np.asarray(jax.random.uniform(key, (5,), minval=1e-6, maxval=1 - 1e-6), np.float64)
    s = special.expit((np.log(u) - np.log(1 - u) + np.asarray(PLACES)) / BETA)
    expected = np.clip(s * (HIGH - LOW) + LOW, 0, 1)
    np.testing.assert_allclose(sample(key, PLACES), expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_a_draw_and_of_the_chance(seed):
    key = jax.random.key(seed)
    for function in (lambda x: sample(key, x), open_probability, mean_gate):
        gradient = np.diag(jax.jacobian(function)(PLACES))
        step = 1e-2
        slope = (np.asarray(function(PLACES + step)) - np.asarray(function(PLACES - step))) / (
            2 * step
        )
        inside = (np.asarray(function(PLACES + step)) < 1) & (
            np.asarray(function(PLACES - step)) > 0
        )
        np.testing.assert_allclose(gradient[inside], slope[inside], atol=2e-3)
        clipped = np.isin(np.asarray(function(PLACES)), (0.0, 1.0))
        np.testing.assert_array_equal(gradient[clipped], 0)


def test_the_place_of_a_chance_and_back():
    for chance in (0.01, 0.3, 0.5, 0.99):
        assert float(open_probability(jnp.asarray(log_alpha_of(chance)))) == pytest.approx(chance)
    for bad in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="probability"):
            log_alpha_of(bad)
