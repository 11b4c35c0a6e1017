"""The worst part of what is closed, left in: projected gradient ascent on one choice for a batch.

    maximise over u in [0, 1]^G    L(z + (1 - z) u),    u += RATE * sign(dL / du), back within [0, 1]

The loss is the one that is aimed at. From u = 0 a chain of closed gates has no slope, so the search
starts from a random half, from all of it, or from where an earlier one ended. What is found is rounded
to what is wholly left in or wholly filled, a superset of the circuit.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.gated.examples import Batch
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.prune.objective import measured, total_loss

__all__ = ["attack", "starts"]

RATE = 0.25  # of a step, in [0, 1]


def starts(num_gates: int, count: int, seed: int = 0) -> np.ndarray:
    """Where searches begin: everything left in, then random halves; `[R, G]`."""
    rng = np.random.default_rng((seed, num_gates))
    rows = [np.ones(num_gates), *(rng.random(num_gates) for _ in range(count - 1))]
    return np.asarray(rows[:count], np.float32)


@functools.partial(jax.jit, static_argnames=("kind", "loss", "steps"))
def _climb(
    model: GatedModel,
    gates: jax.Array,
    batch: Batch,
    reference: Reference,
    left: jax.Array,
    *,
    kind: str,
    loss: str,
    steps: int,
) -> tuple[jax.Array, jax.Array]:
    """The worst rounded choice on the way `[G]`, and its loss in nats."""

    def loss_of(u: jax.Array) -> jax.Array:
        asked = reference._replace(left=u)
        return total_loss(kind, measured(model, gates, batch, asked, kl=kind == "kl", loss=loss))

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        u, best, worst = carry
        slope = jax.grad(loss_of)(u)
        u = jnp.clip(u + RATE * jnp.sign(slope), 0.0, 1.0)
        rounded = (u > 0.5).astype(u.dtype)
        now = loss_of(rounded)
        better = now > worst
        return (u, jnp.where(better, rounded, best), jnp.where(better, now, worst)), None

    first = (left > 0.5).astype(left.dtype)
    (_, best, worst), _ = lax.scan(step, (left, first, loss_of(first)), None, length=steps)
    return best, worst


def attack(
    model: GatedModel,
    gates: np.ndarray,
    batch: Batch,
    reference: Reference,
    begin: Iterable[np.ndarray],
    *,
    kind: str,
    loss: str = "binary",
    steps: int = 8,
) -> tuple[np.ndarray, float]:
    """What an adversary leaves in, 0 or 1 `[G]`, and the loss in nats under it.

    Args:
      model: the whole one.
      gates: `[G]`, the circuit's.
      batch, reference: what the loss is measured on; see `evaluate.references`.
      begin: `[R, G]` in [0, 1], where R searches start.
      kind: `task`, `calibrated` or `kl`.
      loss: kind of task loss.
      steps: of each search.
    """
    opened = jnp.asarray(gates, jnp.float32)
    found = [
        _climb(model, opened, batch, reference, jnp.asarray(u), kind=kind, loss=loss, steps=steps)
        for u in begin
    ]
    losses = [float(worst) for _, worst in found]
    worst = int(np.argmax(losses))
    return np.asarray(found[worst][0]), losses[worst]
