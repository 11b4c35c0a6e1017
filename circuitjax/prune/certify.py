"""Minimality with a certificate: no open gate of a circuit can be closed, each of them tried.

    1-minimal            closing any single open gate misses the target
    sampled 2-minimal    and so does closing any of the 1,000 pairs with the least sum of single losses

Elimination estimates, and remembers as needed what the circuit may no longer need once others have
gone. Here every gate is closed by itself, under every condition, with the calibration fitted anew: first
on 32 validation items, on more unless these tell that the target is missed by a quarter, and on all of
them unless those tell that it is by 6%. What can go goes, the one that saves most for its price first,
and what was near is tried again, until a whole pass over all finds nothing. The certificate says what
was tried, and no more.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.prune.cut import Choice, scouts
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, Asked
from circuitjax.prune.figures import Figures, compares, figures
from circuitjax.prune.prober import answers_under_condition, can_leave_out
from circuitjax.prune.problem import Problem

__all__ = ["PAIRS", "Certificate", "certify"]

PAIRS = 1000
FIRST_LOOK = 32  # items
_HOPES = (1.25, 1.06)  # times the target: what a look tells to be above it is not looked at again
_AGAIN = 1.25  # times the target: what is above it is tried again once nothing else can go
_TRIES = 3000  # of single gates, at most: a circuit of very many is not certified
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
      first_look: items of the first look; what is told there to miss the target by a quarter, or on a
        few more items by 6%, is not looked at again.
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
    """What subsets of one set of open gates do on some examples: the worst condition's figures."""

    def __init__(
        self,
        problem: Problem,
        search: Search,
        models: Sequence[GatedModel],
        some: Examples,
        full: bool,
    ) -> None:
        self._problem, self._search, self._some = problem, search, some
        self._asked = [
            (model, Asked(model, under.batches, some, full=full, condition=under.name))
            for model, under in zip(models, problem.conditions, strict=True)
        ]

    def figures(self, rows: Sequence[np.ndarray]) -> list[Figures]:
        """Of each row."""
        parts = [self._under(number, rows) for number in range(len(self._asked))]
        joined = Answers(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))
        return figures(self._problem, self._search.selection, joined, self._search.choices.loss)

    def losses(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Of each row what is compared with the target, in nats; `[n]`."""
        plain = self._search.selection.calibrate != "inside"
        found = [at.plain_aim if plain else at.aim for at in self.figures(rows)]
        return np.array(found, float)

    def _under(self, number: int, rows: Sequence[np.ndarray]) -> Answers:
        model, asked = self._asked[number]
        return answers_under_condition(self._problem, number, model, asked, rows, self._some)


class _Tried:
    """Looks at more and more items, each only where the one before leaves hope.

    What a loss on all items would be is told from few by how it differs there from that of the gates
    that are open now: a difference on the same items is known far better than a loss.
    """

    def __init__(self, problem: Problem, search: Search, opened: np.ndarray) -> None:
        few = scouts(problem, problem.judged)
        sets = [few.first(FIRST_LOOK), few, problem.judged]
        full = compares(problem, search.selection) or search.choices.loss == "vocabulary"
        models = [
            under.whole.reduced(opened, own_widths=True)
            if can_leave_out(under) and not full
            else under.whole
            for under in problem.conditions
        ]
        self._looks = [_Judge(problem, search, models, some, full) for some in sets]
        self._target = search.selection.value
        self.all = self._looks[-1]
        self.settle(opened)

    def settle(self, opened: np.ndarray) -> None:
        """Takes the gates that are open now."""
        self._now = [float(look.losses([opened])[0]) for look in self._looks]

    @property
    def now(self) -> float:
        """Their loss on all items."""
        return self._now[-1]

    def losses(self, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """On all items `[n]`, infinite where an earlier look was enough; and as the last look tells."""
        found, told = np.full(len(rows), np.inf), np.full(len(rows), np.inf)
        near = np.arange(len(rows))
        for look, now, hope in zip(self._looks, self._now, (*_HOPES, np.inf), strict=True):
            if not len(near):
                break
            losses = look.losses([rows[int(place)] for place in near])
            told[near] = losses + (self.now - now)
            if look is self.all:
                found[near] = losses
            near = near[told[near] <= hope * self._target]
        return found, told


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
    selection, whole = search.selection, problem.whole
    target, opened = selection.value, choice.opened.copy()
    closed, kind, least, tried = 0, "none", None, (0, 0)
    look = _Tried(problem, search, opened)  # of all its subsets
    seen = np.zeros(len(opened))  # of each gate the loss without it, when it was last tried
    whole_pass = True
    left = _TRIES
    for _ in range(_PASSES):
        places = np.flatnonzero(opened)
        tries = places if whole_pass else places[seen[places] <= _AGAIN * target]
        left -= len(tries)
        if left < 0:
            break
        tell(f"closing one by one: {len(tries)} of {len(places)} gates, {closed} closed so far")
        losses, seen[tries] = look.losses(_without(opened, tries[:, None]))
        able = np.flatnonzero(losses <= target)
        if not len(able) and not whole_pass:
            whole_pass = True
            continue
        if not len(able):
            groups = places[_cheapest(seen[places], pairs)]
            tell(f"closing {len(groups)} pairs")
            both, _ = look.losses(_without(opened, groups))
            if not np.any(both <= target):
                kind = "sampled 2-minimal" if len(groups) else "1-minimal"
                tried, least = (len(places), len(groups)), float(min([*losses, *both]))
                break
            opened[groups[int(np.argmin(both))]] = False
            closed, whole_pass = closed + 2, False
            look.settle(opened)
            continue
        saved = np.maximum(whole.saves(opened)[tries[able]], 1)
        for place in tries[able[np.argsort(losses[able] / saved, kind="stable")]]:
            fewer = opened.copy()
            fewer[place] = False
            if look.losses([fewer])[0][0] <= target:
                opened, closed = fewer, closed + 1
                look.settle(opened)
        whole_pass = False
    certificate = Certificate(
        kind=kind,
        singles=tried[0],
        pairs=tried[1],
        closed=closed,
        least=least if least is not None and np.isfinite(least) else None,
        items=problem.judged.items,
        first_look=min(FIRST_LOOK, problem.judged.items),
        conditions=tuple(under.name for under in problem.conditions),
    )
    if not closed:
        return choice, certificate
    (now,) = look.all.figures([opened])
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
