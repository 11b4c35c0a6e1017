"""Minimality with a certificate: no open gate of a circuit can be closed, each of them tried.

    1-minimal            closing any single open gate misses the target
    sampled 2-minimal    and so does closing any of the 1,000 pairs with the least sum of single losses

Elimination estimates, and remembers as needed what the circuit may no longer need once others have
gone. Here every gate is closed by itself, under every condition, with the calibration fitted anew: first
on 32 validation items, then on 128, on twice as many, and so on to all of them, each time unless those
before tell by three standard errors that the target is missed. What can go goes, the one that saves most
for its price first, and what was near is tried again, until a whole pass over all finds nothing. The
certificate says what was tried, and no more.
"""

import dataclasses
import functools
import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.prune.cut import Choice
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, Asked
from circuitjax.prune.figures import Figures, aims, compares, demanded, figures
from circuitjax.prune.prober import answers_under_condition, can_leave_out
from circuitjax.prune.problem import Problem

__all__ = ["PAIRS", "Certificate", "certify"]

PAIRS = 1000
FIRST_LOOK = 32  # items
_ERRORS = (
    4.0  # standard errors above the target: what a look tells to be there is not looked at again
)
_AGAIN = 1.05  # times the target: what is above it is tried again once nothing else can go
_HOPELESS = (
    1.02  # times the target: what would be there, were losses to add up, waits for the next pass
)
_TRIES = 10_000  # of single gates, at most: a circuit of very many is not certified
_GUESSED = 2  # looks that tell what to try first
_TOGETHER = 100  # pairs that are tried before what can go of them goes
_PASSES = 40  # at most: each but the last two closes at least one gate


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was tried, and what is therefore known.

    Attributes:
      kind: `1-minimal`, `sampled 2-minimal`, or `none` where trying was stopped before a whole pass.
      singles, pairs: how many were closed in the last pass; all of them missed the target.
      closed: how many gates went before.
      least: the lowest loss on all items of what was tried on them in the last pass, in nats: above the
        target; None where the first look was enough for all.
      items: validation items that a loss is over.
      first_look: items of the first look; what a look tells by three standard errors to miss the target
        is not looked at again.
      conditions: under which the target was demanded.
    """

    kind: str
    singles: int
    pairs: int
    closed: int
    least: float | None
    items: int
    first_look: int
    conditions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {**dataclasses.asdict(self), "conditions": list(self.conditions)}


class _Judge:
    """What subsets of one set of open gates do on some examples, under every condition."""

    def __init__(
        self, problem: Problem, models: Sequence[GatedModel], some: Examples, full: bool
    ) -> None:
        self._problem, self._some = problem, some
        self._asked = [
            (model, Asked(model, under.batches, some, full=full, condition=under.name))
            for model, under in zip(models, problem.conditions, strict=True)
        ]

    def answers(self, rows: Sequence[np.ndarray]) -> list[Answers]:
        """`[n, M]` under each condition."""
        return [
            answers_under_condition(self._problem, number, model, asked, rows, self._some)
            for number, (model, asked) in enumerate(self._asked)
        ]


class _Seen(NamedTuple):
    """What n sets of gates do.

    Attributes:
      told: what is compared with the target, as the last look tells it of all items, `[n]`.
      missed: whether it is known, all but surely, to be above the target, bool `[n]`.
      measured: whether the last look was on all items, bool `[n]`.
      demands: of each look `[n, demands, items]`, n the sets that were looked at.
      answers: `[n, M]` for each condition, of the last look.
    """

    told: np.ndarray
    missed: np.ndarray
    measured: np.ndarray
    demands: list[np.ndarray]
    answers: list[Answers]


class _Tried:
    """Looks at more and more items, as long as those before leave open whether the target is met.

    What a loss on all items would be is told from few by how it differs there from that of the gates
    that are open now: a difference on the same items is known far better than a loss.
    """

    def __init__(self, problem: Problem, search: Search, opened: np.ndarray) -> None:
        self._problem, self._search = problem, search
        every = problem.judged
        ends = [0, 2 * problem.batches.items]  # whole batches, which share a program
        while 2 * ends[-1] < every.items:
            ends.append(2 * ends[-1])
        ends = [*(end for end in ends if end < every.items), every.items]
        full = compares(problem, search.selection) or search.choices.loss == "vocabulary"
        models = [
            under.whole.reduced(opened, own_widths=True)
            if can_leave_out(under) and not full
            else under.whole
            for under in problem.conditions
        ]
        parts = [every.take(np.arange(*pair)) for pair in itertools.pairwise(ends)]
        sets = [every.first(FIRST_LOOK), *parts]
        self._judges = [_Judge(problem, models, some, full) for some in sets]
        self.target = search.selection.value
        self._now = self._look([opened])

    @property
    def now(self) -> float:
        """What the gates that are open now have to compare with the target, on all items."""
        return float(self._now.told[0])

    def figures(self) -> Figures:
        """Of the gates that are open now."""
        (found,) = figures(
            self._problem,
            self._search.selection,
            _joined(self._now.answers),
            self._search.choices.loss,
        )
        return found

    def settle(self, opened: np.ndarray) -> bool:
        """Takes the gates as those that are open now if they meet the target; says whether they do."""
        seen = self._look([opened], beside=self._now)
        if not (seen.measured[0] and seen.told[0] <= self.target):
            return False
        self._now = seen
        return True

    def losses(self, rows: Sequence[np.ndarray], *, most: int | None = None) -> _Seen:
        """What each set has to compare with the target; at most so many looks at each."""
        return self._look(rows, beside=self._now, most=most)

    def _look(
        self,
        rows: Sequence[np.ndarray],
        beside: _Seen | None = None,
        most: int | None = None,
    ) -> _Seen:
        """Of sets of gates, each only as long as it is not known beside another to miss the target."""
        told, (missed, measured) = np.full(len(rows), np.inf), np.zeros((2, len(rows)), bool)
        near = np.arange(len(rows))
        held: list[Answers] = []
        looks: list[np.ndarray] = []
        for number, judge in enumerate(self._judges[:most]):
            if not len(near):
                break
            answers = judge.answers([rows[int(place)] for place in near])
            # The few of the first look are among those of the second.
            held = (
                answers
                if number < 2
                else [_beside(*pair) for pair in zip(held, answers, strict=True)]
            )
            demands = demanded(
                self._problem, self._search.selection, _joined(held), self._search.choices.loss
            )
            looks.append(demands)
            if judge is self._judges[-1]:
                told[near] = aims(self._search.selection, demands).max(axis=1)
                measured[near], missed[near] = True, told[near] > self.target
            elif beside is not None:
                rise = demands - beside.demands[number]
                level = aims(self._search.selection, beside.demands[-1]) + rise.mean(axis=2)
                error = _ERRORS * rise.std(axis=2) / math.sqrt(rise.shape[2])
                told[near] = level.max(axis=1)
                stay = (level - error).max(axis=1) <= self.target
                missed[near[~stay]] = True
                near, held = near[stay], [Answers(*(v[stay] for v in part)) for part in held]
        return _Seen(told, missed, measured, looks, held)


def _beside(one: Answers, other: Answers) -> Answers:
    """Answers of the same circuits to more examples."""
    return Answers(*(np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True)))


def _joined(conditions: Sequence[Answers]) -> Answers:
    """The examples once for each condition, as `figures` takes them."""
    return functools.reduce(_beside, conditions)


def certify(
    problem: Problem,
    search: Search,
    choice: Choice,
    *,
    pairs: int = PAIRS,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Choice, Certificate]:
    """Closes what can still go, and says what is known of the rest.

    Args:
      problem: model, task, conditions.
      search: target and calibration; the target is a loss or a KL.
      choice: the cut, which meets the target.
      pairs: to try, of those with the least sum of single losses.
      tell: told of every pass.

    Returns:
      The choice with what went closed and its figures taken anew; and the certificate.
    """
    selection = search.selection
    opened, kind, least, tried = choice.opened.copy(), "none", None, (0, 0)
    look = _Tried(problem, search, opened)  # of all its subsets
    seen = np.zeros(len(opened))  # of each gate the loss without it, when it was last tried
    whole_pass = True
    left = _TRIES
    for _ in range(_PASSES):
        places = np.flatnonzero(opened)
        tries = places if whole_pass else places[seen[places] <= _AGAIN * selection.value]
        left -= len(tries)
        if left < 0:
            break
        closed = int(choice.opened.sum()) - len(places)
        tell(f"closing one by one: {len(tries)} of {len(places)} gates, {closed} closed so far")
        seen[tries], opened, lowest = _go_over(problem, look, opened, tries[:, None], whole_pass)
        if opened.sum() < len(places) or not whole_pass:
            whole_pass = opened.sum() == len(places)
            continue
        groups = places[_cheapest(seen[places], pairs)]
        tell(f"closing {len(groups)} pairs, {closed} closed so far")
        for begin in range(0, len(groups), _TOGETHER):
            some = groups[begin : begin + _TOGETHER]
            some = some[opened[some].all(axis=1)]
            unchanged = opened.sum() == len(places)
            _, opened, low = _go_over(problem, look, opened, some, unchanged)
            lowest += low
        if opened.sum() == len(places):
            kind = "sampled 2-minimal" if len(groups) else "1-minimal"
            tried, least = (len(places), len(groups)), min(lowest, default=None)
            break
        whole_pass = False
    closed = int(choice.opened.sum() - opened.sum())
    certificate = Certificate(
        kind=kind,
        singles=tried[0],
        pairs=tried[1],
        closed=closed,
        least=None if least is None else float(least),
        items=problem.judged.items,
        first_look=min(FIRST_LOOK, problem.judged.items),
        conditions=tuple(under.name for under in problem.conditions),
    )
    if not closed:
        return choice, certificate
    now = look.figures()
    if selection.calibrate == "off":
        now = now._replace(loss=now.raw, scale=1.0, shift=0.0)
    k = int(opened.sum())
    return (
        dataclasses.replace(
            choice,
            opened=opened,
            selection=dataclasses.replace(choice.selection, k=k, loss=look.now),
            scale=now.scale,
            shift=now.shift,
            loss=now.loss,
            loss_uncalibrated=now.raw,
            kl=now.kl,
        ),
        certificate,
    )


def _go_over(
    problem: Problem, look: _Tried, opened: np.ndarray, groups: np.ndarray, whole: bool
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Closes what can go of the groups `[n, size]`.

    Args:
      problem, look: what is tried, and how.
      opened: the gates that are open now.
      groups: each is closed by itself.
      whole: whether a group that cannot go must be known to miss the target, where none can.

    Returns:
      Losses of the groups `[n]`, as far as they are known; what is left open; and, if that is all and
      `whole` was asked for, the losses that were measured on all items.
    """
    rows = _without(opened, groups)
    seen = look.losses(rows, most=_GUESSED)
    told = seen.told
    left = _close(problem, look, opened, groups, told)
    if left is not None or not whole:
        return told, opened if left is None else left, []
    unsure = np.flatnonzero(~seen.missed)
    again = look.losses([rows[int(place)] for place in unsure])
    told[unsure] = again.told
    left = _close(problem, look, opened, groups, told)
    measured = [*told[seen.measured], *again.told[again.measured]]
    return told, opened if left is None else left, [float(loss) for loss in measured]


def _close(
    problem: Problem, look: _Tried, opened: np.ndarray, groups: np.ndarray, losses: np.ndarray
) -> np.ndarray | None:
    """Without those of the groups `[n, size]` that can go one after another; None where none can.

    The one that adds least for what it saves goes first: its loss beside what went before it is taken
    anew, and it waits if others are then cheaper.
    """
    able = np.flatnonzero(losses <= look.target)
    saved = np.maximum(problem.whole.saves(opened)[groups].sum(axis=1), 1)

    def price(number: int, loss: float) -> float:
        rise = loss - look.now
        # A fall is worth more, not less, where little is saved: only rises are divided.
        return float(rise / saved[number] if rise > 0 else rise)

    waiting = [(price(int(n), losses[n]), int(n), look.now) for n in able]
    heapq.heapify(waiting)
    left = opened
    while waiting:
        _, number, beside = heapq.heappop(waiting)
        group = groups[number]
        if not left[group].all() or losses[number] - beside + look.now > _HOPELESS * look.target:
            continue
        fewer = left.copy()
        fewer[group] = False
        if beside != look.now and waiting:
            (losses[number],) = look.losses([fewer], most=_GUESSED).told
            cost = price(number, losses[number])
            if losses[number] > look.target:
                continue
            if cost > waiting[0][0]:
                heapq.heappush(waiting, (cost, number, look.now))
                continue
        if look.settle(fewer):
            left = fewer
    return None if left is opened else left


def _without(opened: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Rows with the gates of each group `[n, size]` closed."""
    rows = []
    for group in groups:
        row = opened.copy()
        row[group] = False
        rows.append(row)
    return rows


def _cheapest(losses: np.ndarray, count: int) -> np.ndarray:
    """Pairs `[n, 2]` of places with the least sums of losses, at most so many."""
    few = np.argsort(losses, kind="stable")[: 2 + int(np.sqrt(2 * count) * 2)]
    found = sorted(itertools.combinations(few, 2), key=lambda p: losses[p[0]] + losses[p[1]])
    return np.array(found[:count], int).reshape(-1, 2)
