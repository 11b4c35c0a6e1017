"""Weight sparsity by projection after every step, as an optax transformation.

After the optimiser's step each matrix keeps only its largest entries by magnitude, the same
fraction in every matrix, embeddings and biases included (Gao et al. 2025, A.1). The density is
traced, so annealing it never recompiles. Norm scales, attention sinks and the bigram table are left
dense.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from circuitjax.core.magnitude import top_magnitude_mask

__all__ = ["SparsifyState", "is_sparse", "project", "sparsify"]

_DENSE_SUFFIXES = ("norm_scale", "norm_bias", "attn_sink", "bigram", "final_bias")
# Which axis of a stacked [L, in, out] matrix counts the neurons or channels it belongs to.
_NEURON_AXIS = {
    "attn_q": -1,
    "attn_k": -1,
    "attn_v": -1,
    "attn_out": -2,
    "mlp_in": -1,
    "mlp_out": -2,
}


def _names(path: tuple) -> list[str]:
    return [str(getattr(entry, "key", entry)) for entry in path]


def is_sparse(path: tuple) -> bool:
    """Whether the parameter at a tree path is one that is kept sparse."""
    return not _names(path)[-1].endswith(_DENSE_SUFFIXES)


def project(
    params: optax.Params, density: jax.Array | float, min_per_neuron: int = 0
) -> optax.Params:
    """Keeps the largest `density` of every matrix.

    Args:
      params: the transformer's parameters; those of all layers are stacked under `layers`, and each
        layer's matrix is ranked by itself.
      density: fraction of entries to keep, in (0, 1]; may be traced.
      min_per_neuron: besides, keep at least that many entries of each neuron or attention channel.

    Returns:
      A tree like `params` with the other entries set to 0.
    """

    def cut(path: tuple, value: jax.Array) -> jax.Array:
        if not is_sparse(path):
            return value
        names = _names(path)
        axes = tuple(range(1 if names[0] == "layers" else 0, value.ndim))
        size = 1
        for axis in axes:
            size *= value.shape[axis]
        keep = jnp.ceil(jnp.asarray(density, jnp.float32) * size).astype(jnp.int32)
        mask = top_magnitude_mask(value, keep, axes)
        if min_per_neuron and names[-1] in _NEURON_AXIS:
            # Rank along the other axis: the entries of one neuron.
            other = -3 - _NEURON_AXIS[names[-1]]
            mask |= top_magnitude_mask(value, min_per_neuron, (other,))
        return jnp.where(mask, value, 0.0)

    return jax.tree_util.tree_map_with_path(cut, params)


class SparsifyState(NamedTuple):
    """Counts the steps taken."""

    step: jax.Array


def sparsify(
    density_at: Callable[[jax.Array], jax.Array], min_per_neuron: int = 0
) -> optax.GradientTransformation:
    """Last link of an optax chain: corrects the update so that the new parameters are sparse.

    Args:
      density_at: step (from 0) -> density in (0, 1]; traced.
      min_per_neuron: see `project`.
    """

    def init(params: optax.Params) -> SparsifyState:
        del params
        return SparsifyState(jnp.zeros((), jnp.int32))

    def update(
        updates: optax.Updates, state: SparsifyState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SparsifyState]:
        if params is None:
            raise ValueError("sparsify needs the parameters: pass them to update()")
        new = project(optax.apply_updates(params, updates), density_at(state.step), min_per_neuron)
        # p + (0 - p) is exactly 0, so what is cut stays cut to the last bit.
        return jax.tree.map(jnp.subtract, new, params), SparsifyState(state.step + 1)

    return optax.GradientTransformation(init, update)
