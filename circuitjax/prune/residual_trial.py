"""What closing residual edges costs, for backward elimination."""

import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import Writers, apply_graph
from circuitjax.model.transformer import Params
from circuitjax.prune.calibrate import calibrated_loss
from circuitjax.prune.residual import Examples, active_edges, compare, reference_run
from circuitjax.prune.residual_paths import connected
from circuitjax.prune.residual_problem import EdgeProblem

__all__ = ["EdgeTrial", "LossKind", "Reference", "gate_slopes", "references"]

LossKind = Literal["kl", "task", "calibrated"]


_BATCH = 32  # examples per forward pass
_SLOPES = 64  # examples of the estimate; the loss of a round is taken over all


class Reference(NamedTuple):
    """Some examples, the full model's logits `[B, P, V]` on them, and what replaces the writers."""

    batch: Examples
    full: jax.Array
    replacement: Writers


@functools.partial(jax.jit, static_argnums=0)
def _refer(
    config: TransformerConfig, params: Params, fixed: Writers | None, batch: Examples
) -> tuple[jax.Array, Writers]:
    return reference_run(config, params, batch, fixed)


def references(problem: EdgeProblem, examples: Examples) -> Iterator[Reference]:
    """What circuits are compared with, batch by batch.

    The batches are of one size, so that they share a program; the last one is filled up with copies
    of the last example, which whoever uses it cuts off.
    """
    width = min(_BATCH, examples.size)
    for first in range(0, examples.size, width):
        batch = examples.take(np.minimum(np.arange(first, first + width), examples.size - 1))
        yield Reference(batch, *_refer(problem.config, problem.params, problem.fixed, batch))


class EdgeTrial:
    """A `Trial` of open edges on some training examples, by the loss that selection aims at.

    The full model's runs are made once and kept: they are the same for every set of edges.
    """

    def __init__(self, problem: EdgeProblem, examples: Examples) -> None:
        """Takes the model and the examples; pairs, if they are, must be whole."""
        self._problem, self._size = problem, examples.size
        self._active = active_edges(problem.config, problem.settings.ablation)
        self._kind: LossKind = "kl" if problem.settings.target == "kl" else "task"
        if problem.calibrated:
            self._kind = "calibrated"
        self._references = list(references(problem, examples))
        # Whole batches only: a copy that fills the last one up would count twice in an estimate.
        few = self._references[: max(1, min(_SLOPES, examples.size) // _BATCH)]
        self._few = jax.tree.map(lambda *leaves: _joined(leaves), *few)

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The edges on a path from the input to the logits."""
        problem = self._problem
        return connected(problem.config, opened & self._active, problem.settings.ablation)

    def loss(self, opened: np.ndarray) -> float:
        """KL to the full model, or task loss, calibrated if candidates are; nats."""
        problem, gates = self._problem, self._gates(opened)
        found = [
            _compared(problem.config, problem.params, reference, gates)
            for reference in self._references
        ]
        kl, odds = (jnp.concatenate(part)[: self._size] for part in zip(*found, strict=True))
        return float(_total(self._kind, kl, odds))

    def rises(self, opened: np.ndarray) -> np.ndarray:
        """`[E]`, to first order, on the first of the examples."""
        problem = self._problem
        slopes = _slopes(problem.config, self._kind, problem.params, self._few, self._gates(opened))
        return np.where(opened, -np.asarray(slopes), 0.0)

    def _gates(self, opened: np.ndarray) -> jax.Array:
        return jnp.asarray(opened | ~self._active, jnp.float32)


def _joined(leaves: tuple[jax.Array, ...]) -> jax.Array:
    """Batches side by side: examples are on axis 0, but of what writers wrote, on axis 1."""
    if leaves[0].ndim == 4 and leaves[0].shape[1:3] == (1, 1):
        return leaves[0]  # a replacement that is the same for every example
    return jnp.concatenate(leaves, axis=1 if leaves[0].ndim == 4 else 0)


@functools.partial(jax.jit, static_argnums=0)
def _compared(
    config: TransformerConfig, params: Params, reference: Reference, gates: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """KL and log odds of one set of edges, `[B]` each."""
    batch, full, replacement = reference
    logits = apply_graph(config, params, batch.tokens[:, 0], gates, replacement, batch.positions)
    return compare(logits, full, batch)


def _total(kind: LossKind, kl: jax.Array, odds: jax.Array) -> jax.Array:
    if kind == "kl":
        return jnp.mean(kl)
    if kind == "calibrated":
        return calibrated_loss(odds.reshape(-1, 2) * jnp.array([[1.0, -1.0]]))
    return jnp.mean(jax.nn.softplus(-odds))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _slopes(
    config: TransformerConfig,
    kind: LossKind,
    params: Params,
    reference: Reference,
    gates: jax.Array,
) -> jax.Array:
    return jax.grad(lambda z: _total(kind, *_compared(config, params, reference, z)))(gates)


def gate_slopes(
    problem: EdgeProblem, kind: LossKind, examples: Examples, gates: jax.Array
) -> jax.Array:
    """Derivative of the loss by each gate, `[E]`, at gates `[E]`, on a few examples at once."""
    made = _refer(problem.config, problem.params, problem.fixed, examples)
    return _slopes(problem.config, kind, problem.params, Reference(examples, *made), gates)
