"""What closing single weights costs, for backward elimination."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.families import FAMILIES
from circuitjax.model.reduced import can_reduce
from circuitjax.model.transformer import Gates
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.objective import AnyPairs, Pairs
from circuitjax.prune.packing import pack
from circuitjax.prune.problem import Problem
from circuitjax.prune.weight_gates import WeightData, WeightIndex, reduce_weights, whole_weights
from circuitjax.prune.weight_paths import kept_paths, real_gates
from circuitjax.prune.weights import weight_task_loss

__all__ = ["WeightTrial"]

# Gates at which the derivative is taken: one a little below 1 sees where a saturated loss is heading.
_AT = (1.0, 0.8)
_SLOPES = 32  # pairs of the estimate; the loss of a round is taken over all
_SHRINK = 3  # a reduced model is built anew once so many times fewer weights are open


class WeightTrial:
    """A `Trial` of open weights on some training pairs."""

    def __init__(
        self,
        problem: Problem,
        index: WeightIndex,
        base: Mapping[str, np.ndarray],
        fills: Mapping[str, np.ndarray],
        pairs: Pairs,
    ) -> None:
        """Takes the model and the pairs; see `WeightProber`."""
        self._problem, self._index = problem, index
        self._packed, _ = pack(pairs, problem.config.causal)
        first = pairs.take(np.arange(min(_SLOPES, pairs.size)))
        self._few, _ = pack(first, problem.config.causal)
        self._base, self._fills = dict(base), dict(fills)
        self._reduce = can_reduce(problem.config) and problem.prune.loss == "binary"
        self._data: WeightData | None = None
        self._room = np.zeros(index.total, bool)  # weights that the data can open
        # Work is that of a model of so many weights, whether they have gates or not.
        kernels = [problem.params["layers"][family.kernel] for family in FAMILIES]
        self._size = self._whole = sum(int(np.count_nonzero(kernel)) for kernel in kernels)

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The weights on complete paths."""
        return kept_paths(self._problem.config, self._index, opened, self._base)[0]

    def loss(self, opened: np.ndarray) -> float:
        """Task loss, calibrated if candidates are."""
        return float(_loss(*self._arguments(opened)))

    def rises(self, opened: np.ndarray) -> np.ndarray:
        """`[E]`, to first order, on the first pairs; 0 for weights that are on no complete path."""
        *arguments, _ = self._arguments(opened)
        slopes = np.asarray(_slopes(*arguments, self._few))
        return np.where(self.alive(opened), -slopes, 0.0)

    def _arguments(
        self, opened: np.ndarray
    ) -> tuple[tuple, WeightData, jax.Array, dict[str, jax.Array], AnyPairs]:
        problem = self._problem
        opened, mask = kept_paths(problem.config, self._index, opened, self._base)
        shrunk = self._reduce and _SHRINK * int(opened.sum()) < self._size
        if self._data is None or shrunk or bool(np.any(opened & ~self._room)):
            self._data = self._build(opened, mask)
        gates = {site: jnp.asarray(kept, jnp.float32) for site, kept in mask.items()}
        z = jnp.asarray(opened, jnp.float32)
        return (problem.config, problem.prune), self._data, z, gates, self._packed

    def _build(self, opened: np.ndarray, mask: Mapping[str, np.ndarray]) -> WeightData:
        problem = self._problem
        # A set that is most of the model is better run by the model: it needs no program of its own.
        if self._reduce and _SHRINK * int(opened.sum()) < self._whole:
            self._room, self._size = opened, int(opened.sum())
            params = jax.tree.map(np.asarray, dict(problem.params))
            return reduce_weights(problem.config, params, self._fills, mask, self._index, opened)
        self._room, self._size = real_gates(self._index), self._whole
        return whole_weights(problem.params, self._fills, self._base, self._index)


@functools.partial(jax.jit, static_argnums=0)
def _loss(
    static: tuple, data: WeightData, z: jax.Array, gates: Gates, pairs: AnyPairs
) -> jax.Array:
    config, prune = static
    assert isinstance(prune, PruneConfig)
    return weight_task_loss(config, prune, data, z, dict(gates), pairs)


@functools.partial(jax.jit, static_argnums=0)
def _slopes(
    static: tuple, data: WeightData, z: jax.Array, gates: Gates, pairs: AnyPairs
) -> jax.Array:
    slope = jax.grad(lambda opened: _loss(static, data, opened, gates, pairs))
    return sum((slope(z * level) for level in _AT), jnp.zeros_like(z)) / len(_AT)
