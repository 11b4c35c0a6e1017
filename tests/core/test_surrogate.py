"""The Heaviside step's surrogate gradient against its formula and the sigmoid's derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.core.surrogate import heaviside, surrogate_slope

TAU = np.array([-1.0, -0.3, -1e-6, 0.0, 1e-6, 0.2, 1.0], np.float32)


def test_forward_opens_where_positive_and_zero_is_closed():
    np.testing.assert_array_equal(heaviside(jnp.asarray(TAU), 0.5), [0, 0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_gradient_is_the_slope_times_the_cotangent(temperature, rng):
    weights = rng.normal(size=TAU.shape)
    found = jax.grad(lambda t: jnp.sum(weights * heaviside(t, temperature)))(jnp.asarray(TAU))
    s = 1 / (1 + np.exp(-TAU.astype(np.float64) / temperature))
    np.testing.assert_allclose(found, weights * s * (1 - s) / temperature, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_slope_is_the_derivative_of_the_sigmoid(temperature):
    tau, step = TAU.astype(np.float64), 1e-5

    def sigmoid(x):
        return 1 / (1 + np.exp(-x / temperature))

    numerical = (sigmoid(tau + step) - sigmoid(tau - step)) / (2 * step)
    np.testing.assert_allclose(
        surrogate_slope(jnp.asarray(TAU), temperature), numerical, rtol=1e-4, atol=1e-7
    )


def test_temperature_may_be_traced_and_gets_no_gradient():
    def value(tau, temperature):
        return jnp.sum(heaviside(tau, temperature))

    temperatures = jnp.array([0.1, 1.0])
    by_tau, by_temperature = jax.vmap(jax.grad(value, argnums=(0, 1)), in_axes=(None, 0))(
        jnp.asarray(TAU), temperatures
    )
    np.testing.assert_array_equal(by_temperature, [0, 0])
    for found, temperature in zip(by_tau, temperatures, strict=True):
        expected = jax.grad(value)(jnp.asarray(TAU), float(temperature))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
