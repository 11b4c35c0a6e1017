"""The worst part of what is closed, left in: projected gradient ascent on one choice for a batch.

    maximise over u in [0, 1]^G    L(z + (1 - z) u),    u += RATE * sign(dL / du), back within [0, 1]

The loss is the one that is aimed at. From u = 0 a chain of closed gates has no slope, so the search
starts from a random half, from all of it, or from where an earlier one ended. What is found is rounded
to what is wholly left in or wholly filled, a superset of the circuit.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.gated.examples import Batch
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.prune.objective import measured, total_loss

__all__ = ["Attack", "attack", "starts"]

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
    among: jax.Array,
    *,
    kind: str,
    loss: str,
    steps: int,
) -> tuple[jax.Array, jax.Array]:
    """The worst rounded choice on the way `[G]`, and the losses of all `[1 + steps]`, in nats."""

    def loss_of(u: jax.Array) -> jax.Array:
        asked = reference._replace(left=u)
        return total_loss(kind, measured(model, gates, batch, asked, kl=kind == "kl", loss=loss))

    def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        u, best, worst = carry
        slope = jax.grad(loss_of)(u)
        u = jnp.clip(u + RATE * jnp.sign(slope), 0.0, among)
        rounded = (u > 0.5).astype(u.dtype)
        now = loss_of(rounded)
        better = now > worst
        return (u, jnp.where(better, rounded, best), jnp.where(better, now, worst)), now

    left = left * among
    first = (left > 0.5).astype(left.dtype)
    begin = loss_of(first)
    (_, best, _), losses = lax.scan(step, (left, first, begin), None, length=steps)
    return best, jnp.concatenate([begin[None], losses])


class Attack(NamedTuple):
    """What is left in, 0 or 1 `[G]`, the loss under it, those on the way `[R, steps + 1]`; nats."""

    left: np.ndarray
    loss: float
    paths: np.ndarray


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
    among: np.ndarray | None = None,
) -> Attack:
    """What an adversary leaves in of what is closed, and the loss in nats under it.

    Args:
      model: the whole one.
      gates: `[G]`, the circuit's.
      batch, reference: what the loss is measured on; see `evaluate.references`.
      begin: `[R, G]` in [0, 1], where R searches start.
      kind: `task`, `calibrated` or `kl`.
      loss: kind of task loss.
      steps: of each search.
      among: bool `[G]`, what may be left in; None for all of it.
    """
    opened = jnp.asarray(gates, jnp.float32)
    may = jnp.ones_like(opened) if among is None else jnp.asarray(among, jnp.float32)
    climb = functools.partial(
        _climb, model, opened, batch, reference, kind=kind, loss=loss, steps=steps
    )
    found = [climb(left=jnp.asarray(u, jnp.float32), among=may) for u in begin]
    paths = np.stack([np.asarray(path) for _, path in found])
    worst = int(np.argmax(paths.max(axis=1)))
    return Attack(np.asarray(found[worst][0]), float(paths.max()), paths)
