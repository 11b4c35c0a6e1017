"""The adapting coefficient: its gradients, and that it brings a loss to its aim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.core import coefficient


def test_gradients_are_those_of_size_and_of_the_gap():
    m, size, loss, aim = (jnp.float32(x) for x in (0.7, 3.0, 0.4, 0.1))
    value, (by_m, by_size, by_loss) = jax.value_and_grad(
        lambda m, size, loss: coefficient.cost(m, 0.02, size, loss, aim), argnums=(0, 1, 2)
    )(m, size, loss)
    assert float(value) == pytest.approx(0.02 * np.exp(0.7) * 3.0, rel=1e-5)
    assert float(by_m) == pytest.approx(0.1 - 0.4, rel=1e-5)
    assert float(by_size) == pytest.approx(0.02 * np.exp(0.7), rel=1e-5)
    assert float(by_loss) == 0


def test_it_rises_below_the_aim_and_falls_faster_above():
    at_nothing = float(coefficient.ascend(jnp.float32(0), jnp.float32(0.1), 0.1))
    at_chance = float(coefficient.ascend(jnp.float32(0), jnp.float32(0.1 - np.log(2)), 0.1))
    assert at_nothing == pytest.approx(coefficient.RISE)
    assert at_chance < -5 * at_nothing
    assert float(coefficient.ascend(jnp.float32(4), jnp.float32(0.1), 0.1)) == coefficient.LARGEST


@pytest.mark.parametrize("start", [1e-3, 1e-1])
def test_a_loss_that_answers_to_it_comes_to_its_aim(start):
    """A part that does as much as its price allows: loss 0.3 - 0.1 size, size falls with c."""
    m = coefficient.start()
    for _ in range(600):
        size = 3.0 / (1 + start * jnp.exp(m) / 1e-2)
        loss = 0.3 - 0.1 * size
        slope = jax.grad(lambda m, s=size, e=loss: coefficient.cost(m, start, s, e, 0.12))(m)
        m = coefficient.ascend(m, slope, 0.12)
    assert float(loss) == pytest.approx(0.12, abs=2e-3)
