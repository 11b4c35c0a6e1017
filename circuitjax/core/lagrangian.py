"""A Lagrangian that holds a quantity at a target, its multipliers ascended by gradient.

    penalty = l1 (value - target) + l2 (value - target)^2

is minimised over what the value depends on and maximised over l1 (of any sign) and l2 (kept in
[0, CAP]). The target may rise over a warm-up, so that a network is not cut faster than it adapts.

Ascent alone is an integrator: from l2 = 0 the value swings about the target for as long as training
lasts, and from a large step of the multipliers it shoots past the target while that still rises. So
the quadratic term does the work and ascent what is left. The value is a mean over gates, each of which
feels a share 1/N of the force: l2 starts at START * N, so that the force on a gate does not depend on
how many there are (figures in docs/results.md).
"""

import flax.struct
import jax
import jax.numpy as jnp

__all__ = ["CAP", "START", "Multipliers", "penalty", "project", "rising_target", "start"]

START = 4.0  # nats per gate
CAP = 1e9  # of l2, which else grows without bound while the target cannot be met


@flax.struct.dataclass
class Multipliers:
    """l1 and l2, scalars or with leading axes."""

    linear: jax.Array
    quadratic: jax.Array


def start(gates: int) -> Multipliers:
    """l1 = 0, l2 = START nats for each of the gates whose mean is held."""
    return Multipliers(jnp.zeros(()), jnp.full((), START * gates, jnp.float32))


def penalty(multipliers: Multipliers, value: jax.Array, target: jax.Array | float) -> jax.Array:
    """The Lagrangian term; its gradient by the multipliers is what to ascend."""
    excess = value - target
    return multipliers.linear * excess + multipliers.quadratic * excess**2


def project(multipliers: Multipliers) -> Multipliers:
    """Keeps l2 within [0, CAP]."""
    return Multipliers(multipliers.linear, jnp.clip(multipliers.quadratic, 0.0, CAP))


def rising_target(
    step: jax.Array, total: jax.Array | int, target: jax.Array, warmup_frac: jax.Array | float
) -> jax.Array:
    """The target at a step (from 0): from 0 linearly to `target` over a fraction of the steps."""
    length = jnp.maximum(warmup_frac * total, 1.0)
    return target * jnp.clip((step + 1) / length, 0.0, 1.0)
