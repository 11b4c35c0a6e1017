"""How a gate opens, and what keeps gates closed: the choices that every grain shares.

    heaviside       z = 1 where score > 0, sigmoid surrogate gradient; scores in [-1, 1]
    hard_concrete   z sampled in [0, 1] from log_alpha = score, once per step for the whole batch

    count        minimised: k_coef * (expected) number of open gates
    lagrangian   held: expected sparsity = 1 - open fraction at a target that rises over a warm-up
    hold         held: the loss at a fraction of its target, by a coefficient of the circuit's size that
                 adapts

At evaluation gates are 0 or 1 only, whichever way they were trained. Adding a kind of gate is one entry
of `GATES`; adding a control one of `CONTROLS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from circuitjax.core import coefficient, hard_concrete, lagrangian
from circuitjax.core.schedules import warmup_linear_decay
from circuitjax.core.surrogate import heaviside
from circuitjax.prune.config import Hyper

__all__ = ["CONTROLS", "GATES", "ControlKind", "Gate", "learning_rate"]


@dataclasses.dataclass(frozen=True)
class Gate:
    """One way for gates to open.

    Attributes:
      sample: (key, scores, hyper) -> gates of a training step, in [0, 1].
      chance: (scores, hyper) -> chance that each gate is open, with a gradient.
      bound: scores stay within [-bound, bound].
      closed_at: scores at or below it count as closed gates.
      by_score: whether gates are ranked by their scores, rather than by the chance that they are open.
    """

    sample: Callable[[jax.Array, jax.Array, Hyper], jax.Array]
    chance: Callable[[jax.Array, Hyper], jax.Array]
    bound: float
    closed_at: float
    by_score: bool

    def project(self, scores: Any) -> Any:
        """A pytree of scores back within bounds."""
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -self.bound, self.bound), scores)


# log_alpha within 15: a gate is then open, or closed, with probability 1 in float32. P(z > 0) is above
# a half where log_alpha is above -log 11 * 2 / 3.
GATES: Mapping[str, Gate] = MappingProxyType(
    {
        "heaviside": Gate(
            lambda key, scores, hyper: heaviside(scores, hyper.heaviside_temp),
            lambda scores, hyper: heaviside(scores, hyper.heaviside_temp),
            1.0,
            0.0,
            True,
        ),
        "hard_concrete": Gate(
            lambda key, scores, hyper: hard_concrete.sample(key, scores),
            lambda scores, hyper: hard_concrete.open_probability(scores),
            15.0,
            hard_concrete.log_alpha_of(0.5),
            False,
        ),
    }
)

Held = tuple[jax.Array, jax.Array | float]


@dataclasses.dataclass(frozen=True)
class ControlKind:
    """One way to keep gates closed.

    Attributes:
      start: total number of parts -> multipliers before the first step.
      cost: (expected open parts, of how many, multipliers, hyper, (step, steps), (loss, aim)) -> nats.
      ascend: (multipliers, gradient, hyper, aim) -> multipliers after a step of gradient ascent.
      waits: whether the learning rate decays only once the target has risen.
      sizes: whether what it makes small is the circuit's size (`GatedModel.size`) rather than the number
        of open gates.
    """

    start: Callable[[Any], Any]
    cost: Callable[..., jax.Array]
    ascend: Callable[[Any, Any, Hyper, Any], Any]
    waits: bool = False
    sizes: bool = False


def _count(opened: Any, total: Any, multipliers: Any, hyper: Hyper, at: Any, held: Any) -> Any:
    return hyper.k_coef * opened


def _hold(opened: Any, total: Any, multipliers: Any, hyper: Hyper, at: Any, held: Held) -> Any:
    return coefficient.cost(multipliers, hyper.k_coef, opened, *held)


def _lagrangian(opened: Any, total: Any, multipliers: Any, hyper: Hyper, at: Any, held: Any) -> Any:
    step, steps = at
    target = lagrangian.rising_target(step, steps, hyper.target_sparsity, hyper.target_warmup_frac)
    return lagrangian.penalty(multipliers, 1 - opened / total, target)


def _ascend(multipliers: Any, gradient: Any, hyper: Hyper, aim: Any) -> Any:
    moved = jax.tree.map(lambda m, g: m + hyper.multiplier_lr * g, multipliers, gradient)
    return lagrangian.project(moved)


CONTROLS: Mapping[str, ControlKind] = MappingProxyType(
    {
        "count": ControlKind(lambda total: (), _count, lambda m, gradient, hyper, aim: m),
        "lagrangian": ControlKind(lagrangian.start, _lagrangian, _ascend, waits=True),
        "hold": ControlKind(
            lambda total: coefficient.start(),
            _hold,
            lambda m, gradient, hyper, aim: coefficient.ascend(m, gradient, aim),
            sizes=True,
        ),
    }
)


def learning_rate(control: str, hyper: Hyper, step: jax.Array, steps: int) -> jax.Array:
    """Warm-up, then linear decay; under a Lagrangian the decay waits until its target has risen."""
    held = hyper.target_warmup_frac if CONTROLS[control].waits else 0.0
    return hyper.lr * warmup_linear_decay(step, steps, hyper.lr_warmup_frac, held)
