"""Thinning: closes gates greedily while a loss stays at or below a target.

One round closes the cheapest gates by themselves and sorts them by what that costs; the longest run of
cheapest ones that can go together goes; when not even two can, the next few are tried together or one
after another, and when none of these can go either, the costs of many are asked anew.

    guessed or estimated -> screened on few data -> sieved on a part -> decided on all

Among many gates those that look cheapest on some data look so by chance too, most of all on these data.
So where estimates can be had, they are of data that decide nothing, and of others in every round.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["MANY", "ROUNDS", "TRIES", "Estimate", "Losses", "Thinned", "thin"]

Losses = Callable[[np.ndarray], np.ndarray]

TRIES = 8  # cheapest parts tried alone before it ends
ROUNDS = 64  # at most: what a large circuit loses later is little
MANY = 192  # gates that a round screens again when all else has failed
_LOOKS = 2  # such rounds
_ANEW = 16  # gates that any other round screens again
_MORE = 32  # with estimates, gates screened when all else has failed
_CLEAR = 1.06  # times the target: a run of gates foreseen there to cost more is not decided on all
_HOPELESS = 2.0  # times the target: a part whose closing costs so much is not tried again
_STRIDE = 1 / 2  # of the room left to the target: what gates that go together may take
_NEARLY = 1.15  # times the target: what is screened to cost more is not tried
_CHUNK = 64  # variants made at a time: rows of all gates are long


class Estimate(NamedTuple):
    """What closing each gate would add to the loss, to first order: `[U]` in nats, on two sets of data.

    Attributes:
      fresh: on data that have no say in what is decided.
      few: on those that `screen` uses: what its answers correct the first order by.
    """

    fresh: np.ndarray
    few: np.ndarray


class Thinned(NamedTuple):
    """What is left.

    Attributes:
      gates: bool `[U]`.
      finished: False where the rounds ended before the search did.
    """

    gates: np.ndarray
    finished: bool


def thin(
    opened: np.ndarray,
    screen: Losses,
    decide: Losses,
    target: float,
    *,
    sieve: Losses | None = None,
    tries: int = TRIES,
    rounds: int = ROUNDS,
    guess: np.ndarray | None = None,
    estimate: Callable[[np.ndarray], Estimate] | None = None,
) -> Thinned:
    """Closes open gates while the loss stays at or below a target.

    Args:
      opened: bool `[U]`, gates to start from; those closed stay closed.
      screen: bool `[K, U]` -> losses `[K]` in nats, cheap; it orders the gates.
      decide: the same, on all the data that count.
      target: nats.
      sieve: as `decide`, on a part of these data: what misses the target there is not decided.
      tries: how many of the cheapest gates are tried alone in a round.
      rounds: at most.
      guess: `[U]`, what the loss would be with each gate closed; without it all are screened to begin
        with. Of no use where gates are estimated.
      estimate: of open gates `[U]`, what closing each would add, roughly and at once: asked in every
        round, on other data each time.

    Returns:
      Gates, a subset of `opened`: at `decide` they meet the target, unless `opened` did not, which
      is then returned as it is. There may be some that could still be closed: `rounds` bounds the
      search, without estimates `_LOOKS` does, and what is screened 15% above the target is not tried.

    A gate whose closing costs more than twice the target on the few data, or misses it on all (or would,
    by `sieve`), is taken to be needed from then on: with others gone it is worth more, mostly.
    """
    now = np.array(opened, bool)
    held = float(decide(now[None])[0])
    if held > target:
        return Thinned(now, True)
    judge = _Judge(screen, sieve, decide, target)
    at = judge.at(now[None], held)
    worth, stuck, spare = now.copy(), False, _LOOKS
    cost = np.zeros(now.size) if guess is None else np.array(guess, float)

    def cheapest() -> np.ndarray:
        places = np.flatnonzero(worth)
        return places[np.argsort(cost[places], kind="stable")]

    def ask(places: np.ndarray) -> None:
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            cost[some] = screen(_without(now, [[place] for place in some])) + at.over_screen
        worth[places] &= cost[places] <= _HOPELESS * target

    if guess is None and estimate is None:
        ask(np.flatnonzero(now))
    for _ in range(rounds):
        if estimate is None:
            # What a gate costs changes little as others close: most of what was known will do.
            ask(cheapest()[: MANY if stuck else _ANEW])
        else:
            rises = estimate(now)
            cost = at.held + rises.fresh
            asked = cheapest()[: _MORE if stuck else _ANEW]
            ask(asked)
            cost[asked] += (rises.fresh - rises.few)[asked]
        order = cheapest()
        gone, missed, at = _cheapest(now, order, cost[order], at, judge, tries)
        worth[missed] = False
        if not len(gone) and (stuck or not spare):
            return Thinned(now, True)
        now[gone] = worth[gone] = False
        stuck = not len(gone)
        spare -= stuck and estimate is None
    return Thinned(now, False)


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
    decided: dict[bytes, float] = dataclasses.field(default_factory=dict)

    def at(self, row: np.ndarray, held: float) -> _At:
        """Of gates `[1, U]` whose loss on all the data is known."""
        sieved = held if self.sieve is None else float(self.sieve(row)[0])
        return _At(held, held - float(self.screen(row)[0]), held - sieved)

    def foreseen(self, row: np.ndarray, at: _At) -> float:
        """What all the data will say of gates `[1, U]`, by a part of them and what it was at `at`."""
        if self.sieve is None:
            return self.loss(row)
        return float(self.sieve(row)[0]) + at.over_sieve

    def loss(self, row: np.ndarray) -> float:
        """On all the data; asked once."""
        key = np.packbits(row).tobytes()
        if key not in self.decided:
            self.decided[key] = float(self.decide(row)[0])
        return self.decided[key]


def _cheapest(
    now: np.ndarray, order: np.ndarray, cost: np.ndarray, at: _At, judge: _Judge, tries: int
) -> tuple[np.ndarray, list[int], _At]:
    """Gates that can go together, or one after another, maybe none; and those that cannot go then.

    Together goes the longest run from the cheapest on that takes but a part of the room left to the
    target: in small steps, what is removed early is worth little.
    `at` is of `now`; what is returned, of what is left.
    """
    target = judge.target

    def within(counts: np.ndarray) -> int:
        """The largest count whose closing the few data allow; 0 where there is none."""
        if not len(counts):
            return 0
        losses = judge.screen(_without(now, [order[:count] for count in counts]))
        most = at.held + _STRIDE * (target - at.held)
        return int(np.max(np.where(losses + at.over_screen <= most, counts, 0)))

    count = within(2 ** np.arange(len(order).bit_length()))
    for halved in range(count.bit_length() - 1):
        closed = _without(now, [order[: count >> halved]])
        if judge.foreseen(closed, at) <= _CLEAR * target:
            loss = judge.loss(closed)
            if loss <= target:
                return order[: count >> halved], [], judge.at(closed, loss)
    gone = order[:tries][cost[:tries] <= _NEARLY * target]
    missed: list[int] = []
    if len(gone) and judge.foreseen(_without(now, [gone]), at) > target:
        singly, gone = gone, gone[:0]
        for gate in singly:
            if judge.foreseen(_without(now, [np.append(gone, gate)]), at) <= target:
                gone = np.append(gone, gate)
            else:
                missed.append(int(gate))
    return _confirmed(now, gone, missed, at, judge)


def _confirmed(
    now: np.ndarray, gone: np.ndarray, missed: list[int], at: _At, judge: _Judge
) -> tuple[np.ndarray, list[int], _At]:
    """The longest beginning of `gone` that all the data let go, found by halving; see `_cheapest`."""
    known, low, high = at, 0, len(gone) + 1  # so many go; so many do not
    while low + 1 < high:
        # All at first: mostly the sieve is right.
        count = high - 1 if high > len(gone) else (low + high) // 2
        closed = _without(now, [gone[:count]])
        loss = judge.loss(closed)
        if loss <= judge.target:
            low, known = count, judge.at(closed, loss)
        else:
            high = count
    more = [int(gone[low])] if low < len(gone) else []
    return gone[:low], missed + more, known


def _without(now: np.ndarray, closings: list) -> np.ndarray:
    """bool `[K, U]`: `now` with each set of gates closed."""
    rows = np.broadcast_to(now, (len(closings), now.size)).copy()
    for row, places in zip(rows, closings, strict=True):
        row[places] = False
    return rows
