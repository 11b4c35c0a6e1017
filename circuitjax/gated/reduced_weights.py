"""Gates on weights within a reduced model: where its kernels have them, and the kernels under gates."""

import dataclasses
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated.weight_index import WeightIndex, gated_kernel
from circuitjax.model.config import TransformerConfig
from circuitjax.model.reduced import Reduced
from circuitjax.model.sites import shapes

__all__ = ["gated_small", "place_gates"]

# The same kernels and biases by their names in a reduced model.
_REDUCED = MappingProxyType(
    {
        "attn_q": ("q.kernel", "q.bias"),
        "attn_k": ("k.kernel", "k.bias"),
        "attn_v": ("v.kernel", "v.bias"),
        "attn_out": ("attn_out", "attn_out_bias"),
        "mlp_in": ("mlp_in", "mlp_in_bias"),
        "mlp_out": ("mlp_out", "mlp_out_bias"),
    }
)


def _short(site: str) -> str:
    """A site's name in a reduced model."""
    return site if site.endswith(("act_in", "resid_delta")) else site.split(".")[1]


def place_gates(
    config: TransformerConfig, small: Reduced, index: WeightIndex, opened: np.ndarray
) -> WeightIndex:
    """The same gates at their places in the kernels of a reduced model; the rest beyond their ends.

    Args:
      config: of the whole model.
      small: reduced to the nodes at both ends of the open weights.
      index: where the gates lie in the whole model.
      opened: bool `[G]`, weights that later gates may open.
    """

    def place(site: str, nodes: np.ndarray) -> np.ndarray:
        """Where nodes `[E_f]` lie within their layer of the reduced model; -1 for nowhere."""
        at, real = (np.asarray(small.stack[f"{_short(site)}.{part}"]) for part in ("index", "real"))
        table = np.full(shapes(config)[site], -1)
        layer, column = np.nonzero(real)
        table[layer, at[layer, column]] = column
        return table.reshape(-1)[nodes]

    flat = {}
    for family in index.families:
        name = family.name
        layers, inputs, outputs = np.shape(small.stack[_REDUCED[family.kernel][0]])
        source, target = np.asarray(index.source[name]), np.asarray(index.target[name])
        row, column = place(family.source, source), place(family.target, target)
        layer = source // shapes(config)[family.source][1]
        lies = (row >= 0) & (column >= 0) & (np.asarray(index.values[name]) != 0)
        lies &= index.split(opened)[name]
        beyond = layers * inputs * outputs + np.arange(len(row))
        places = (layer * inputs + row) * outputs + column
        flat[name] = np.where(lies, places, beyond).astype(np.int32)
    return dataclasses.replace(index, flat=flat)


def gated_small(small: Reduced, index: WeightIndex, z: jax.Array) -> Reduced:
    """A reduced model under gates z `[G]` of weights."""
    stack, parts = dict(small.stack), index.split(z)
    for family in index.families:
        kernel, bias = _REDUCED[family.kernel]
        stack[kernel], stack[bias] = gated_kernel(
            stack[kernel],
            stack[bias],
            jnp.asarray(stack[f"{_short(family.source)}.fill"]),
            (index.flat[family.name], index.values[family.name]),
            parts[family.name],
        )
    return dataclasses.replace(small, stack=stack)
