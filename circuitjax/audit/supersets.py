"""Does the circuit still do the task when other nodes are left in? Random and adversarial supersets.

    kept = circuit + a part of the rest,     loss under the best calibration of each set

Every set is calibrated for itself, so what is measured is whether the answer is still there, not whether
its size is. The fraction of the rest runs from 0 (the circuit) to 1 (the model). The adversarial part
is searched by the gradient of the loss through the hard gates of the rest, straight through, from an
empty rest and from the worst random one: a chain of closed nodes has no slope, so the first start alone
would be blind to it. The worst set on the search pairs is measured on others.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.surrogate import heaviside
from circuitjax.model.config import TransformerConfig
from circuitjax.model.sites import flatten, unflatten
from circuitjax.model.transformer import Fills, Params
from circuitjax.prune.calibrate import calibrate, calibrated_loss
from circuitjax.prune.evaluate import answers
from circuitjax.prune.objective import AnyPairs, Pairs, answer_logits, logit_differences
from circuitjax.prune.packing import pack
from circuitjax.prune.problem import Problem

__all__ = ["FRACTIONS", "Supersets", "supersets"]

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
_RATE = 0.25  # of a step of the search, in units of the largest slope
_START = 0.1  # score of a node that is left in at the start; -0.1 of one that is not


@dataclasses.dataclass(frozen=True, eq=False)
class Supersets:
    """Losses in nats on the test pairs, each under its own best calibration.

    Attributes:
      fractions: of the rest that is left in, with 0 and 1.
      random: for each fraction the losses of its random sets.
      adversarial: of the worst superset known: searched or random.
      adversarial_fraction: share of the rest in it.
      adversarial_from: `search` or `random`.
      search: loss on the search pairs by step, one list per start.
      mask: bool `[N]`, that set.
    """

    fractions: tuple[float, ...]
    random: tuple[tuple[float, ...], ...]
    adversarial: float
    adversarial_fraction: float
    adversarial_from: str
    search: tuple[tuple[float, ...], ...]
    mask: np.ndarray


def supersets(
    problem: Problem,
    circuit: Circuit,
    test: Pairs,
    search: Pairs,
    *,
    fractions: Sequence[float] = FRACTIONS,
    sets: int = 4,
    steps: int = 12,
    seed: int = 0,
) -> Supersets:
    """Measures a node circuit's supersets.

    Args:
      problem: the model; closed nodes hold the circuit's fills.
      circuit: of nodes.
      test: pairs that every loss is reported on.
      search: pairs of the adversarial search.
      fractions: of the rest left in, in (0, 1).
      sets: random supersets per fraction.
      steps: of the search, from each of two starts.
      seed: of the random sets.
    """
    rng = np.random.default_rng(seed)
    problem = dataclasses.replace(
        problem, fills={site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    )
    kept = np.asarray(flatten(circuit.gates())) > 0.5
    rest = np.flatnonzero(~kept)
    rows, shares = [kept], [0.0]
    for fraction in fractions:
        for _ in range(sets):
            row = kept.copy()
            row[rng.choice(rest, round(fraction * len(rest)), replace=False)] = True
            rows.append(row)
            shares.append(fraction)
    rows.append(np.ones_like(kept))
    shares.append(1.0)

    def losses(masks: Sequence[np.ndarray]) -> np.ndarray:
        trees = [unflatten(problem.config, mask) for mask in masks]
        return np.asarray(calibrate(answers(problem, test, trees).differences).loss)

    found = losses(rows)
    worst = int(np.argmax(found))
    starts = np.stack([kept, rows[worst]])
    packed, _ = pack(search, problem.config.causal)
    path, masks = (
        np.asarray(part)
        for part in _search(
            problem.config, steps, problem.params, problem.fills, packed, kept, starts
        )
    )
    best = np.unravel_index(int(np.argmax(path)), path.shape)
    searched = masks[best]
    loss = float(losses([searched])[0])
    by_search = loss >= found[worst]
    final = searched if by_search else rows[worst]
    grid = (0.0, *fractions, 1.0)
    return Supersets(
        fractions=grid,
        random=tuple(
            tuple(float(x) for x, s in zip(found, shares, strict=True) if s == share)
            for share in grid
        ),
        adversarial=max(loss, float(found[worst])),
        adversarial_fraction=float(np.mean(final[rest])) if len(rest) else 0.0,
        adversarial_from="search" if by_search else "random",
        search=tuple(tuple(float(x) for x in row) for row in path),
        mask=final,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(
    config: TransformerConfig,
    steps: int,
    params: Params,
    fills: Fills,
    pairs: AnyPairs,
    kept: jax.Array,
    starts: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Losses `[S, steps]` and sets bool `[S, steps, N]` of an ascent from each start `[S, N]`."""

    def loss_of(score: jax.Array) -> jax.Array:
        gates = unflatten(config, jnp.where(kept, 1.0, heaviside(score, 1.0)))
        logits = answer_logits(config, params, pairs, gates, fills)
        return calibrated_loss(logit_differences(logits, pairs.answers))

    def step(score: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        loss, slope = jax.value_and_grad(loss_of)(score)
        move = _RATE * slope / jnp.maximum(jnp.max(jnp.abs(slope)), 1e-20)
        return jnp.clip(score + move, -1.0, 1.0), (loss, kept | (score > 0))

    def one(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        score = jnp.where(start, _START, -_START)
        return lax.scan(step, score, None, length=steps)[1]

    return lax.map(one, starts)
