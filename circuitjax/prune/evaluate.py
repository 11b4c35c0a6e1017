"""What many circuits answer on a fixed set of examples, for every grain.

The unit of work is one set of open gates on one batch, a single compiled program for every stage of a
run. Everything after that (loss, accuracy, calibration) is arithmetic on the cached answers.
"""

import copy
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.mesh import spread
from circuitjax.core.policy import side_by_side
from circuitjax.gated.conditions import (
    answers_under,
    logits_under,
    refer_under,
)
from circuitjax.gated.examples import Batch, Examples, picked
from circuitjax.gated.measures import (
    agreement,
    kl_divergence,
    mean_task_loss,
    odds_of,
    vocabulary_losses,
)
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.gated.rows import Batches
from circuitjax.prune.objective import measured, total_loss
from circuitjax.prune.problem import Problem

__all__ = [
    "Answers",
    "Asked",
    "answered",
    "answers",
    "beside",
    "gate_slopes",
    "references",
    "slopes",
]

_SETS = 8  # sets of gates side by side on an accelerator
_KEPT = 2**30  # bytes of what a set of examples is run with
_SEED = 0  # of donors, wherever something is measured rather than trained


class Answers(NamedTuple):
    """What K circuits answer to M examples, each `[K, M]`, on the host.

    Attributes:
      odds: log odds of the right completions, uncalibrated.
      vocabulary: -log of the right completions' probability, in nats; 0 where it was not asked for.
      kl: KL(whole model || circuit), in nats; likewise.
      agree: whether the most probable token is the whole model's; likewise.
      apart: whether the example is of a template that training never sees; of no size where that was
        not asked for.
    """

    odds: np.ndarray
    vocabulary: np.ndarray
    kl: np.ndarray
    agree: np.ndarray
    apart: np.ndarray = np.zeros(0, bool)

    def losses(self, kind: str) -> np.ndarray:
        """Mean task loss `[K]` in nats, of a kind: `binary` or `vocabulary`."""
        if kind == "binary":
            return mean_task_loss(self.odds)
        return np.mean(self.vocabulary, axis=1)

    def accuracy(self) -> np.ndarray:
        """Share of examples whose right completions are preferred, `[K]`."""
        return np.asarray(np.mean(self.odds > 0, axis=1))


@functools.partial(jax.jit, static_argnames=("name", "full"))
def _refer(name: str, model: GatedModel, batch: Batch, key: jax.Array, *, full: bool) -> Reference:
    return refer_under(name, model, spread(batch), key, full=full)


def _reference(name: str, model: GatedModel, batch: Batch, number: int, full: bool) -> Reference:
    key = jax.random.fold_in(jax.random.key(_SEED), number)
    return _refer(name, model, batch, key, full=full)


def references(
    model: GatedModel, batches: Sequence[Batch], *, full: bool, condition: str | None = None
) -> list[tuple[Batch, Reference]]:
    """Each batch with what circuits are run with and compared with; all draws by a fixed seed.

    Args:
      model: the whole one; its ablation is the condition's.
      batches: of examples.
      full: whether the whole model's logits are wanted.
      condition: None for the model's ablation alone.
    """
    name = condition or model.ablation
    return [(batch, _reference(name, model, batch, n, full)) for n, batch in enumerate(batches)]


class Asked:
    """Examples cut into batches once, for any number of circuits; see `answered`.

    What circuits are run with and compared with is kept too, as far as memory should hold it: where it
    differs from prompt to prompt it is every activation of every example.
    """

    def __init__(
        self,
        model: GatedModel,
        batches: Batches,
        examples: Examples,
        *,
        full: bool = False,
        condition: str | None = None,
    ) -> None:
        """Takes the whole model, how examples are cut, the examples, and the rest as in `answers`."""
        rows, self.places = batches.even(examples)
        self.apart = examples.apart
        self._model, self._rows, self._full = model, rows, full
        self._name = condition or model.ablation
        self._left: jax.Array | None = None
        self._kept: dict[int, Reference] = {}
        self._room = _KEPT

    def leaving(self, left: np.ndarray) -> "Asked":
        """The same, with what an adversary leaves in, `[G]`."""
        changed = copy.copy(self)
        changed._left = jnp.asarray(left)
        return changed

    def __iter__(self) -> Iterator[tuple[Batch, Reference]]:
        for number, batch in enumerate(self._rows):
            found = self._kept.get(number)
            if found is None:
                found = _reference(self._name, self._model, batch, number, self._full)
                size = sum(leaf.nbytes for leaf in jax.tree.leaves(found))
                if size <= self._room:
                    self._kept[number], self._room = found, self._room - size
            yield batch, found if self._left is None else found._replace(left=self._left)


def _answer(
    model: GatedModel, gates: jax.Array, batch: Batch, reference: Reference
) -> tuple[jax.Array, ...]:
    """Of one circuit; where no whole model was run, the odds only."""
    batch = spread(batch)
    if reference.full is None:
        odds = odds_of(answers_under(model, gates, batch, reference), batch)
        none = jnp.zeros_like(odds)
        return odds, none, none, none
    return beside(logits_under(model, gates, batch, reference), reference.full, batch)


def beside(logits: jax.Array, full: jax.Array, batch: Batch) -> tuple[jax.Array, ...]:
    """Fields of `Answers`, each `[M]`, of one circuit's logits beside the whole model's, `[M, P, V]`."""
    return (
        odds_of(picked(logits, batch), batch),
        vocabulary_losses(logits, batch),
        kl_divergence(logits, full),
        agreement(logits, full),
    )


_one = jax.jit(_answer)
_several = jax.jit(jax.vmap(_answer, in_axes=(None, 0, None, None)))


def answers(
    model: GatedModel,
    batches: Batches,
    examples: Examples,
    opened: np.ndarray | Sequence[np.ndarray],
    *,
    full: bool = False,
    condition: str | None = None,
    together: bool | None = None,
) -> Answers:
    """Runs K circuits over all examples.

    Args:
      model: of any grain.
      batches: how examples are cut.
      examples: M of them.
      opened: `[K, G]`, bool or numbers in [0, 1].
      full: whether vocabulary loss, KL and agreement are wanted, for which the whole model is run.
      condition: that circuits are run under; None for the model's ablation alone.
      together: True maps circuits in groups, False runs one after another; None chooses by backend.
    """
    asked = Asked(model, batches, examples, full=full, condition=condition)
    return answered(model, asked, opened, together=together)


def answered(
    model: GatedModel,
    asked: Asked,
    opened: np.ndarray | Sequence[np.ndarray],
    *,
    together: bool | None = None,
) -> Answers:
    """As `answers`, of examples that were cut before; the model may be a reduced one."""
    gates = np.asarray(opened, np.float32)
    chex.assert_shape(gates, (None, model.num_gates))
    together = side_by_side() if together is None else together
    group = min(_SETS, len(gates)) if together else 1
    parts = []
    for batch, reference in asked:
        found = []
        for start in range(0, len(gates), group):
            chosen = gates[np.minimum(np.arange(start, start + group), len(gates) - 1)]
            if group > 1:
                found.append(jax.device_get(_several(model, chosen, batch, reference)))
            else:
                one = jax.device_get(_one(model, chosen[0], batch, reference))
                found.append(tuple(value[None] for value in one))
        parts.append([np.concatenate(p)[: len(gates)] for p in zip(*found, strict=True)])
    joined = (np.concatenate(part, axis=1)[:, asked.places] for part in zip(*parts, strict=True))
    apart = np.broadcast_to(asked.apart, (len(gates), len(asked.apart)))
    return Answers(*joined)._replace(apart=apart)


@functools.partial(jax.jit, static_argnames=("kind", "levels", "loss"))
def slopes(
    model: GatedModel,
    gates: jax.Array,
    batch: Batch,
    reference: Reference,
    *,
    kind: str,
    levels: tuple[float, ...] = (1.0,),
    loss: str = "binary",
) -> jax.Array:
    """Derivative of a loss by each gate `[G]` in nats, the mean over some heights of the open gates."""

    batch = spread(batch)

    def loss_of(z: jax.Array) -> jax.Array:
        return total_loss(kind, measured(model, z, batch, reference, kl=kind == "kl", loss=loss))

    slope = jax.grad(loss_of)
    if len(levels) == 1:
        found: jax.Array = slope(gates * levels[0])
        return found
    each = jax.lax.map(lambda level: slope(gates * level), jnp.asarray(levels, gates.dtype))
    return jnp.mean(each, axis=0)


def gate_slopes(
    problem: Problem,
    gates: np.ndarray,
    examples: Examples,
    kind: str,
    *,
    loss: str = "binary",
    model: GatedModel | None = None,
) -> np.ndarray:
    """Derivative of the mean loss by each gate, in nats `[G]`, over all examples with equal weight.

    It is taken at the gates themselves, not through a surrogate: to first order, what opening a closed
    gate (or closing an open one) would do to the loss.

    Args:
      problem: model and data.
      gates: `[G]` in [0, 1], where it is taken.
      examples: to measure on.
      kind: `task`, `calibrated` or `kl`.
      loss: kind of task loss.
      model: None means the whole one.
    """
    model = problem.whole if model is None else model
    rows = list(problem.batches.uneven(examples))
    total, gates = np.zeros(model.num_gates), np.asarray(gates, np.float32)
    for batch, reference in references(model, rows, full=kind == "kl"):
        slope = slopes(model, gates, batch, reference, kind=kind, loss=loss)
        total += np.asarray(slope) * batch.size
    return total / examples.size
