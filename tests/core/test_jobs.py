"""Many jobs as one program equal a Python loop over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.core.jobs import map_jobs, scan_steps


def job(params: dict, key: jax.Array) -> dict:
    """Three noisy steps of gradient descent on a small quadratic."""

    def step(carry):
        x, n = carry
        noise = jax.random.normal(jax.random.fold_in(key, n), x.shape)
        x = x - params["rate"] * (x + 0.1 * noise)
        return (x, n + 1), jnp.sum(x**2)

    (x, n), losses = scan_steps(step, (params["start"], jnp.int32(0)), 3)
    return {"x": x, "steps": n, "losses": losses}


@pytest.mark.parametrize("side_by_side", [True, False, None])
def test_mapped_jobs_equal_a_loop(side_by_side, rng):
    start = rng.normal(size=(5, 4)).astype(np.float32)
    params = {"start": start, "rate": np.linspace(0.1, 0.9, 5, dtype=np.float32)}
    keys = jax.random.split(jax.random.key(3), 5)
    found = jax.jit(map_jobs(job, side_by_side=side_by_side))(params, keys)
    for j in range(5):
        alone = jax.jit(job)(jax.tree.map(lambda leaf, j=j: leaf[j], params), keys[j])
        for name, value in alone.items():
            np.testing.assert_allclose(found[name][j], value, rtol=1e-6, err_msg=name)


def test_chunks_of_any_length_give_the_same_run():
    def step(carry):
        x, n = carry
        x = x + jax.random.normal(jax.random.fold_in(jax.random.key(0), n), x.shape)
        return (x, n + 1), x

    start = (jnp.zeros(3), jnp.int32(0))
    (whole, _), trace = scan_steps(step, start, 6)
    state, parts = start, []
    for length in (1, 3, 2):
        state, part = scan_steps(step, state, length)
        parts.append(part)
    np.testing.assert_array_equal(state[0], whole)
    np.testing.assert_array_equal(jnp.concatenate(parts), trace)
