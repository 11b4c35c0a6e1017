"""What many subsets of one set of open gates do, each looked at no longer than is needed.

Looks are at 32 items, at 128, at twice as many, and so on to all of them; a set is looked at again
unless those before tell by three standard errors that it misses the target. What a loss on all items
would be is told from few by how it differs there from that of the gates that are open now: a difference
on the same items is known far better than a loss.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, Asked
from circuitjax.prune.figures import Figures, aims, compares, demanded, figures
from circuitjax.prune.prober import answers_under_condition, can_leave_out
from circuitjax.prune.problem import Problem

__all__ = ["FIRST_LOOK", "Looks", "Seen"]

FIRST_LOOK = 32  # items
_ERRORS = 3.0  # standard errors above the target: what a look tells to be there is left at that
_BUDGET = 200_000  # items through the whole network, in whose time a certificate must be made
_OVERHEAD, _SHARE = 0.02, 2.0  # of a reduced one's time: always, and for its share of the gates


class _Judge:
    """What subsets of one set of open gates do on some examples, under every condition."""

    def __init__(
        self, problem: Problem, models: Sequence[GatedModel], some: Examples, full: bool
    ) -> None:
        self._problem, self._some, self.items = problem, some, some.items
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


class Seen(NamedTuple):
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


class Looks:
    """What subsets of the gates that are open now do, and which gates these are."""

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
        # What a prompt costs beside one through the whole network, where a run of the grain costs more.
        shares = [
            _OVERHEAD + _SHARE * opened.sum() / len(opened) if model is not under.whole else 1.0
            for model, under in zip(models, problem.conditions, strict=True)
        ]
        self._cost = sum(min(share, 1.0) for share in shares) * 64 / problem.whole.eval_items
        self._left = float(_BUDGET)
        self._now = self._look([opened])

    def can_afford(self, count: int) -> bool:
        """Whether so many sets can be tried in what is left of the time."""
        items = FIRST_LOOK + 2 * self._problem.batches.items
        return self._left > 0 and count * items * self._cost <= self._left

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

    def losses(self, rows: Sequence[np.ndarray], *, most: int | None = None) -> Seen:
        """What each set has to compare with the target; at most so many looks at each."""
        return self._look(rows, beside=self._now, most=most)

    def _look(
        self,
        rows: Sequence[np.ndarray],
        beside: Seen | None = None,
        most: int | None = None,
    ) -> Seen:
        """Of sets of gates, each only as long as it is not known beside another to miss the target."""
        told, (missed, measured) = np.full(len(rows), np.inf), np.zeros((2, len(rows)), bool)
        near = np.arange(len(rows))
        held: list[Answers] = []
        looks: list[np.ndarray] = []
        for number, judge in enumerate(self._judges[:most]):
            if not len(near):
                break
            answers = judge.answers([rows[int(place)] for place in near])
            self._left -= len(near) * judge.items * self._cost
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
        return Seen(told, missed, measured, looks, held)


def _beside(one: Answers, other: Answers) -> Answers:
    """Answers of the same circuits to more examples."""
    return Answers(*(np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True)))


def _joined(conditions: Sequence[Answers]) -> Answers:
    """The examples once for each condition, as `figures` takes them."""
    return functools.reduce(_beside, conditions)
