"""What closing residual edges costs, for backward elimination."""

import functools
from typing import Literal

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

__all__ = ["EdgeTrial", "LossKind", "gate_slopes"]

LossKind = Literal["kl", "task", "calibrated"]


class EdgeTrial:
    """A `Trial` of open edges on some training examples, by the loss that selection aims at."""

    def __init__(self, problem: EdgeProblem, examples: Examples) -> None:
        """Takes the model and the examples; pairs, if they are, must be whole."""
        self._problem, self._examples = problem, examples
        self._active = active_edges(problem.config, problem.settings.ablation)
        self._kind: LossKind = "kl" if problem.settings.target == "kl" else "task"
        if problem.calibrated:
            self._kind = "calibrated"

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The edges on a path from the input to the logits."""
        problem = self._problem
        return connected(problem.config, opened & self._active, problem.settings.ablation)

    def loss(self, opened: np.ndarray) -> float:
        """KL to the full model, or task loss, calibrated if candidates are; nats."""
        return float(_loss(*self._arguments(opened)))

    def rises(self, opened: np.ndarray) -> np.ndarray:
        """`[E]`, to first order."""
        return np.where(opened, -np.asarray(gate_slopes(*self._arguments(opened))), 0.0)

    def _arguments(
        self, opened: np.ndarray
    ) -> tuple[TransformerConfig, LossKind, Params, Writers | None, Examples, jax.Array]:
        problem = self._problem
        gates = jnp.asarray(opened | ~self._active, jnp.float32)
        return problem.config, self._kind, problem.params, problem.fixed, self._examples, gates


@functools.partial(jax.jit, static_argnums=(0, 1))
def _loss(
    config: TransformerConfig,
    kind: LossKind,
    params: Params,
    fixed: Writers | None,
    batch: Examples,
    gates: jax.Array,
) -> jax.Array:
    full, replacement = reference_run(config, params, batch, fixed)
    logits = apply_graph(config, params, batch.tokens[:, 0], gates, replacement, batch.positions)
    kl, odds = compare(logits, full, batch)
    if kind == "kl":
        return jnp.mean(kl)
    if kind == "calibrated":
        return calibrated_loss(odds.reshape(-1, 2) * jnp.array([[1.0, -1.0]]))
    return jnp.mean(jax.nn.softplus(-odds))


@functools.partial(jax.jit, static_argnums=(0, 1))
def gate_slopes(
    config: TransformerConfig,
    kind: LossKind,
    params: Params,
    fixed: Writers | None,
    batch: Examples,
    gates: jax.Array,
) -> jax.Array:
    """Derivative of the loss by each gate, `[E]`, at gates `[E]`."""
    return jax.grad(functools.partial(_loss, config, kind, params, fixed, batch))(gates)
