"""Logit calibration: a scale > 0 and a shift per completion, by 16 steps of L-BFGS.

    minimise over (a, b):   mean softplus(-(exp(a) o + b))   after the first prompts of pairs,
                                 softplus(-(exp(a) o - b))   after the second ones

where o are the log odds of what is right there. A shift per completion token is, for this
loss, the shift b of the difference; one scalar added to every logit would change nothing. The scale is
an exponential because a circuit that answers backwards must not count as good. The differences at a
candidate k are cached, so calibrating every candidate costs next to nothing.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from circuitjax.core.policy import side_by_side
from circuitjax.gated.measures import calibrated_odds, task_losses

__all__ = ["STEPS", "Calibration", "calibrate", "calibrated_losses"]

STEPS = 16
_GROUP = 16  # differences that are fitted by one call
_FEW, _MANY = 128, 1024  # pairs that a fit is made for: so many, or a multiple of the second
_PULL = 1e-3  # to scale 0 and shift 0, of a calibration within a training step
_SIDES = np.array([[1.0, -1.0]], np.float32)  # of the shift, after the prompts of a pair
_BOUND = 60.0  # of log scale and of shift, for differences in units of their spread


@flax.struct.dataclass
class Calibration:
    """calibrated difference = scale * difference + shift, and the loss it was fitted to (nats)."""

    scale: Any
    shift: Any
    loss: Any


def calibrate(odds: np.ndarray | jax.Array, steps: int = STEPS) -> Calibration:
    """Fits scale and shift.

    Args:
      odds: `[..., M]` log odds of pairs, first and second prompts in turn; every leading index is fitted
        by itself.
      steps: L-BFGS steps.

    Returns:
      scale, shift, loss, each `[...]`, on the host; never worse than scale 1, shift 0.
    """
    values = np.asarray(odds, np.float32)
    lead, pairs = values.shape[:-1], values.shape[-1] // 2
    flat = values.reshape(-1, pairs, 2) * _SIDES
    # Always so many of so many pairs: to trace an L-BFGS step for others costs more than any fit.
    room = _FEW if pairs <= _FEW else -(-pairs // _MANY) * _MANY
    flat = np.pad(flat, ((0, 0), (0, room - pairs), (0, 0)))
    weights = np.where(np.arange(room) < pairs, 0.5 / pairs, 0.0).astype(np.float32)
    count = len(flat)
    groups = []
    for start in range(0, count, _GROUP):
        some = flat[np.minimum(np.arange(start, start + _GROUP), count - 1)]
        used = min(_GROUP, count - start)
        groups.append(jax.device_get(_fit_all(some, weights, steps, side_by_side(), used)))
    found: Calibration = jax.tree.map(
        lambda *leaves: np.concatenate(leaves)[:count].reshape(lead), *groups
    )
    return found


@functools.partial(jax.jit, static_argnums=(2, 3))
def _fit_all(
    flat: jax.Array, weights: jax.Array, steps: int, together: bool, used: int
) -> Calibration:
    """Of `[G, B, 2]`; one after another only the first `used` are fitted."""

    def one(row: jax.Array | int) -> Calibration:
        return _fit(flat[row], weights, steps)

    if together:
        return jax.vmap(one)(jnp.arange(_GROUP))

    def fill(row: int, found: Calibration) -> Calibration:
        return jax.tree.map(lambda every, own: every.at[row].set(own), found, one(row))

    empty = jnp.zeros(_GROUP)
    return lax.fori_loop(0, used, fill, Calibration(empty, empty, empty))


def calibrated_losses(odds: jax.Array, steps: int = 10) -> jax.Array:
    """Task losses in nats `[M]` of log odds `[M]` of pairs under their own best scale and shift.

    For training: a few Newton steps, and a slight pull to scale 0 (in units of the spread), without
    which pairs told apart perfectly would leave no gradient. At its optimum the calibration's own
    change adds nothing to the gradient, so it is held fixed for it.
    """
    differences = odds.reshape(-1, 2) * jnp.asarray(_SIDES)
    scale, shift = _newton(lax.stop_gradient(differences), steps)
    return task_losses(calibrated_odds(odds, scale, shift))


def _newton(differences: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    sign = jnp.tile(jnp.array([1.0, -1.0]), differences.shape[0])
    flat = differences.reshape(-1)
    centre = jnp.mean(flat)
    unit = jnp.std(flat) + 1e-6 * (1 + jnp.abs(centre))
    inputs = jnp.stack([(flat - centre) / unit, jnp.ones_like(flat)], axis=1)

    def step(theta: jax.Array, _: None) -> tuple[jax.Array, None]:
        wrong = jax.nn.sigmoid(-sign * (inputs @ theta))
        gradient = jnp.mean((-sign * wrong)[:, None] * inputs, axis=0) + _PULL * theta
        curvature = inputs.T @ ((wrong * (1 - wrong))[:, None] * inputs) / flat.size
        a, b, c = curvature[0, 0] + _PULL, curvature[0, 1], curvature[1, 1] + _PULL
        move = jnp.array([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]])
        theta = theta - jnp.clip(move / (a * c - b * b), -2.0, 2.0)
        return theta.at[0].max(_PULL), None

    theta, _ = lax.scan(step, jnp.array([1.0, 0.0]), None, length=steps)
    scale = theta[0] / unit
    return scale, theta[1] - scale * centre


def _losses(differences: jax.Array, scale: Any, shift: Any) -> jax.Array:
    """Of differences `[B, 2]` of the two completions' logits, under a scale and a shift."""
    return task_losses((scale * differences + shift) * jnp.asarray(_SIDES))


def _fit(differences: jax.Array, weights: jax.Array, steps: int) -> Calibration:
    """Of differences `[B, 2]` that weigh `[B]`; their weights are 1 in all, over both prompts."""

    def mean(values: jax.Array) -> jax.Array:
        return jnp.sum(weights[:, None] * values)

    # Around their mean and in units of their spread the differences make a well-conditioned problem.
    centre = mean(differences)
    unit = jnp.sqrt(mean((differences - centre) ** 2)) + 1e-6 * (1 + jnp.abs(centre))
    scaled = (differences - centre) / unit

    def loss_of(theta: jax.Array) -> jax.Array:
        return mean(_losses(scaled, jnp.exp(theta[0]), theta[1]))

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss_of)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        theta, state, best, best_loss = carry
        value, gradient = value_and_grad(theta, state=state)
        better = value < best_loss
        best, best_loss = jnp.where(better, theta, best), jnp.where(better, value, best_loss)
        updates, state = optimizer.update(
            gradient, state, theta, value=value, grad=gradient, value_fn=loss_of
        )
        moved = optax.apply_updates(theta, updates)
        assert isinstance(moved, jax.Array)
        # A separable set has its optimum at an infinite scale: stop where float32 still resolves it.
        theta = jnp.where(jnp.all(jnp.isfinite(moved)), jnp.clip(moved, -_BOUND, _BOUND), theta)
        return (theta, state, best, best_loss), None

    start = jnp.zeros(2)
    carry = (start, optimizer.init(start), start, jnp.asarray(jnp.inf))
    (theta, _, best, best_loss), _ = lax.scan(step, carry, None, length=steps)
    best = jnp.where(loss_of(theta) < best_loss, theta, best)
    plain = mean(_losses(differences, 1.0, 0.0))
    scale = jnp.exp(best[0]) / unit
    shift = best[1] - scale * centre
    fitted = mean(_losses(differences, scale, shift))
    improved = fitted <= plain
    return Calibration(
        scale=jnp.where(improved, scale, 1.0),
        shift=jnp.where(improved, shift, 0.0),
        loss=jnp.minimum(fitted, plain),
    )
