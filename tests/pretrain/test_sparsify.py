"""The projection against a NumPy sort, matrix by matrix, and as the last link of a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from circuitjax.pretrain.sparsify import is_sparse, project, sparsify

DENSE = ("attn_norm_scale", "mlp_norm_scale", "attn_sink", "final_norm_scale", "bigram")


def oracle(value: np.ndarray, density: float) -> np.ndarray:
    """Keeps the ceil(density * size) largest magnitudes of one matrix without ties."""
    keep = int(np.ceil(np.float32(density) * value.size))
    out = np.zeros_like(value)
    best = np.argsort(-np.abs(value), axis=None)[:keep]
    out.flat[best] = value.flat[best]
    return out


def cut_by_hand(params: dict, density: float) -> dict:
    out = {k: v if k in DENSE else oracle(v, density) for k, v in params.items() if k != "layers"}
    out["layers"] = {
        k: v if k in DENSE else np.stack([oracle(layer, density) for layer in v])
        for k, v in params["layers"].items()
    }
    return out


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 1 / 16, 0.001])
def test_each_matrix_of_each_layer_keeps_its_largest(tiny_model, density):
    found = jax.jit(project)(tiny_model.params, density)
    jax.tree.map(
        np.testing.assert_array_equal, found, cut_by_hand(dict(tiny_model.params), density)
    )


def test_what_stays_dense(tiny_model):
    leaves = jax.tree_util.tree_flatten_with_path(tiny_model.params)[0]
    dense = {path[-1].key for path, _ in leaves if not is_sparse(path)}
    assert dense == set(DENSE)


def test_a_traced_density_needs_no_new_program(tiny_model):
    traces = []

    def run(density):
        traces.append(1)
        return project(tiny_model.params, density)

    jitted = jax.jit(run)
    for density in (0.9, 0.5, 0.1):
        count = np.count_nonzero(jitted(density)["layers"]["mlp_in"][0])
        assert count == np.ceil(np.float32(density) * 12 * 16)
    assert len(traces) == 1


def test_every_neuron_keeps_its_minimum(tiny_model):
    params = jax.tree.map(np.array, dict(tiny_model.params))
    params["layers"]["mlp_in"][:, :, 3] *= 1e-4  # a neuron that would lose everything
    params["layers"]["mlp_out"][:, 5, :] *= 1e-4
    params["layers"]["attn_out"][:, 2, :] *= 1e-4
    cut = jax.jit(project, static_argnames="min_per_neuron")
    plain = cut(params, 0.1)["layers"]
    assert np.count_nonzero(plain["mlp_in"][0][:, 3]) == 0
    found = cut(params, 0.1, min_per_neuron=2)["layers"]
    for name, axis in {
        "attn_q": 1, "attn_k": 1, "attn_v": 1, "mlp_in": 1, "mlp_out": 2, "attn_out": 2,
    }.items():  # fmt: skip
        assert (np.count_nonzero(found[name], axis=axis) >= 2).all()
        # Nothing that the plain projection keeps is lost, and what is kept is unchanged.
        kept = np.asarray(plain[name]) != 0
        np.testing.assert_array_equal(np.asarray(found[name])[kept], np.asarray(plain[name])[kept])
    largest = np.argsort(-np.abs(params["layers"]["mlp_in"][0][:, 3]))[:2]
    assert set(np.flatnonzero(found["mlp_in"][0][:, 3])) == set(largest)
    for name in ("attn_q_bias", "mlp_in_bias"):
        np.testing.assert_array_equal(found[name], plain[name])


def test_in_a_chain_parameters_are_sparse_after_every_step(rng):
    params = {"layers": {"w": jnp.asarray(rng.normal(size=(2, 8, 8)), jnp.float32)}}
    densities = [1.0, 0.5, 0.25, 0.125]
    chain = optax.chain(
        optax.sgd(0.3), sparsify(lambda step: jnp.asarray(densities, jnp.float32)[step])
    )
    state = chain.init(params)
    for step, density in enumerate(densities):
        gradient = {"layers": {"w": jnp.asarray(rng.normal(size=(2, 8, 8)), jnp.float32)}}
        plain = np.asarray(params["layers"]["w"] - 0.3 * gradient["layers"]["w"])
        updates, state = chain.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        expected = np.stack([oracle(layer, density) for layer in plain])
        found = np.asarray(params["layers"]["w"])
        assert np.count_nonzero(found) == 2 * 64 * density, step
        np.testing.assert_array_equal(found == 0, expected == 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_it_asks_for_the_parameters():
    link = sparsify(lambda step: jnp.float32(0.5))
    with pytest.raises(ValueError, match="needs the parameters"):
        link.update({"w": jnp.ones(3)}, link.init({"w": jnp.ones(3)}))
