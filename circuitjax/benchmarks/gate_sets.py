"""Sets of open gates of any grain, asked for the loss or the KL that a search aims at.

One compiled program runs any number of sets over all batches, one after another: `answers` has a call
for each set and batch, which costs more than the arithmetic where a model is small. Axis letters: G
gates, K sets, M examples.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.measure import Measure
from circuitjax.benchmarks.needed_edges import NOTHING, silent_edges
from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel, View
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.prune.evaluate import references, total_loss
from circuitjax.prune.objective import measured
from circuitjax.prune.problem import Problem, batches_of

__all__ = ["GateSets"]

_AT_ONCE = 64  # sets of a call of the compiled program


class GateSets:
    """An `Asked` of gates: sets of them, and how much loss or KL each leaves, in nats."""

    def __init__(
        self, problem: Problem, examples: Examples, measure: Measure, view: View | None = None
    ) -> None:
        """Runs the whole model once on the examples.

        Args:
          problem: model and how examples are cut.
          examples: M of them.
          measure: which loss, and its target, which is the tolerance.
          view: a circuit, whose gates are asked for instead of the whole model's: what its clean-up
            folded into constants stays there.
        """
        model = self._model = problem.whole if view is None else view.model
        own = is_per_prompt(model.ablation)
        batches = batches_of(model)
        rows, self._places = batches.even(examples)
        found = references(model if own else problem.whole, rows, full=measure.full)
        self._pairs: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
        self.measure = measure
        exists = model.exists()
        self._gates = np.flatnonzero(exists)
        every = model.names()
        self.names = [every[gate] for gate in self._gates]
        self.tolerance = measure.target

    def changes(self, masks: np.ndarray) -> np.ndarray:
        """Loss `[K]` in nats of just the open parts bool `[K, E]`."""
        masks = np.asarray(masks, bool)
        losses = []
        for start in range(0, len(masks), _AT_ONCE):
            some = masks[start : start + _AT_ONCE]
            gates = np.zeros((_AT_ONCE if len(masks) > 1 else 1, self._model.num_gates), np.float32)
            gates[: len(some), self._gates] = some
            found = _losses(
                self._model,
                jnp.asarray(gates),
                len(some),
                self._pairs,
                jnp.asarray(self._places),
                kind=self.measure.kind,
            )
            losses.append(np.asarray(found)[: len(some)])
        return np.concatenate(losses)

    def can_matter(self) -> np.ndarray:
        """bool `[E]`: all but gates whose part holds, wherever it is asked, what replaces it."""
        model = self._model
        silent_of = _SILENT.get(model.grain)
        if silent_of is None:
            return np.ones(len(self._gates), bool)
        silent = np.ones(model.num_gates, bool)
        for number in range(len(self._pairs[0].right)):
            batch, reference = jax.tree.map(lambda leaf, i=number: leaf[i], self._pairs)
            asked = batch.prompts
            _, found = _observed(model, asked.tokens, asked.positions)
            silent &= silent_of(
                model, found, model.held if reference.held is None else reference.held
            )
        return ~silent[self._gates]


def _silent_nodes(model: Any, found: Mapping[str, Any], held: Mapping[str, Any]) -> np.ndarray:
    """bool `[G]`: nodes that held what replaces them at every token."""
    silent = {}
    for site, values in found.items():
        values, fill = np.asarray(values), np.asarray(held[site])
        fill = fill if fill.ndim == values.ndim else fill[:, None, None, :]
        silent[site] = np.all(abs(values - fill) <= NOTHING, axis=(1, 2))
    return np.asarray(model.flat(silent), bool)


def _silent_edges(model: Any, found: Any, held: Any) -> np.ndarray:
    return silent_edges(model.config, model.params, found, held)


#: {grain: (model, what its parts held, what replaces that) -> gates that have no effect}.
_SILENT: Mapping[str, Callable[[Any, Any, Any], np.ndarray]] = MappingProxyType(
    {"nodes": _silent_nodes, "edges": _silent_edges}
)


@jax.jit
def _observed(model: GatedModel, tokens: jax.Array, positions: jax.Array) -> Any:
    return model.observed(tokens, positions)


@functools.partial(jax.jit, static_argnames="kind")
def _losses(
    model: GatedModel,
    masks: jax.Array,
    count: int,
    pairs: Any,
    places: jax.Array,
    *,
    kind: str,
) -> jax.Array:
    """Losses `[K]` of the first `count` sets `[K, G]`; the others' are 0."""

    def of_set(number: jax.Array, losses: jax.Array) -> jax.Array:
        def of_batch(pair: Any) -> dict[str, jax.Array]:
            batch, reference = pair
            return measured(model, masks[number], batch, reference, kl=kind == "kl")

        parts = jax.lax.map(of_batch, pairs)
        joined = {name: part.reshape(-1)[places] for name, part in parts.items()}
        return losses.at[number].set(total_loss(kind, joined))

    return jax.lax.fori_loop(0, count, of_set, jnp.zeros(len(masks)))
