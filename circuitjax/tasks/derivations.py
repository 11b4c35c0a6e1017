"""Every text that a task's templates can make, by following every choice that they draw.

A template is a function of a `random.Random`. `Choices` stands in for one: it takes a path of numbers,
one for each choice in turn, and notes how many ways each had. The next path is the last one with its
last choice that had another way moved on, so that all leaves of the tree of choices are seen once, in
order, with nothing kept but a path. A number in [0, 1) is a choice only once it is looked at: compared
with another (two ways at most), or scaled and cut to a whole number (as many ways as it may become).

How many leaves there are is estimated first, by random paths: the mean over them of the product of
their ways has the number of leaves as its expectation (Knuth 1975, "Estimating the efficiency of
backtrack programs").
"""

import math
import random
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import Any, TypeVar

__all__ = ["Choices", "Unlisted", "derivations", "estimate"]

_Item = TypeVar("_Item")
_DEEPEST = 10_000  # choices of one text: beyond, a template draws until something fits
_PROBES = 200
_EDGE = 1e-9  # by which a bound of a number may be off


class Unlisted(Exception):
    """A template draws in a way that cannot be followed."""


class _Number:
    """A number in [low, high) of which no more is known."""

    def __init__(self, choices: "Choices") -> None:
        self._choices, self.low, self.high = choices, 0.0, 1.0

    def _below(self, limit: float) -> bool:
        if self.high <= limit:
            return True
        if self.low >= limit:
            return False
        below = self._choices.one_of(2) == 0
        self.low, self.high = (self.low, limit) if below else (limit, self.high)
        return below

    def __lt__(self, limit: float) -> bool:
        return self._below(limit)

    __le__ = __lt__

    def __gt__(self, limit: float) -> bool:
        return not self._below(limit)

    __ge__ = __gt__

    def __mul__(self, count: float) -> "_Scaled":
        return _Scaled(self, count)

    __rmul__ = __mul__

    def cut(self, count: float) -> int:
        """The whole part of `count` times the number."""
        first = math.floor(self.low * count + _EDGE)
        last = max(first, math.ceil(self.high * count - _EDGE) - 1)
        found = first + self._choices.one_of(last - first + 1)
        self.low = max(self.low, found / count)
        self.high = min(self.high, (found + 1) / count)
        return found


class _Scaled:
    def __init__(self, number: _Number, count: float) -> None:
        self._number, self._count = number, count

    def __int__(self) -> int:
        return self._number.cut(self._count)

    __trunc__ = __int__
    __floor__ = __int__


class Choices(random.Random):
    """A source of randomness that follows a path and notes the ways there were.

    Attributes:
      taken: the numbers chosen.
      ways: of how many each.
    """

    def __init__(self, path: Sequence[int] = (), beyond: random.Random | None = None) -> None:
        """Takes a path, and what chooses beyond its end; None: the first way."""
        super().__init__(0)
        self._path, self._beyond = path, beyond
        self.taken: list[int] = []
        self.ways: list[int] = []

    def one_of(self, count: int) -> int:
        """A choice of one number below `count`."""
        if count < 1:
            raise Unlisted("a choice of nothing")
        place = len(self.taken)
        if place >= _DEEPEST:
            raise Unlisted("a text of too many choices")
        if place < len(self._path):
            found = self._path[place]
        else:
            found = 0 if self._beyond is None else self._beyond.randrange(count)
        self.taken.append(found)
        self.ways.append(count)
        return found

    def next_path(self) -> list[int] | None:
        """The path after the one that was followed; None after the last."""
        for place in range(len(self.taken) - 1, -1, -1):
            if self.taken[place] + 1 < self.ways[place]:
                return [*self.taken[:place], self.taken[place] + 1]
        return None

    def random(self) -> Any:
        """A number that is chosen as far as it is looked at."""
        return _Number(self)

    def choice(self, seq: Any) -> Any:
        """One of a sequence."""
        return seq[self.one_of(len(seq))]

    def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:
        """`k` of a sequence, in every order."""
        if counts is not None:
            raise Unlisted("a sample with counts")
        left = list(population)
        return [left.pop(self.one_of(len(left))) for _ in range(k)]

    def shuffle(self, x: MutableSequence[Any]) -> None:
        """Every order of a list."""
        x[:] = self.sample(x, len(x))

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """A whole number of a range."""
        numbers = range(start) if stop is None else range(start, stop, step)
        return numbers[self.one_of(len(numbers))]

    def randint(self, a: int, b: int) -> int:
        """A whole number from a to b."""
        return self.randrange(a, b + 1)

    def getrandbits(self, k: int, /) -> int:
        """Refused, and with it all that is made of it."""
        raise Unlisted("random bits")


def _made(make: Callable[[random.Random], _Item], choices: Choices) -> _Item:
    try:
        return make(choices)
    except TypeError as error:
        # What else a template does with a number needs the number itself.
        raise Unlisted(f"a draw that cannot be followed: {error}") from error


def derivations(make: Callable[[random.Random], _Item]) -> Iterator[_Item]:
    """What a template makes of every path, in order; equal ones as often as they are made.

    Args:
      make: of a source of randomness.

    Raises:
      Unlisted: when it draws in a way that cannot be followed.
    """
    path: list[int] | None = []
    while path is not None:
        choices = Choices(path)
        yield _made(make, choices)
        path = choices.next_path()


def estimate(make: Callable[[random.Random], _Item], probes: int = _PROBES) -> float:
    """About how many paths a template has; infinity where that is beyond floating point.

    Raises:
      Unlisted: see `derivations`.
    """
    rng = random.Random(0)
    total = 0.0
    for _ in range(probes):
        choices = Choices(beyond=rng)
        _made(make, choices)
        try:
            total += math.prod(choices.ways)
        except OverflowError:
            return math.inf
    return total / probes
