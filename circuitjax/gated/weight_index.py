"""Where gates on single weights lie: every nonzero weight is open, or contributes a constant.

    open     W_ij x_i
    closed   W_ij r_i,   r_i the fill of its source node: a constant, so it moves into a bias

    kernel' = W z        bias' = bias + r (W (1 - z))        with z in [0, 1], one per nonzero weight

So a gated model is the same model with other parameters, run by the same forward pass, and gates of
weights combine with gates of nodes. A v weight's mean is that of the channel itself: unlike a
closed v node it knows no attention sink. Gates lie flat, `[E]`, family by family.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.model.config import TransformerConfig
from circuitjax.model.families import ALL_FAMILIES, Family
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import Fills, Params

__all__ = [
    "WeightIndex",
    "biased",
    "close_weights",
    "gated_kernel",
    "gated_params",
    "weight_index",
]

_STEP = 64  # of the padding of each family's gates; larger ones are padded by at most a quarter
_MOST = 2**31 - 2**28  # entries of a kernel stack that int32 can number, padding included


@flax.struct.dataclass
class WeightIndex:
    """Where the gates of weights sit; NumPy arrays on the host, a pytree that may be traced.

    Every field is {family name: `[E_f]`}. Families are padded to few distinct sizes, so that
    starts from different circuits share compiled programs: a padding entry has value 0.

    Attributes:
      flat: int32, place in the kernel stack `[L * in * out]`; beyond its end nothing is gated.
      values: float32, the weight.
      source, target: int32, place of either end in its site's `[L * W]`.
    """

    flat: dict[str, Any]
    values: dict[str, Any]
    source: dict[str, Any]
    target: dict[str, Any]

    @property
    def families(self) -> tuple[Family, ...]:
        """The kinds of weights that there are, in the order of the gates."""
        return tuple(family for family in ALL_FAMILIES if family.name in self.flat)

    @property
    def total(self) -> int:
        """E: number of gates, padding included."""
        return sum(self.values[family.name].shape[0] for family in self.families)

    def split(self, flat: Any) -> dict[str, Any]:
        """`[E]` to {family name: `[E_f]`}."""
        parts, start = {}, 0
        for family in self.families:
            stop = start + self.values[family.name].shape[0]
            parts[family.name] = flat[start:stop]
            start = stop
        return parts

    def join(self, parts: Mapping[str, Any]) -> jax.Array:
        """The inverse of `split`."""
        return jnp.concatenate([parts[family.name] for family in self.families])

    def opened(self, config: TransformerConfig, gates: np.ndarray) -> dict[str, np.ndarray]:
        """{family name: bool `[L, in, out]`} of gates bool `[E]`; what has no gate is open."""
        weights, parts = {}, self.split(gates)
        for family in config.families:
            kept = np.ones(math.prod(family.shape(config)), bool)
            places = np.asarray(self.flat[family.name])
            inside = places < kept.size
            kept[places[inside]] = parts[family.name][inside]
            weights[family.name] = kept.reshape(family.shape(config))
        return weights

    def real(self) -> jax.Array:
        """bool `[E]`: the gates that are no padding, which has value 0."""
        return self.join(self.values) != 0

    def entered(self, config: TransformerConfig, z: jax.Array) -> dict[str, jax.Array]:
        """{site: `[L, W]`} 1 for nodes that an open weight enters, 0 for others; act_in: 1."""
        parts, wide = self.split(lax.stop_gradient(z)), shapes(config)
        found = {site: jnp.zeros(shape) for site, shape in wide.items()}
        for family in config.families:
            opened = (parts[family.name] > 0) & (self.values[family.name] != 0)
            flat = found[family.target].reshape(-1)
            flat = flat.at[self.target[family.name]].max(opened.astype(jnp.float32))
            found[family.target] = flat.reshape(wide[family.target])
        return found | {site: jnp.ones(wide[site]) for site in ("attn.act_in", "mlp.act_in")}

    def at_ends(self, nodes: Mapping[str, jax.Array], end: str) -> jax.Array:
        """Values of the `source` or `target` nodes {site: `[L, W]`} of every weight: `[E]`."""
        places = getattr(self, end)
        return self.join(
            {f.name: nodes[getattr(f, end)].reshape(-1)[places[f.name]] for f in self.families}
        )


def _padded(count: int) -> int:
    step = max(_STEP, 2 ** max(0, count.bit_length() - 3))
    return max(step, -(-count // step) * step)


def weight_index(
    config: TransformerConfig, params: Params, mask: Mapping[str, np.ndarray] | None = None
) -> WeightIndex:
    """Numbers the nonzero weights, of the whole model or between kept nodes.

    Args:
      config, params: the model.
      mask: {site: bool `[L, W]`} of nodes; None for all. Weights at other nodes have no gate.

    Raises:
      ValueError: a kernel stack too large to be numbered in int32.
    """
    flat, values, source, target = {}, {}, {}, {}
    for family in config.families:
        layers, inputs, outputs = family.shape(config)
        size = layers * inputs * outputs
        if size > _MOST:
            raise ValueError(
                f"{family.kernel} has {size} entries in all layers; gates of weights can number "
                f"{_MOST}: prune a smaller model"
            )
        kernel, rows = np.asarray(params["layers"][family.kernel]), family.rows(config)
        exists = kernel != 0
        if mask is not None:
            exists = exists & np.asarray(mask[family.source], bool)[:, rows, None]
            exists &= np.asarray(mask[family.target], bool)[:, None, :]
        places = np.flatnonzero(exists)
        width = config.width(family.source)
        layer, row = places // (inputs * outputs), places // outputs % inputs
        count = _padded(len(places))
        # Places beyond the end differ, as a scatter to unique places asks.
        beyond = size + np.arange(count - len(places))
        rest = np.zeros(len(beyond), np.int64)
        flat[family.name] = np.r_[places, beyond].astype(np.int32)
        values[family.name] = np.r_[kernel.reshape(-1)[places], rest].astype(np.float32)
        source[family.name] = np.r_[layer * width + rows[row], rest].astype(np.int32)
        target[family.name] = np.r_[layer * outputs + places % outputs, rest].astype(np.int32)
    return WeightIndex(flat, values, source, target)


def biased(config: TransformerConfig) -> TransformerConfig:
    """The configuration of a model with gated weights: it has biases."""
    return dataclasses.replace(config, biases=True)


def gated_kernel(
    kernel: jax.Array,
    bias: jax.Array,
    fill: jax.Array,
    places: tuple[jax.Array, jax.Array],
    z: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Kernel `[L, in, out]` and bias `[L, out]` under gates z `[E_f]` at (flat, values)."""
    if kernel.size == 0:
        return kernel, bias
    flat, values = places
    gated = kernel.reshape(-1).at[flat].set(values * z, mode="drop", unique_indices=True)
    gated = gated.reshape(kernel.shape)
    exact = lax.Precision.HIGHEST
    before, after = (
        jnp.einsum("li,lio->lo", fill, stack, precision=exact) for stack in (kernel, gated)
    )
    return gated, bias + (before - after)


def gated_params(
    config: TransformerConfig, params: Params, fills: Fills, index: WeightIndex, z: jax.Array
) -> dict[str, Any]:
    """Parameters of the model under gates of weights, for `transformer.apply(biased(config), ...)`.

    Args:
      config, params: the model.
      fills: {site: `[L, W]`}, the means r.
      index: where the gates sit; weights it does not name stay.
      z: gates `[E]` in [0, 1]; may be traced and differentiated.
    """
    stack, parts = dict(params["layers"]), index.split(z)
    for family in config.families:
        name = f"{family.kernel}_bias"
        bias = stack[name] if config.biases else jnp.zeros(shapes(config)[family.target])
        places = index.flat[family.name], index.values[family.name]
        stack[family.kernel], stack[name] = gated_kernel(
            jnp.asarray(stack[family.kernel]),
            bias,
            jnp.asarray(fills[family.source])[:, family.rows(config)],
            places,
            parts[family.name],
        )
    return {**params, "layers": stack}


def close_weights(
    config: TransformerConfig,
    params: Params,
    fills: Mapping[str, np.ndarray] | None,
    weights: Mapping[str, np.ndarray],
) -> tuple[TransformerConfig, dict[str, Any]]:
    """Configuration and parameters with all weights closed that are not open, on the host.

    Args:
      config, params: the model.
      fills: {site: `[L, W]`}, what sources of closed weights hold; None: closed weights are left out.
      weights: {family name: bool `[L, in, out]`} of open weights.
    """
    stack = {name: np.asarray(value) for name, value in params["layers"].items()}
    for family in config.families:
        kernel, name = stack[family.kernel], f"{family.kernel}_bias"
        bias = stack[name] if config.biases else np.zeros(shapes(config)[family.target])
        closed = np.where(weights[family.name], np.float32(0), kernel)
        stack[family.kernel] = kernel - closed
        stack[name] = np.asarray(bias, np.float32)
        if fills is not None:
            held = np.asarray(fills[family.source])[:, family.rows(config)]
            moved = np.einsum("li,lio->lo", held, closed, dtype=np.float64)
            stack[name] = (bias + moved).astype(np.float32)
    return biased(config), {**params, "layers": stack}
