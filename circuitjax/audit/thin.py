"""Thinning: closes gates greedily while a loss stays at or below a target.

One round closes the cheapest gates by themselves and sorts them by what that costs; the longest run of
cheapest ones that can go together goes; when not even two can, the next few are tried one after another,
and when none of these can go either, the costs of many are asked anew, twice at most.

    guessed -> screened on few data -> sieved on a part -> decided on all
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["MANY", "TRIES", "Losses", "thin"]

Losses = Callable[[np.ndarray], np.ndarray]

TRIES = 8  # cheapest parts tried alone before it ends
_CLEAR = 1.06  # times the target: what is foreseen there to cost more is not decided on all
_HOPELESS = 2.0  # times the target: a part whose closing costs so much is not tried again
_STRIDE = 1 / 2  # of the room left to the target: what gates that go together may take
_NEARLY = 1.2  # times the target: what is foreseen to cost more is not decided on
_ANEW = 16  # gates that a round screens again
MANY = 256  # gates that a round screens again when all else has failed
_LOOKS = 2  # such rounds
_ROUNDS = 64  # in all: what a large circuit loses later is little
_CHUNK = 64  # variants made at a time: rows of all gates are long


def thin(
    opened: np.ndarray,
    screen: Losses,
    decide: Losses,
    target: float,
    *,
    sieve: Losses | None = None,
    tries: int = TRIES,
    guess: np.ndarray | None = None,
) -> np.ndarray:
    """Closes open gates while the loss stays at or below a target.

    Args:
      opened: bool `[U]`, gates to start from; those closed stay closed.
      screen: bool `[K, U]` -> losses `[K]` in nats, cheap; it orders the gates.
      decide: the same, on all the data that count.
      target: nats.
      sieve: as `decide`, on a part of these data: what is clearly above the target there is not decided.
      tries: how many of the cheapest gates are tried alone before giving up.
      guess: `[U]`, what each gate would cost; without it all are screened to begin with.

    Returns:
      bool `[U]`, a subset of `opened`: at `decide` it meets the target, unless `opened` did not, which
      is then returned as it is. It may have gates that could still be closed: `_ROUNDS` and `_LOOKS`
      bound the search, and what `screen` puts a fifth above the target is not tried.

    A gate whose closing costs more than twice the target on the few data, or misses it on all (or would,
    by `sieve`), is taken to be needed from then on: with others gone it is worth more, mostly.
    """
    now = np.array(opened, bool)
    held = float(decide(now[None])[0])
    if held > target:
        return now
    judge = _Judge(screen, sieve, decide, target)
    at = judge.at(now[None], held)
    worth, known, everything, spare = now.copy(), np.zeros(now.size, bool), False, _LOOKS
    cost = np.zeros(now.size) if guess is None else np.array(guess, float)

    def ask(places: np.ndarray) -> None:
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            cost[some] = screen(_without(now, [[place] for place in some]))
        known[places] = True

    if guess is None:
        ask(np.flatnonzero(now))
    for _ in range(_ROUNDS):
        # What a gate costs changes little as others close, so a round asks anew for the cheapest only.
        places = np.flatnonzero(worth)
        order = places[np.argsort(cost[places], kind="stable")]
        ask(order[: MANY if everything else _ANEW])
        worth &= ~known | (cost <= _HOPELESS * target)
        order = np.flatnonzero(worth)
        order = order[np.argsort(cost[order], kind="stable")]
        gone, missed, at = _cheapest(now, order, cost[order], at, judge, tries)
        worth[missed] = False
        if not len(gone) and (everything or not spare):
            break
        now[gone] = worth[gone] = False
        everything = not len(gone)
        spare -= everything
    return now


class _At(NamedTuple):
    """The loss on all the data, and how much more that is than `screen` and than `sieve` say."""

    held: float
    over_screen: float
    over_sieve: float


@dataclasses.dataclass(frozen=True)
class _Judge:
    screen: Losses
    sieve: Losses | None
    decide: Losses
    target: float

    def at(self, row: np.ndarray, held: float) -> _At:
        """Of gates `[1, U]` whose loss on all the data is known."""
        sieved = held if self.sieve is None else float(self.sieve(row)[0])
        return _At(held, held - float(self.screen(row)[0]), held - sieved)

    def loss(self, row: np.ndarray, at: _At) -> float:
        """On all the data; infinite where a part of them makes it clear, by what it was at `at`."""
        if self.sieve is not None:
            foreseen = float(self.sieve(row)[0]) + at.over_sieve
            if foreseen > _CLEAR * self.target:
                return np.inf
        return float(self.decide(row)[0])


def _cheapest(
    now: np.ndarray, order: np.ndarray, cost: np.ndarray, at: _At, judge: _Judge, tries: int
) -> tuple[np.ndarray, list[int], _At]:
    """Gates that can go together, or one after another, maybe none; and those that cannot go then.

    Together goes the longest run from the cheapest on that takes but a part of the room left to the
    target: in small steps, what is removed early is worth little.
    `at` is of `now`; what is returned, of what is left.
    """
    target = judge.target

    def foreseen(counts: np.ndarray) -> int:
        """The largest count whose closing the few data allow; 0 where there is none."""
        if not len(counts):
            return 0
        losses = judge.screen(_without(now, [order[:count] for count in counts]))
        most = at.held + _STRIDE * (target - at.held)
        return int(np.max(np.where(losses + at.over_screen <= most, counts, 0)))

    count, missed = foreseen(2 ** np.arange(len(order).bit_length())), list[int]()
    together = [order[: count >> halved] for halved in range(count.bit_length() - 1)]
    singly = order[:tries][cost[:tries] + at.over_screen <= _NEARLY * target]
    for gone in together:
        closed = _without(now, [gone])
        loss = judge.loss(closed, at)
        if loss <= target:
            return gone, missed, judge.at(closed, loss)
    gone = order[:0]
    for i in range(len(singly)):
        more = np.append(gone, singly[i])
        closed = _without(now, [more])
        loss = judge.loss(closed, at)
        if loss <= target:
            gone, at = more, judge.at(closed, loss)
        else:
            missed.append(int(singly[i]))
    return gone, missed, at


def _without(now: np.ndarray, closings: list) -> np.ndarray:
    """bool `[K, U]`: `now` with each set of gates closed."""
    rows = np.broadcast_to(now, (len(closings), now.size)).copy()
    for row, places in zip(rows, closings, strict=True):
        row[places] = False
    return rows
