"""From a trained ranking to the smallest mask that does the task: bisection and calibration together.

The two completions' logits are cached at every k that is looked at, so that the calibrated and the
uncalibrated loss of each k come from one forward pass, and k is known for all three orders:
calibration inside the bisection (default), after it (as published), or never.

A first search on a few pairs says where to look; the search on all validation pairs starts there. Of
many rankings only those of the smallest k by the first search go through the second.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.evaluate import Answers, Prober, attribution
from circuitjax.prune.gates import flatten_units, gates_from_ranks, num_units
from circuitjax.prune.objective import Pairs
from circuitjax.prune.problem import Problem
from circuitjax.prune.select import Selection, bisect, neighbours, rank_nodes
from circuitjax.prune.train import MaskState

__all__ = ["Choice", "SupportsAnswers", "choose", "choose_from_rankings", "cut", "first_pairs"]


_SCOUTS = 128  # pairs of the first search; a ranking's ties need no more either
_NEAR = 1.05  # how near, as a factor, the first search comes: the second looks wider than that
_CLOSE = 1.02  # how near a brief search comes to the smallest k
_FINALISTS = 2  # of many rankings: those whose k is chosen on all validation pairs


@dataclasses.dataclass(frozen=True)
class Choice:
    """The mask chosen for one ranking; losses are on the validation pairs, in nats.

    Attributes:
      mask: {site: bool `[L, W]`} of kept nodes.
      selection: the bisection whose k was taken.
      scale, shift: calibration of the logit difference (1 and 0 without).
      loss: calibrated loss at k.
      loss_uncalibrated: loss at k without calibration.
      k_inside, k_after: units kept when calibration acts inside the bisection or after it; None
        where the target is never met. Of the two, the one that is not chosen is for the record (None
        where it was not asked for), and k_after is then found on the first few pairs only.
      curve: (k, loss, calibrated loss, pairs it was measured on) at every k looked at: on all
        validation pairs, or, far from the crossing, on the first few.
      rough: whether k was chosen on the first few pairs only, where other rankings promised more; such a
        choice is for the record.
    """

    mask: Mapping[str, np.ndarray]
    selection: Selection
    scale: float
    shift: float
    loss: float
    loss_uncalibrated: float
    k_inside: int | None
    k_after: int | None
    curve: tuple[tuple[int, float, float, int], ...]
    rough: bool = False

    @property
    def reached(self) -> bool:
        """Whether the target is met on the validation pairs."""
        return self.selection.reached


class SupportsAnswers(Protocol):
    """Whoever answers for the first k gates of one of several rankings."""

    def answers(self, pairs: Pairs, ranking: int, ks: Sequence[int]) -> Answers:
        """Answers to M pairs, for each k `[K]`."""


class _Cache:
    """Raw and calibrated losses of one ranking by k on some pairs, each k evaluated once."""

    def __init__(
        self, prune: PruneConfig, prober: SupportsAnswers, ranking: int, pairs: Pairs
    ) -> None:
        self._prune, self._prober, self._ranking, self._pairs = prune, prober, ranking, pairs
        self.raw: dict[int, float] = {}
        self.fitted: dict[int, tuple[float, float, float]] = {}

    def _look(self, ks: np.ndarray) -> None:
        missing = [int(k) for k in ks if int(k) not in self.raw]
        if not missing:
            return
        found = self._prober.answers(self._pairs, self._ranking, missing)
        raw = found.losses(self._prune)
        if self._prune.loss == "vocabulary":
            for k, loss in zip(missing, raw, strict=True):
                self.raw[k], self.fitted[k] = float(loss), (1.0, 0.0, float(loss))
            return
        fit = calibrate(found.differences)
        for i, k in enumerate(missing):
            self.raw[k] = float(raw[i])
            self.fitted[k] = (float(fit.scale[i]), float(fit.shift[i]), float(fit.loss[i]))

    def raw_at(self, ks: np.ndarray) -> np.ndarray:
        self._look(ks)
        return np.array([self.raw[int(k)] for k in ks])

    def calibrated_at(self, ks: np.ndarray) -> np.ndarray:
        self._look(ks)
        return np.array([self.fitted[int(k)][2] for k in ks])

    def curve(self) -> dict[int, tuple[int, float, float, int]]:
        points = ((k, self.raw[k], self.fitted[k][2], self._pairs.size) for k in self.raw)
        return {point[0]: point for point in points}


def choose(
    problem: Problem,
    state: MaskState,
    memory: AnswerMemory | None = None,
    *,
    brief: bool = False,
) -> list[Choice]:
    """Ranks every job's units by tau (ties by attribution) and cuts at the smallest good k.

    Args:
      problem: model, task, data.
      state: J trained jobs.
      memory, brief: see `choose_from_rankings`.

    Returns:
      One choice per job.
    """
    rankings, trained = [], []
    pairs = first_pairs(problem.validation)
    for index in range(int(state.step.shape[0])):
        job = jax.tree.map(lambda leaf, i=index: leaf[i], state)
        scores = np.asarray(flatten_units(job.tau))
        rankings.append(rank_nodes(scores, attribution(problem, job, pairs)))
        trained.append(int(np.sum(scores > 0)))
    return choose_from_rankings(problem, rankings, trained, memory, brief=brief)


def choose_from_rankings(
    problem: Problem,
    rankings: Sequence[np.ndarray],
    trained: Sequence[int] | None = None,
    memory: AnswerMemory | None = None,
    *,
    brief: bool = False,
) -> list[Choice]:
    """Cuts any rankings of the units at the smallest k that meets the target on validation.

    Of more than two, only the two of the smallest k on the first few pairs; the next ones, too, while
    none of these meets the target on all. The others' choices are `rough`.

    Args:
      problem: model, task, data.
      rankings: each `[U]`, 0 is the most important unit.
      trained: for each, a k to look at besides, such as the number of gates open after training.
      memory: of answers under the same model and replacement values, for searches with other targets;
        the choices are the same without it.
      brief: for a search over many runs: the smallest k to 2%, no k for the other order of calibration,
        and, on CPU, no losses of k far above the crossing.
    """
    # A first look at all of them is looked at again.
    prober = Prober(problem, rankings, memory=memory or AnswerMemory())
    config, tied = problem.config, problem.prune.tie_qk
    trained = trained or [0] * len(rankings)

    def mask_of(ranking: int, k: int) -> dict[str, np.ndarray]:
        gates = gates_from_ranks(config, jnp.asarray(rankings[ranking]), k, tied)
        return {site: np.asarray(m) > 0.5 for site, m in gates.items()}

    def cut_one(index: int, rough: bool) -> Choice:
        return cut(
            problem.prune,
            first_pairs(problem.validation) if rough else problem.validation,
            prober,
            index,
            num_units(config, tied),
            trained[index],
            functools.partial(mask_of, index),
            brief=brief or rough,
            rough=rough,
        )

    every = range(len(rankings))
    if brief or len(rankings) <= _FINALISTS:
        return [cut_one(index, False) for index in every]
    found = [cut_one(index, True) for index in every]
    for done, index in enumerate(sorted(every, key=lambda i: _promise(found[i]))):
        if done >= _FINALISTS and any(one.reached and not one.rough for one in found):
            break
        found[index] = cut_one(index, False)
    return found


def _promise(choice: Choice) -> tuple[float, float]:
    return (0, choice.selection.k) if choice.reached else (1, choice.loss)


def cut(
    prune: PruneConfig,
    validation: Pairs,
    prober: SupportsAnswers,
    ranking: int,
    size: int,
    k_trained: int,
    mask_of: Callable[[int], Mapping[str, np.ndarray]],
    *,
    brief: bool = False,
    rough: bool = False,
) -> Choice:
    """Cuts a ranking of gates of any grain at the smallest k that meets the target.

    Args:
      prune: target and order of calibration.
      validation: pairs to decide on.
      prober: answers of the first k gates of a ranking.
      ranking: which of the prober's.
      size: how many gates there are.
      k_trained: a k to look at besides.
      mask_of: the nodes {site: bool `[L, W]`} that the first k gates keep.
      brief: see `choose_from_rankings`.
      rough: for the record of what was chosen.
    """
    scout = _Cache(prune, prober, ranking, first_pairs(validation))
    cache = _Cache(prune, prober, ranking, validation)
    # Where candidates are evaluated one after another, halving takes the fewest of them.
    in_turn = jax.default_backend() == "cpu"
    refine = 1 if in_turn else 4

    def search(calibrated: bool, rough_only: bool = False) -> Selection:
        losses = [c.calibrated_at if calibrated else c.raw_at for c in (scout, cache)]
        options: dict[str, Any] = {"grid": prune.grid, "extra": (k_trained,), "refine": refine}
        rough = bisect(
            losses[0],
            size,
            prune.target_loss,
            upwards=brief and in_turn,
            close=1.0 if rough_only else _NEAR,
            **options,
        )
        if rough_only:
            return rough
        start = neighbours(rough.k, size) if rough.reached else ()
        return bisect(
            losses[1],
            size,
            prune.target_loss,
            start=start,
            upwards=in_turn,
            close=_CLOSE if brief else 1.0,
            **options,
        )

    within = prune.calibrate == "inside"
    selection = search(within)
    # Without calibration k is often many times larger, and costs most of the time to find exactly.
    other = search(not within, rough_only=within) if not brief else None
    inside, after = (selection, other) if within else (other, selection)
    scale, shift, loss = cache.fitted[selection.k]
    raw = cache.raw[selection.k]
    if prune.calibrate == "off":
        scale, shift, loss = 1.0, 0.0, raw
    return Choice(
        mask=mask_of(selection.k),
        selection=selection,
        scale=scale,
        shift=shift,
        loss=loss,
        loss_uncalibrated=raw,
        k_inside=inside.k if inside and inside.reached else None,
        k_after=after.k if after and after.reached else None,
        curve=tuple(point for _, point in sorted((scout.curve() | cache.curve()).items())),
        rough=rough,
    )


def first_pairs(pairs: Pairs) -> Pairs:
    """The pairs of the first search."""
    return pairs.take(np.arange(min(_SCOUTS, pairs.size)))
