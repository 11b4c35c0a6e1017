"""Schedules against values worked out by hand, and with traced lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.core.schedules import anneal_density, warmup_linear_decay


def rate(step, total, fraction):
    return warmup_linear_decay(jnp.asarray(step), total, fraction)


def test_warm_up_then_decay():
    # 10 steps, 4 of warm-up: 1/4, 2/4, 3/4, 4/4, then 1 - (n - 4)/6 for n = 4 .. 9.
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    np.testing.assert_allclose(rate(np.arange(10), 10, 0.4), expected, rtol=1e-6)


def test_without_warm_up_it_starts_at_one_and_ends_at_zero():
    np.testing.assert_allclose(rate(np.arange(5), 4, 0.0), [1, 0.75, 0.5, 0.25, 0], atol=1e-7)


def test_a_plateau_lies_between_them():
    # 10 steps, 2 of warm-up, decay from step 6 on: 1 - (n - 6)/4.
    expected = [1 / 2, 1, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]
    found = warmup_linear_decay(jnp.arange(10), 10, 0.2, 0.6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(
        warmup_linear_decay(jnp.arange(10), 10, 0.4, 0.3), rate(np.arange(10), 10, 0.4)
    )
    np.testing.assert_array_equal(warmup_linear_decay(jnp.arange(10), 10, 0.0, 1.0), np.ones(10))


def test_it_never_leaves_the_unit_interval():
    steps = np.arange(-1, 40)
    for total, fraction in [(1, 0.0), (1, 0.9), (7, 0.01), (30, 0.99), (30, 1.0)]:
        values = np.asarray(rate(steps, total, fraction))
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize(
    ("total", "target", "fraction", "expected"),
    [
        (8, 0.2, 0.5, [0.8, 0.6, 0.4, 0.2, 0.2, 0.2]),
        (4, 0.5, 1.0, [0.875, 0.75, 0.625, 0.5, 0.5, 0.5]),
        (8, 0.25, 0.0, [0.25] * 6),
        (8, 1.0, 0.5, [1.0] * 6),
    ],
)
def test_density_falls_linearly_to_its_target(total, target, fraction, expected):
    found = anneal_density(jnp.arange(6), total, target, fraction)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_traced_lengths_under_vmap_equal_static_ones():
    totals, fractions = jnp.array([5, 20, 100]), jnp.array([0.0, 0.1, 0.5])
    found = jax.vmap(rate, in_axes=(None, 0, 0))(jnp.arange(20), totals, fractions)
    density = jax.vmap(anneal_density, in_axes=(None, 0, 0))(
        jnp.arange(20), totals, fractions + 0.1
    )
    for i, (total, fraction) in enumerate([(5, 0.0), (20, 0.1), (100, 0.5)]):
        np.testing.assert_allclose(found[i], rate(np.arange(20), total, fraction), rtol=1e-6)
        expected = anneal_density(jnp.arange(20), total, fraction + 0.1)
        np.testing.assert_allclose(density[i], expected, rtol=1e-6)
