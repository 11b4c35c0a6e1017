"""Minimality with a certificate: no open gate of a circuit can be closed, each of them tried.

    1-minimal            closing any single open gate misses the target
    sampled 2-minimal    and so does closing any of the 1,000 pairs with the least sum of single losses

Elimination estimates, and remembers as needed what the circuit may no longer need once others have
gone. Here every gate is closed by itself, under every condition, with the calibration fitted anew, on
as many validation items as it takes to know (`looks.py`). What can go goes, the one that adds least for
what it saves first, and what was near is tried again, until a whole pass over all finds nothing. The
certificate says what was tried, and no more.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from circuitjax.prune.cut import Choice
from circuitjax.prune.defaults import Search
from circuitjax.prune.looks import FIRST_LOOK, Looks
from circuitjax.prune.problem import Problem

__all__ = ["PAIRS", "Certificate", "certify"]

PAIRS = 1000
_AGAIN = 1.05  # times the target: what is above it is tried again once nothing else can go
_HOPELESS = 1.02  # times the target: what would be there, if losses add up, waits for the next pass
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
    look = Looks(problem, search, opened)  # of all its subsets
    seen = np.zeros(len(opened))  # of each gate the loss without it, when it was last tried
    whole_pass = True
    for _ in range(_PASSES):
        places = np.flatnonzero(opened)
        tries = places if whole_pass else places[seen[places] <= _AGAIN * selection.value]
        if not look.can_afford(len(tries)):
            tell(f"no certificate: {len(places)} gates are too many to try one by one")
            break
        closed = int(choice.opened.sum()) - len(places)
        tell(f"closing one by one: {len(tries)} of {len(places)} gates, {closed} closed so far")
        seen[tries], opened, lowest = _go_over(problem, look, opened, tries[:, None], whole_pass)
        if opened.sum() < len(places) or not whole_pass:
            whole_pass = opened.sum() == len(places)
            continue
        groups = places[_cheapest(seen[places], pairs)]
        if not look.can_afford(len(groups)):
            groups = groups[:0]
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
    problem: Problem, look: Looks, opened: np.ndarray, groups: np.ndarray, whole: bool
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
    problem: Problem, look: Looks, opened: np.ndarray, groups: np.ndarray, losses: np.ndarray
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
