"""Largest magnitudes by bisection against a NumPy sort."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from circuitjax.core.magnitude import abs_top_k, top_magnitude_mask


def oracle(x: np.ndarray, k: int) -> np.ndarray:
    """Mask over the last axis: magnitudes not below the k-th largest, zeros never."""
    size = np.abs(x.astype(np.float64))
    if k == 0:
        return np.zeros(x.shape, bool)
    threshold = np.sort(size, axis=-1)[..., ::-1][..., min(k, x.shape[-1]) - 1]
    return (size >= threshold[..., None]) & (size > 0)


def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tied = rng.integers(-3, 4, (6, 20)).astype(np.float32)
    sparse = rng.normal(size=(6, 20)).astype(np.float32) * (rng.random((6, 20)) < 0.2)
    sparse[0] = 0
    wide = rng.normal(size=(6, 20)).astype(np.float32) * np.float32(10.0) ** rng.integers(
        -30, 30, (6, 20)
    ).astype(np.float32)
    return {
        "normal": rng.normal(size=(6, 20)).astype(np.float32),
        "ties": tied,
        "zeros": sparse.astype(np.float32),
        "wide range": wide,
        "negative zeros": np.where(tied == 0, np.float32(-0.0), tied),
        "bfloat16": rng.normal(size=(6, 20)).astype(ml_dtypes.bfloat16),
    }


@pytest.mark.parametrize(
    "kind", ["normal", "ties", "zeros", "wide range", "negative zeros", "bfloat16"]
)
def test_mask_is_the_oracles_for_every_k(kind, rng):
    x = inputs(rng)[kind]
    ks = np.array([0, 1, 2, 7, 19, 20, 21, 1000])
    found = jax.vmap(lambda k: top_magnitude_mask(jnp.asarray(x), k, (-1,)))(jnp.asarray(ks))
    for k, mask in zip(ks, found, strict=True):
        np.testing.assert_array_equal(mask, oracle(x, int(k)), err_msg=f"k={k}")


def test_static_traced_and_batched_k_agree(rng):
    x = jnp.asarray(inputs(rng)["normal"])
    static = top_magnitude_mask(x, 5, (-1,))
    traced = jax.jit(lambda k: top_magnitude_mask(x, k, (-1,)))(5)
    both = jax.vmap(lambda y, k: top_magnitude_mask(y, k, (0,)))(x, jnp.full(6, 5))
    np.testing.assert_array_equal(static, traced)
    np.testing.assert_array_equal(static, both)
    assert (static.sum(axis=-1) == 5).all()


def test_several_axes_are_ranked_together(rng):
    x = rng.normal(size=(3, 4, 5)).astype(np.float32)
    found = top_magnitude_mask(jnp.asarray(x), 6, (1, 2))
    np.testing.assert_array_equal(found, oracle(x.reshape(3, 20), 6).reshape(x.shape))
    across = top_magnitude_mask(jnp.asarray(x), 2, (0,))
    np.testing.assert_array_equal(across, np.moveaxis(oracle(np.moveaxis(x, 0, -1), 2), -1, 0))


@pytest.mark.parametrize("k", [0, 1, 3, 20, 50])
def test_abs_top_k_keeps_values_and_their_gradient_only(k, rng):
    x = inputs(rng)["normal"]
    weights = rng.normal(size=x.shape).astype(np.float32)
    mask = oracle(x, k)
    np.testing.assert_array_equal(abs_top_k(jnp.asarray(x), k), np.where(mask, x, 0))
    gradient = jax.grad(lambda y: jnp.sum(weights * abs_top_k(y, k)))(jnp.asarray(x))
    np.testing.assert_array_equal(gradient, np.where(mask, weights, 0))


def test_abs_top_k_keeps_the_type(rng):
    x = jnp.asarray(inputs(rng)["bfloat16"])
    assert abs_top_k(x, 4).dtype == jnp.bfloat16
