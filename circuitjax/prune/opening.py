"""How a gate opens, and what keeps gates closed: the choices that every grain of gates shares.

    heaviside       z = 1 where score > 0, sigmoid surrogate gradient; scores in [-1, 1]
    hard_concrete   z sampled in [0, 1] from log_alpha = score, once per step for the whole batch

    count        minimised: k_coef * (expected) number of open gates
    lagrangian   held: expected sparsity = 1 - open fraction at a target that rises over a warm-up
    hold         held: the task loss at a fraction of its target, by a coefficient that adapts

At evaluation gates are 0 or 1 only, whichever way they were trained.
"""

import dataclasses
from types import MappingProxyType
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp

from circuitjax.core import coefficient, hard_concrete, lagrangian
from circuitjax.core.schedules import warmup_linear_decay
from circuitjax.core.surrogate import heaviside
from circuitjax.prune.config import LIMITS, Limits, check_limits

__all__ = [
    "Control",
    "GateHyper",
    "GateKind",
    "ascend",
    "expected",
    "initial",
    "learning_rate",
    "open_gates",
    "project",
    "size_term",
    "start_multipliers",
]

GateKind = Literal["heaviside", "hard_concrete"]
Control = Literal["count", "lagrangian", "hold"]

_BOUND = 15.0  # of log_alpha: a gate is then open, or closed, with probability 1 in float32
_LIMITS: Limits = MappingProxyType(
    {
        **LIMITS,
        "init": ("[-15, 15]", lambda value: -_BOUND <= value <= _BOUND),
        "target_sparsity": ("[0, 1)", lambda value: 0 <= value < 1),
        "target_warmup_frac": ("[0, 1]", lambda value: 0 <= value <= 1),
        "multiplier_lr": LIMITS["lr"],
        "aim": ("(0, 1]", lambda value: 0 < value <= 1),
    }
)


@flax.struct.dataclass
class GateHyper:
    """Traced hyperparameters of gates on edges or weights: scalars, or `[J]` with a job axis.

    Attributes:
      lr: peak learning rate of the scores.
      wd: decoupled weight decay of the scores.
      inv_beta2: 1 - b2 of Adam.
      lr_warmup_frac: fraction of the steps with a rising learning rate.
      init: mean of the initial scores.
      init_noise_scale: their standard deviation; Heaviside gates that start alike close alike, all
        at once where the loss has no gradient yet (a KL of 0, a task already solved).
      heaviside_temp: temperature of the surrogate gradient.
      k_coef: nats per open gate (`count`); where that starts (`hold`).
      target_sparsity: fraction of gates to close (`lagrangian`).
      target_warmup_frac: fraction of the steps over which that target rises from 0.
      multiplier_lr: step size of the multipliers' ascent.
      aim: fraction of the target loss at which training holds the loss (`hold`): selection goes on
        from there.
    """

    lr: Any = 1e-2
    wd: Any = 1e-3
    inv_beta2: Any = 5e-2
    lr_warmup_frac: Any = 0.0
    init: Any = 0.3
    init_noise_scale: Any = 0.15
    heaviside_temp: Any = 1.0
    k_coef: Any = 0.0
    target_sparsity: Any = 0.0
    target_warmup_frac: Any = 0.7
    multiplier_lr: Any = 0.3
    aim: Any = 0.5

    def to_dict(self) -> dict[str, float]:
        """Plain numbers of one job."""
        return {name: float(value) for name, value in dataclasses.asdict(self).items()}

    def check(self) -> None:
        """Refuses what cannot work, before any work.

        Raises:
          ValueError: a value outside its limits, or not a number, once rounded to float32.
        """
        check_limits(self.to_dict(), _LIMITS)


def initial(kind: GateKind, key: jax.Array, shape: tuple[int, ...], hyper: GateHyper) -> jax.Array:
    """Gaussian scores of a shape, within bounds."""
    noise = jax.random.normal(key, shape)
    return project(kind, hyper.init + hyper.init_noise_scale * noise)


def project(kind: GateKind, scores: Any) -> Any:
    """A pytree of scores back within bounds: [-1, 1], or a log_alpha that float32 resolves."""
    bound = 1.0 if kind == "heaviside" else _BOUND
    return jax.tree.map(lambda leaf: jnp.clip(leaf, -bound, bound), scores)


def open_gates(kind: GateKind, key: jax.Array, scores: jax.Array, hyper: GateHyper) -> jax.Array:
    """Gates of one training step, in [0, 1], shaped as the scores."""
    if kind == "heaviside":
        return heaviside(scores, hyper.heaviside_temp)
    return hard_concrete.sample(key, scores)


def expected(kind: GateKind, scores: jax.Array, hyper: GateHyper) -> jax.Array:
    """Chance that each gate is open: 0 or 1 with the surrogate's gradient, or P(z > 0)."""
    if kind == "heaviside":
        return heaviside(scores, hyper.heaviside_temp)
    return hard_concrete.open_probability(scores)


def start_multipliers(control: Control, total: int) -> Any:
    """Multipliers of `total` gates before the first step; () where nothing is held."""
    if control == "hold":
        return coefficient.start()
    return lagrangian.start(total) if control == "lagrangian" else ()


def size_term(
    control: Control,
    opened: jax.Array,
    total: int | jax.Array,
    multipliers: Any,
    hyper: GateHyper,
    step: jax.Array,
    steps: int,
    held: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """What the number of open gates costs.

    Args:
      control: what keeps gates closed.
      opened: expected number of open gates.
      total: of how many.
      multipliers, hyper: as trained.
      step, steps: where the training stands, for the rising target.
      held: loss and aim of `hold`, in nats.
    """
    if control == "hold":
        assert held is not None, "hold needs a loss and its aim"
        return coefficient.cost(multipliers, hyper.k_coef, opened, *held)
    if control == "count":
        return hyper.k_coef * opened
    target = lagrangian.rising_target(step, steps, hyper.target_sparsity, hyper.target_warmup_frac)
    return lagrangian.penalty(multipliers, 1 - opened / total, target)


def ascend(
    control: Control,
    multipliers: Any,
    gradient: Any,
    hyper: GateHyper,
    aim: jax.Array | float = 0.0,
) -> Any:
    """Multipliers after a step of gradient ascent; `aim` in nats is that of `hold`."""
    if control == "count":
        return multipliers
    if control == "hold":
        return coefficient.ascend(multipliers, gradient, aim)
    moved = jax.tree.map(lambda m, g: m + hyper.multiplier_lr * g, multipliers, gradient)
    return lagrangian.project(moved)


def learning_rate(control: Control, hyper: GateHyper, step: jax.Array, steps: int) -> jax.Array:
    """Warm-up, then linear decay; under a Lagrangian the decay waits until its target has risen."""
    held = hyper.target_warmup_frac if control == "lagrangian" else 0.0
    return hyper.lr * warmup_linear_decay(step, steps, hyper.lr_warmup_frac, held)
