"""Initial parameters, tying, the order of units and what a ranking opens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.config import SITES
from circuitjax.model.sites import shapes
from circuitjax.prune import gates
from circuitjax.prune.config import Hyper


def test_initial_parameters_are_gaussian_and_clamped(tiny_config):
    config = dataclasses.replace(tiny_config, d_mlp=4000)
    tau = gates.init_tau(jax.random.key(0), config, Hyper(0.1, 0.2, -0.3), False)
    assert {site: t.shape for site, t in tau.items()} == shapes(config)
    drawn = np.asarray(tau["mlp.post_act"]).ravel()
    assert abs(drawn.mean() + 0.3) < 4 * 0.2 / len(drawn) ** 0.5
    assert abs(drawn.std() - 0.2) < 4 * 0.2 / (2 * len(drawn)) ** 0.5
    assert len({float(t[0, 0]) for t in tau.values()}) == len(SITES)  # no two sites share noise
    wide = gates.init_tau(jax.random.key(0), config, Hyper(0.1, 3.0, 0.5), False)
    flat = np.concatenate([np.ravel(t) for t in wide.values()])
    assert flat.min() == -1
    assert flat.max() == 1
    # P(N(0.5, 3) > 1) = 0.434 and P(< -1) = 0.309.
    assert abs((flat == 1).mean() - 0.434) < 0.03
    assert abs((flat == -1).mean() - 0.309) < 0.03


def test_a_tied_k_follows_its_q(tiny_config):
    tau = gates.init_tau(jax.random.key(1), tiny_config, Hyper(0.1, 0.5, 0.0), True)
    assert "attn.k" not in tau
    opened = gates.gates_of(tau, 1.0)
    np.testing.assert_array_equal(opened["attn.k"], opened["attn.q"])
    width = tiny_config.d_attention * tiny_config.num_layers
    assert gates.num_units(tiny_config, True) == tiny_config.num_nodes - width
    assert gates.num_units(tiny_config, False) == tiny_config.num_nodes
    assert gates.flatten_units(tau).shape == (gates.num_units(tiny_config, True),)
    # A tied pair counts as the two nodes it is, and its gradient is the sum of both.
    slope = jax.grad(lambda t: gates.open_nodes(gates.gates_of(t, 1.0)))(tau)
    logistic = 1 / (1 + np.exp(-np.asarray(tau["attn.q"], np.float64)))
    np.testing.assert_allclose(slope["attn.q"], 2 * logistic * (1 - logistic), rtol=1e-5)


def test_zero_is_closed_and_open_nodes_are_counted(tiny_config):
    tau = {site: jnp.zeros(shape) for site, shape in shapes(tiny_config).items()}
    assert float(gates.open_nodes(gates.gates_of(tau, 1.0))) == 0
    tau["attn.q"] = tau["attn.q"].at[1, 3].set(1e-30)
    tau["mlp.act_in"] = tau["mlp.act_in"].at[0, 0].set(-1.0).at[0, 1].set(1.0)
    assert float(gates.open_nodes(gates.gates_of(tau, 1.0))) == 2
    assert float(gates.open_nodes(gates.all_gates(tiny_config, 1.0))) == tiny_config.num_nodes


@pytest.mark.parametrize("tie_qk", [False, True])
def test_ranks_open_the_units_of_the_flat_order(tiny_config, tie_qk, rng):
    units = gates.num_units(tiny_config, tie_qk)
    ranks = rng.permutation(units).astype(np.int32)
    for k in (0, 1, 17, units):
        opened = gates.gates_from_ranks(tiny_config, jnp.asarray(ranks), k, tie_qk)
        assert set(opened) == set(SITES)
        own = {s: m for s, m in opened.items() if not (tie_qk and s == "attn.k")}
        np.testing.assert_array_equal(gates.flatten_units(own), (ranks < k).astype(np.float32))
    if tie_qk:
        np.testing.assert_array_equal(opened["attn.k"], opened["attn.q"])
