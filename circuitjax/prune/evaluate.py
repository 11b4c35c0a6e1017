"""What many circuits answer on a fixed set of examples, for every grain.

The unit of work is one set of open gates on one batch, a single compiled program for every stage of a
run. Everything after that (loss, accuracy, calibration) is arithmetic on the cached answers.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.policy import leaves_out_closed, side_by_side
from circuitjax.gated.examples import Batch, Examples, picked
from circuitjax.gated.measures import (
    agreement,
    kl_divergence,
    mean_task_loss,
    odds_of,
    vocabulary_losses,
)
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference, is_per_prompt, refer
from circuitjax.gated.rows import Batches
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.calibrate import calibrated_loss
from circuitjax.prune.objective import measured
from circuitjax.prune.problem import Problem

__all__ = [
    "Answers",
    "Asked",
    "Prober",
    "answered",
    "answers",
    "beside",
    "gate_slopes",
    "references",
    "slopes",
    "total_loss",
]

_SETS = 8  # sets of gates side by side on an accelerator
_SEED = 0  # of donors, wherever something is measured rather than trained


class Answers(NamedTuple):
    """What K circuits answer to M examples, each `[K, M]`, on the host.

    Attributes:
      odds: log odds of the right completions, uncalibrated.
      vocabulary: -log of the right completions' probability, in nats; 0 where it was not asked for.
      kl: KL(whole model || circuit), in nats; likewise.
      agree: whether the most probable token is the whole model's; likewise.
    """

    odds: np.ndarray
    vocabulary: np.ndarray
    kl: np.ndarray
    agree: np.ndarray

    def losses(self, kind: str) -> np.ndarray:
        """Mean task loss `[K]` in nats, of a kind: `binary` or `vocabulary`."""
        if kind == "binary":
            return mean_task_loss(self.odds)
        return np.mean(self.vocabulary, axis=1)

    def accuracy(self) -> np.ndarray:
        """Share of examples whose right completions are preferred, `[K]`."""
        return np.asarray(np.mean(self.odds > 0, axis=1))


@functools.partial(jax.jit, static_argnames="full")
def _refer(model: GatedModel, batch: Batch, key: jax.Array, *, full: bool) -> Reference:
    return refer(model, batch, key, full=full)


def _reference(model: GatedModel, batch: Batch, number: int, full: bool) -> Reference:
    return _refer(model, batch, jax.random.fold_in(jax.random.key(_SEED), number), full=full)


def references(
    model: GatedModel, batches: Sequence[Batch], *, full: bool
) -> list[tuple[Batch, Reference]]:
    """Each batch with what circuits are run with and compared with; donors by a fixed seed."""
    return [(batch, _reference(model, batch, n, full)) for n, batch in enumerate(batches)]


class Asked:
    """Examples cut into batches once, for any number of circuits; see `answered`.

    What circuits are run with and compared with is kept too, unless it differs from prompt to prompt:
    it would then hold every activation of every example.
    """

    def __init__(
        self, model: GatedModel, batches: Batches, examples: Examples, *, full: bool = False
    ) -> None:
        """Takes the whole model, how examples are cut, the examples, and `full` as in `answers`."""
        rows, self.places = batches.even(examples)
        self._model, self._rows, self._full = model, rows, full
        self._kept: list[Reference] | None = None
        if not is_per_prompt(model.ablation):
            self._kept = [reference for _, reference in references(model, rows, full=full)]

    def __iter__(self) -> Iterator[tuple[Batch, Reference]]:
        for number, batch in enumerate(self._rows):
            kept = self._kept
            yield (
                batch,
                (
                    _reference(self._model, batch, number, self._full)
                    if kept is None
                    else kept[number]
                ),
            )


def _answer(
    model: GatedModel, gates: jax.Array, batch: Batch, reference: Reference
) -> tuple[jax.Array, ...]:
    """Of one circuit; where no whole model was run, the odds only."""
    if reference.full is None:
        odds = odds_of(model.answers(gates, batch, reference.held), batch)
        none = jnp.zeros_like(odds)
        return odds, none, none, none
    return beside(model.logits(gates, batch, reference.held), reference.full, batch)


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
    together: bool | None = None,
) -> Answers:
    """Runs K circuits over all examples.

    Args:
      model: of any grain.
      batches: how examples are cut.
      examples: M of them.
      opened: `[K, G]`, bool or numbers in [0, 1].
      full: whether vocabulary loss, KL and agreement are wanted, for which the whole model is run.
      together: True maps circuits in groups, False runs one after another; None chooses by backend.
    """
    asked = Asked(model, batches, examples, full=full)
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
    return Answers(*joined)


class Prober:
    """Answers of "the first k gates of a ranking", for several rankings over any examples.

    Where closed gates are left out of the arithmetic, a small k runs through a smaller model: for
    each of a few sizes, the gates that any ranking puts among its first so many are the reduced
    model's, folded once, and the set within it is traced. So a handful of programs is compiled
    whatever the number of rankings, k and rounds.
    """

    def __init__(
        self,
        problem: Problem,
        rankings: Sequence[np.ndarray],
        *,
        full: bool = False,
        reduce: bool | None = None,
        memory: AnswerMemory | None = None,
        room: Callable[[int], Any] | None = None,
    ) -> None:
        """Takes the rankings; reduced models are folded when first needed.

        Args:
          problem: the model and its data.
          rankings: each `[G]`, 0 is the most important gate.
          full: see `answers`.
          reduce: None reduces where that pays and an exact reduction exists; False never.
          memory: of answers under the same model and replacements; added to.
          room: how wide the reduced model of so many gates is at least.
        """
        reduce = leaves_out_closed() if reduce is None else reduce
        self._problem, self._rankings, self._memory = problem, rankings, memory
        self._models: dict[int, GatedModel] = {}
        self._full, self._room = full, room
        self._sizes = tuple(problem.whole.sizes()) if reduce and not full else ()

    def opened(self, ranking: int, k: int) -> np.ndarray:
        """bool `[G]`: what a cut at k opens; see `GatedModel.cut`."""
        return self._problem.whole.cut(self._rankings[ranking] < k)

    def widths(self, size: int) -> Any:
        """Of the reduced model of the first so many gates of every ranking."""
        return self._fold(size).small.widths  # type: ignore[attr-defined]

    def _fold(self, size: int, room: Any = None) -> GatedModel:
        sets = [self.opened(index, size) for index in range(len(self._rankings))]
        more = {} if room is None else {"at_least": room}
        return self._problem.whole.reduced(np.any(sets, axis=0), **more)

    def _model_for(self, k: int) -> GatedModel:
        size = next((size for size in self._sizes if k <= size), None)
        if size is None:
            return self._problem.whole
        if size not in self._models:
            self._models[size] = self._fold(size, None if self._room is None else self._room(size))
        return self._models[size]

    def answers(self, examples: Examples, ranking: int, ks: Sequence[int]) -> Answers:
        """Answers of the first k gates of a ranking to M examples, for each k `[K]`."""
        if self._memory is None:
            return self._look(examples, ranking, ks)
        found = self._memory.answers(
            self._rankings[ranking], examples, ks, lambda ks: self._look(examples, ranking, ks)
        )
        return Answers(*found)

    def _look(self, examples: Examples, ranking: int, ks: Sequence[int]) -> Answers:
        batches, parts = self._problem.batches, []
        sets = {int(k): self.opened(ranking, int(k)) for k in ks}
        alike: list[list[int]] = []  # neighbours that run through the same model
        for k in (int(k) for k in ks):
            if alike and self._model_for(alike[-1][0]) is self._model_for(k):
                alike[-1].append(k)
            else:
                alike.append([k])
        for group in alike:
            rows = np.stack([sets[k] for k in group])
            model = self._model_for(group[0])
            parts.append(answers(model, batches, examples, rows, full=self._full))
        return Answers(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def total_loss(kind: str, found: dict[str, jax.Array]) -> jax.Array:
    """One loss in nats of what `objective.measured` found: `task`, `calibrated`, `kl`."""
    if kind == "calibrated":
        return calibrated_loss(found["odds"])
    return jnp.mean(found[kind])


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

    def loss_of(z: jax.Array) -> jax.Array:
        return total_loss(kind, measured(model, z, batch, reference, kl=kind == "kl", loss=loss))

    slope = jax.grad(loss_of)
    return sum((slope(gates * level) for level in levels), jnp.zeros_like(gates)) / len(levels)


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
