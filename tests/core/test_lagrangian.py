"""The Lagrangian holds its quantity at the target, from either side."""

import jax
import jax.numpy as jnp
import pytest

from circuitjax.core.lagrangian import CAP, Multipliers, penalty, project, rising_target, start


def test_the_penalty_and_its_gradients():
    at = Multipliers(jnp.asarray(-0.5), jnp.asarray(3.0))
    assert float(penalty(at, jnp.asarray(0.4), 0.9)) == pytest.approx(-0.5 * -0.5 + 3 * 0.25)
    by_multiplier = jax.grad(penalty)(at, jnp.asarray(0.4), 0.9)
    assert float(by_multiplier.linear) == pytest.approx(-0.5)
    assert float(by_multiplier.quadratic) == pytest.approx(0.25)


@pytest.mark.parametrize("pull", [-3.0, 3.0])
def test_descent_and_ascent_meet_at_the_target(pull):
    def step(carry, _):
        value, multipliers = carry
        slope, by_multiplier = jax.grad(lambda v, m: pull * v + penalty(m, v, 0.6), argnums=(0, 1))(
            value, multipliers
        )
        moved = jax.tree.map(lambda m, g: m + 0.1 * g, multipliers, by_multiplier)
        return (value - 0.01 * slope, project(moved)), None

    (value, _), _ = jax.lax.scan(step, (jnp.asarray(0.1), start(20)), None, length=4000)
    assert float(value) == pytest.approx(0.6, abs=0.01)


def test_the_quadratic_multiplier_stays_in_its_limits():
    assert float(project(Multipliers(jnp.asarray(-9.0), jnp.asarray(-1.0))).quadratic) == 0
    capped = project(Multipliers(jnp.asarray(-9.0), jnp.asarray(2 * CAP)))
    assert (float(capped.linear), float(capped.quadratic)) == (-9.0, CAP)


def test_the_target_rises_and_stays():
    values = [float(rising_target(jnp.asarray(n), 10, jnp.asarray(0.8), 0.5)) for n in range(10)]
    assert values[:5] == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])
    assert values[5:] == pytest.approx([0.8] * 5)
    assert float(rising_target(jnp.asarray(0), 10, jnp.asarray(0.8), 0.0)) == pytest.approx(0.8)
