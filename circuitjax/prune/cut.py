"""From a ranking of gates to the smallest set that does the task: bisection and calibration together.

The odds are cached at every k that is looked at, so that the calibrated and the uncalibrated loss
of each k come from one forward pass, and k is known for all three orders: calibration inside the
bisection (default), after it (as published), or never.

A first search on a few items says where to look; the search on all of them starts there. Of many
rankings only those of the smallest k by the first search go through the second.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from circuitjax.core.policy import side_by_side
from circuitjax.gated.edges import AT_ONCE
from circuitjax.gated.examples import Examples
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.config import SelectionConfig
from circuitjax.prune.evaluate import Answers
from circuitjax.prune.figures import Figures, compares, figures
from circuitjax.prune.prober import Prober, is_small
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import Ranked
from circuitjax.prune.select import Selection, bisect, first_grid, neighbours

__all__ = ["Choice", "Point", "choose", "is_large", "scouts"]

_NEAR = 1.05  # the first search ends this near to the crossing, as a factor; the second looks wider
_HOPELESS = 1.5  # times the target on a few items: only all gates are tried on all items then
_ELIMINATED = (0.6, 0.75, 0.9, 1.0)  # of the gates that elimination ranked: a first look
_FROM_ALL = (1.0, 1.3, 1.7, 2.2)  # of those that met the target, where it began from all: likewise
_CLOSE = 1.02  # how near a brief search comes to the smallest k
_FINALISTS = 2  # of many rankings: those whose k is chosen on all validation items


class Point(NamedTuple):
    """One k that was looked at: the gates it leaves open, losses in nats, items measured on."""

    k: int
    parts: int
    raw: float
    loss: float
    kl: float | None
    items: int


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The gates chosen for one ranking; figures are of the validation examples.

    Attributes:
      opened: bool `[G]`.
      selection: the bisection whose k was taken; its losses are of the kind aimed at.
      scale, shift: calibration (1 and 0 without).
      loss, loss_uncalibrated: task loss, nats.
      kl: to the whole model, nats; None where it was not measured.
      k_inside, k_after: gates kept when calibration acts inside the bisection or after it; None
        where the target is never met. Of the two, the one that is not chosen is for the record
        (None where it was not asked for), and k_after is then found on the first few items only.
      soft: expected number of open gates at the end of training.
      curve: every k looked at, on all validation items or, far from the crossing, on the first few.
      rough: whether k was chosen on the first few items only, where other rankings promised more; such a
        choice is for the record.
    """

    opened: np.ndarray
    selection: Selection
    scale: float
    shift: float
    loss: float
    loss_uncalibrated: float
    kl: float | None
    k_inside: int | None
    k_after: int | None
    soft: float
    curve: tuple[Point, ...]
    rough: bool = False

    @property
    def reached(self) -> bool:
        """Whether the target is met on the validation examples."""
        return self.selection.reached


def scouts(problem: Problem, examples: Examples) -> Examples:
    """The first items: those of a first search, and of elimination."""
    return examples.first(problem.whole.scouted_items)


class _Cache:
    """Figures of one ranking by k on some examples, each k evaluated once."""

    def __init__(self, cutter: "_Cutter", ranking: int, examples: Examples) -> None:
        self._cutter, self._ranking, self._examples = cutter, ranking, examples
        self.seen: dict[int, Figures] = {}

    def at(self, ks: Any, name: str) -> np.ndarray:
        missing = [int(k) for k in ks if int(k) not in self.seen]
        if missing:
            found = self._cutter.prober.answers(self._examples, self._ranking, missing)
            self.seen.update(zip(missing, self._cutter.figures(found), strict=True))
        return np.array([getattr(self.seen[int(k)], name) for k in ks])

    def points(self) -> dict[int, Point]:
        items = self._examples.items
        return {
            k: Point(k, self._cutter.parts(self._ranking, k), f.raw, f.loss, f.kl, items)
            for k, f in self.seen.items()
        }


@dataclasses.dataclass
class _Cutter:
    """What the cuts of several rankings share."""

    problem: Problem
    selection: SelectionConfig
    prober: Prober
    loss: str

    def figures(self, found: Answers) -> list[Figures]:
        return figures(self.problem, self.selection, found, self.loss)

    def parts(self, ranking: int, k: int) -> int:
        """Gates that the first k leave open."""
        return int(self.prober.opened(ranking, k).sum())


def is_large(problem: Problem) -> bool:
    """Whether each look at a circuit of this network takes half a minute: few items fit at a time."""
    return problem.whole.eval_items < AT_ONCE


def choose(
    problem: Problem,
    selection: SelectionConfig,
    ranked: Sequence[Ranked],
    memory: AnswerMemory | None = None,
    *,
    loss: str = "binary",
    brief: bool = False,
) -> list[Choice]:
    """Cuts rankings at the target on the validation examples.

    Of more than two that nothing but scores tells apart, only the two of the smallest k on the first few
    items, and the next ones while none of these meets the target on all. The others' choices are
    `rough`.

    Args:
      problem: model, task, data.
      selection: target and order of calibration.
      ranked: J rankings.
      memory: of answers under the same model and replacements, for searches with other targets; the
        choices are the same without it.
      loss: kind of task loss.
      brief: for a search over many runs, and always of large networks: the smallest k to 2%, no k for
        the other order of calibration, and, where candidates follow one another, no losses of k far
        above the crossing.
    """
    prober = Prober(
        problem,
        [one.ranks for one in ranked],
        full=compares(problem, selection) or loss == "vocabulary",
        # A first look at all of them is looked at again.
        memory=AnswerMemory() if memory is None else memory,
        sizes=_sizes(problem, ranked),
    )
    cutter = _Cutter(problem, selection, prober, loss)
    every = range(len(ranked))

    large = is_large(problem)

    def cut(index: int, rough: bool) -> Choice:
        return _cut(cutter, ranked[index], index, brief=brief or large or rough, rough=rough)

    eliminated = any(one.eliminated for one in ranked)
    if brief or eliminated or len(ranked) <= _FINALISTS or not selection.is_loss:
        return [cut(index, False) for index in every]
    found = [cut(index, True) for index in every]
    for done, index in enumerate(sorted(every, key=lambda i: _promise(found[i]))):
        if done >= _FINALISTS and any(one.reached and not one.rough for one in found):
            break
        found[index] = cut(index, False)
    return found


def _sizes(problem: Problem, ranked: Sequence[Ranked]) -> tuple[int, ...]:
    """Of the reduced models of rankings by elimination: what it started from is all that they need."""
    most = max((one.trained for one in ranked), default=0)
    own = all(one.eliminated for one in ranked)
    return (most,) if own and is_small(problem.whole, most) else ()


def _promise(choice: Choice) -> tuple[float, float]:
    return (0, choice.selection.k) if choice.reached else (1, choice.selection.loss)


def _cut(cutter: _Cutter, ranked: Ranked, index: int, *, brief: bool, rough: bool) -> Choice:
    problem, settings = cutter.problem, cutter.selection
    few = scouts(problem, problem.judged)
    scout = _Cache(cutter, index, few)
    cache = _Cache(cutter, index, few if rough else problem.judged)
    total = int(problem.whole.exists().sum())
    if not settings.is_loss:
        return _cut_to_size(cutter, ranked, index, cache, total)
    # Where candidates are evaluated one after another, halving takes the fewest of them.
    in_turn = not side_by_side()
    parts = _ELIMINATED if ranked.opened.any() else _FROM_ALL
    plain, fitted = "plain_aim", "aim"

    def search(name: str, size: int, rough_only: bool = False) -> Selection:
        begin = [round(ranked.trained * part) for part in parts if ranked.eliminated]
        options: dict[str, Any] = {
            "grid": 2 if begin else settings.grid,
            "extra": (ranked.trained,),
            "refine": 1 if in_turn else 4,
        }
        first = bisect(
            lambda ks: scout.at(ks, name),
            size,
            settings.value,
            start=[k for k in begin if k <= size],
            upwards=brief and in_turn,
            close=1.0 if rough_only else _NEAR,
            **options,
        )
        # Where a few items miss the target by far, all of them would too; else perhaps all gates do.
        hopeless = not first.reached and first.loss > _HOPELESS * settings.value and size < total
        if rough_only or hopeless:
            return first
        start = neighbours(first.k, size) if first.reached else (size,)
        return bisect(
            lambda ks: cache.at(ks, name),
            size,
            settings.value,
            start=start,
            upwards=in_turn,
            close=_CLOSE if brief else 1.0,
            **options,
        )

    within = settings.calibrate == "inside"
    some = ranked.eliminated and ranked.trained and ranked.opened.any()
    sizes = (ranked.trained, total) if some else (total,)
    for size in sizes:
        chosen = search(fitted if within else plain, max(size, 1))
        if chosen.reached:
            break
    # Without calibration k is often many times larger, and costs most of the time to find exactly.
    other = None
    if not brief and settings.target != "kl":
        other = search(plain if within else fitted, max(size, 1), rough_only=within)
    inside, after = (chosen, other) if within else (other, chosen)
    return _choice(
        cutter, ranked, index, chosen, cache, scout,
        k_inside=inside.k if inside and inside.reached else None,
        k_after=after.k if after and after.reached else None,
        rough=rough,
    )  # fmt: skip


def _cut_to_size(cutter: _Cutter, ranked: Ranked, index: int, cache: _Cache, total: int) -> Choice:
    settings, whole = cutter.selection, cutter.problem.whole
    if settings.target == "match_soft":
        k = min(max(round(ranked.soft), 1), total)
    else:
        measure = whole.cost if settings.target == "edges" else whole.nodes
        k = _largest_within(
            lambda k: measure(whole.alive(cutter.prober.opened(index, k))),
            total,
            int(settings.value),
        )
    cache.at(first_grid(total, settings.grid, (k,)), "raw")  # for the record and the plot
    loss = cache.seen[k].loss
    chosen = Selection(k=k, reached=True, loss=loss, curve=((k, loss),))
    return _choice(cutter, ranked, index, chosen, cache, cache)


def _choice(
    cutter: _Cutter,
    ranked: Ranked,
    index: int,
    chosen: Selection,
    cache: _Cache,
    scout: _Cache,
    **fields: Any,
) -> Choice:
    at = cache.seen[chosen.k]
    if cutter.selection.calibrate == "off":
        at = at._replace(loss=at.raw, scale=1.0, shift=0.0)
    points = scout.points() | cache.points()
    return Choice(
        opened=cutter.prober.opened(index, chosen.k),
        selection=chosen,
        scale=at.scale,
        shift=at.shift,
        loss=at.loss,
        loss_uncalibrated=at.raw,
        kl=at.kl,
        soft=ranked.soft,
        curve=tuple(point for _, point in sorted(points.items())),
        **{"k_inside": None, "k_after": None, **fields},
    )


def _largest_within(size_at: Callable[[int], int], total: int, limit: int) -> int:
    """The largest k from 1 to `total` that leaves at most `limit` parts; parts grow with k."""
    low, high = 1, total
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size_at(middle) <= limit else (low, middle - 1)
    return low
