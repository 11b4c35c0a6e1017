"""Backward elimination: closes open gates, the least needed first, and so ranks them.

Scores after training say which gates are open, but hardly in which order the open ones matter: some
sit on dead paths, some stand in for each other. Here the rise of the loss by closing each gate is
estimated, a share of the cheapest (for the edges that go with each) is closed, and all is estimated
anew. A round that costs more than expected is taken back and tried with a smaller share. The last gates
go one at a time; there the estimate only proposes a few and the loss decides, for a derivative knows
little of them.

Training with hard gates can also end short of the target: where a circuit is a chain, the gates of
two of its links may close within a few steps, and then neither has a gradient to open by. Elimination
then starts from as many gates, by their scores, as meet the target.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from circuitjax.prune.select import bisect

__all__ = ["BEYOND", "PATIENCE", "Order", "Trial", "eliminate", "enough", "open_first"]

_SHARE = 0.07  # of the open gates, closed in one round
_FIRST_SHARE = 0.25  # while the loss is below a third of the target: most gates are far from needed
_STEP = 0.02  # nats that a round may add; below a third of the target it may add more
_STEP_SHARE = 0.13  # of the target: likewise, where that is more
_ROOM = 0.8  # times the target: the loss to start elimination from, if a few more gates give it
_MORE = 2  # times as many gates as meet the target: no more are opened for the sake of room
_STEPS = (1.0, 1.1, 1.3, 1.6, 2.0)  # of the gates that training left open: where enough are sought
_LAST = 32  # so few gates are closed one at a time
_TRIED = 8  # of these, the cheapest that are really closed, to see which costs least
PATIENCE = 32  # gates in a row that prove to be needed, after which the rest is taken to be
_TOLD = 0.8  # of the gates that were last told of
BEYOND = 1.6  # times the target: where to stop, so that the cut has room on both sides


class Trial(Protocol):
    """A loss of open gates, bool `[E]`."""

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The open gates that can matter: others are closed for nothing."""

    def loss(self, opened: np.ndarray) -> float:
        """Loss in nats."""

    def rises(self, opened: np.ndarray) -> np.ndarray:
        """`[E]`, estimated rise of the loss by closing each gate, in nats."""

    def saves(self, opened: np.ndarray) -> np.ndarray:
        """`[E]`, how many edges closing each gate saves."""


class Order(NamedTuple):
    """What backward elimination finds.

    Attributes:
      gates: int `[sum(opened)]`, numbers of the open gates, the most needed first. What was left at the
        end comes first, in the order of its own estimate.
      met: so many were open when the loss was last within the target; all of them if it never was.
    """

    gates: np.ndarray
    met: int


def enough(trial: Trial, ranks: np.ndarray, opened: np.ndarray, target: float) -> np.ndarray:
    """The open gates, if these meet the target; else the fewest first ones of a ranking that do.

    Where up to twice as many gates meet it with some room, these: gates that just meet the target on
    these data may miss it on others, and elimination could close none of them.

    Args:
      trial: what closing costs.
      ranks: `[E]`, 0 is the most important gate.
      opened: bool `[E]`, the gates open after training.
      target: nats.

    Returns:
      bool `[E]`; `opened` also where nothing meets the target.
    """
    loss = trial.loss(opened)
    if loss <= _ROOM * target:
        return opened
    seen: dict[int, float] = {}

    def losses(ks: np.ndarray) -> np.ndarray:
        seen.update((int(k), trial.loss(ranks < k)) for k in ks if int(k) not in seen)
        return np.array([seen[int(k)] for k in ks])

    size = int(opened.sum())
    start = tuple(round(size * factor) for factor in _STEPS)  # first what is near, and small
    options: dict[str, Any] = {"refine": 1, "start": start, "upwards": True}
    plain = opened
    if loss > target:
        found = bisect(losses, len(ranks), target, **options)
        if not found.reached:
            return opened
        plain = ranks < found.k
    most = min(len(ranks), max(_MORE * int(plain.sum()), int(plain.sum()) + _LAST))
    roomy = bisect(losses, most, _ROOM * target, **options)
    return np.asarray(ranks < roomy.k if roomy.reached else plain)


def eliminate(
    trial: Trial,
    opened: np.ndarray,
    target: float,
    tell: Callable[[str], None] = lambda line: None,
    *,
    beyond: float = BEYOND,
    patience: int = PATIENCE,
) -> Order:
    """Closes open gates, the least needed first.

    Args:
      trial: what closing costs.
      opened: bool `[E]` to start from.
      target: nats, that circuits are to meet.
      tell: told of the progress, now and then.
      beyond: times the target: the loss that it goes on to.
      patience: gates in a row that prove to be needed, after which it stops.

    Returns:
      The order; if the loss is above the end at the start, it is the estimate's.
    """
    now = trial.alive(opened)
    closed = [np.flatnonzero(opened & ~now)]
    share, loss, end = _FIRST_SHARE, trial.loss(now), beyond * target
    step = max(_STEP, _STEP_SHARE * target)
    estimate, needed, failures = _prices(trial, now), np.zeros(len(now), bool), 0
    told, met = np.inf, int(now.sum())
    while loss <= end and now.sum() > 1 and failures < patience:
        places = np.flatnonzero(now & ~needed)
        if not len(places):
            break
        if now.sum() <= _TOLD * told:
            told = float(now.sum())
            tell(f"elimination: {told:.0f} gates open, {loss:.3f} nats on training items")
        # A gate whose closing is expected to help goes first.
        cheapest = places[np.argsort(estimate[places], kind="stable")]
        last = now.sum() <= _LAST
        count = 1 if last else max(1, int(share * len(places)))
        if last:
            tried = [_without(trial, now, cheapest[i : i + 1]) for i in range(len(places))[:_TRIED]]
            losses = np.array([after for _, after in tried])
            needed[cheapest[: len(tried)][losses > end]] = True
            saved = trial.saves(now)[cheapest[: len(tried)]]
            best = int(np.argmin(_price(losses - loss, saved)))
            cheapest, (fewer, after) = cheapest[best : best + 1], tried[best]
        else:
            cheapest = cheapest[:count]
            fewer, after = _without(trial, now, cheapest)
        if count > 1 and after > max(loss + step, target / 3):
            share /= 2
            continue
        if after > end:
            # Where a loss is saturated, a derivative may hold what is vital to be worth nothing.
            needed[cheapest] = True
            failures += 1
            continue
        dead = np.setdiff1d(np.flatnonzero(now & ~fewer), cheapest)
        closed += [dead, cheapest]
        most = _FIRST_SHARE if after <= target / 3 else _SHARE
        now, loss, share, failures = fewer, after, min(most, 1.3 * share), 0
        met = int(now.sum()) if loss <= target else met
        estimate = _prices(trial, now)
    places = np.flatnonzero(now)
    left = places[np.argsort(estimate[places], kind="stable")]
    return Order(np.concatenate([*closed, left])[::-1], met)


def _prices(trial: Trial, opened: np.ndarray) -> np.ndarray:
    """`[E]`, the estimated rise for each edge that closing a gate saves."""
    return _price(trial.rises(opened), trial.saves(opened))


def _price(rises: np.ndarray, saved: np.ndarray) -> np.ndarray:
    """Nats for an edge; what helps by leaving comes first, by what it helps."""
    return np.where(rises > 0, rises / np.maximum(saved, 1), rises)


def _without(trial: Trial, opened: np.ndarray, closed: np.ndarray) -> tuple[np.ndarray, float]:
    """What is alive once some gates close, and its loss."""
    fewer = opened.copy()
    fewer[closed] = False
    fewer = trial.alive(fewer)
    return fewer, trial.loss(fewer)


def open_first(ranks: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Ranks `[E]` that begin with `order` and go on as `ranks` does."""
    rest = np.argsort(ranks, kind="stable")
    rest = rest[~np.isin(rest, order)]
    found = np.empty(len(ranks), np.int32)
    found[np.concatenate([order, rest])] = np.arange(len(ranks), dtype=np.int32)
    return found
