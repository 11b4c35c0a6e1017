"""Where gates sit and how they open: one mask parameter per node, Heaviside forward.

    m = heaviside(tau),   tau in [-1, 1],   initially N(init_noise_bias, init_noise_scale) clamped

`tau` is a pytree {site: [L, W]}. With `tie_qk` it has no entry for k: a k channel shares the gate of
the q channel it is multiplied with. What one parameter opens is a *unit*: one node, or a tied pair.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from circuitjax.core.surrogate import heaviside
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.sites import shapes
from circuitjax.prune.config import Hyper

__all__ = [
    "Tau",
    "all_gates",
    "clamp",
    "flatten_units",
    "gates_from_ranks",
    "gates_of",
    "init_tau",
    "num_units",
    "open_nodes",
    "tie",
]

Tau = dict[str, jax.Array]


def init_tau(key: jax.Array, config: TransformerConfig, hyper: Hyper, tie_qk: bool) -> Tau:
    """Gaussian mask parameters, clamped to [-1, 1] (A.5, "Initialization")."""
    tau = {}
    for index, (site, shape) in enumerate(shapes(config).items()):
        if tie_qk and site == "attn.k":
            continue
        noise = jax.random.normal(jax.random.fold_in(key, index), shape)
        tau[site] = hyper.init_noise_bias + hyper.init_noise_scale * noise
    return clamp(tau)


def clamp(tau: Tau) -> Tau:
    """Back to [-1, 1]; called after every step."""
    return jax.tree.map(lambda t: jnp.clip(t, -1.0, 1.0), tau)


def tie(tree: Tau) -> Tau:
    """Gives k the entry of q where k has none of its own."""
    return tree if "attn.k" in tree else {**tree, "attn.k": tree["attn.q"]}


def gates_of(tau: Tau, temperature: jax.Array | float) -> Tau:
    """{site: `[L, W]`} of 0s and 1s over all sites, with the surrogate gradient."""
    return tie({site: heaviside(t, temperature) for site, t in tau.items()})


def all_gates(config: TransformerConfig, value: float) -> Tau:
    """Every gate at one value: 1 is the plain model, 0 the empty circuit."""
    return {site: jnp.full(shape, value, jnp.float32) for site, shape in shapes(config).items()}


def open_nodes(gates: Tau) -> jax.Array:
    """k, the number of open nodes."""
    return sum((jnp.sum(m) for m in gates.values()), start=jnp.zeros(()))


def _unit_shapes(config: TransformerConfig, tie_qk: bool) -> dict[str, tuple[int, int]]:
    return {s: shape for s, shape in shapes(config).items() if not (tie_qk and s == "attn.k")}


def num_units(config: TransformerConfig, tie_qk: bool) -> int:
    """U: the number of gates that open independently (N when nothing is tied)."""
    return sum(layers * width for layers, width in _unit_shapes(config, tie_qk).values())


def flatten_units(tree: Mapping[str, jax.Array]) -> jax.Array:
    """{site: `[L, W]`} of a `tau`-like tree to `[U]`, in the order of the sites."""
    return jnp.concatenate([tree[site].reshape(-1) for site in SITES if site in tree])


def gates_from_ranks(
    config: TransformerConfig, ranks: jax.Array, k: jax.Array | int, tie_qk: bool
) -> Tau:
    """Opens the units with the k smallest ranks `[U]`: {site: `[L, W]`} of 0s and 1s."""
    gates, start = {}, 0
    for site, shape in _unit_shapes(config, tie_qk).items():
        stop = start + shape[0] * shape[1]
        gates[site] = (ranks[start:stop] < k).astype(jnp.float32).reshape(shape)
        start = stop
    return tie(gates)
