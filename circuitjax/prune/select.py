"""Selection: the smallest k whose loss meets the target, for any ranking and any loss of k.

The loss as a function of k is far from monotone: it falls while useful nodes are added and may rise
again among nodes that are tied in the ranking. A plain bisection over all nodes can therefore land
on a crossing hundreds of times too large. Each round here evaluates a whole grid of k at once, the
first one geometric (dense at small k), and the bracket narrows around the *smallest* crossing seen:
between it and the largest smaller k that was tried. Every point is kept, for the record and the plot.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["Selection", "bisect", "first_grid", "neighbours", "rank_nodes"]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
      k: the smallest number of nodes found to meet the target; where none does, the best k seen.
      reached: whether the target is met.
      loss: the loss at k, in nats.
      curve: every (k, loss) evaluated, by k.
    """

    k: int
    reached: bool
    loss: float
    curve: tuple[tuple[int, float], ...]


def rank_nodes(scores: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Orders nodes by score, ties by attribution.

    Parameters pile up at the clamp, and any order among equals would be an artefact of the layout.

    Args:
      scores: `[N]`, larger is more important.
      attribution: `[N]`, derivative of the task loss by the gate: the more negative, the better.

    Returns:
      `[N]` ranks: the node with rank r is among the first k when r < k.
    """
    order = np.lexsort((attribution, -scores))
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks


def first_grid(size: int, count: int, extra: tuple[int, ...] = ()) -> np.ndarray:
    """About `count` values of k from 1 to `size`, geometric, plus `extra`."""
    grid = np.unique(np.rint(np.geomspace(1, max(size, 1), count)).astype(int))
    return np.unique(np.concatenate([grid, [k for k in extra if 1 <= k <= size]])).astype(int)


def neighbours(k: int, size: int) -> tuple[int, ...]:
    """Values of k around one, within 1 to `size`: where to start when it comes from fewer data."""
    factors = (0.9, 1.0, 1.12, 1.3)
    return tuple(sorted({min(max(round(k * factor), 1), size) for factor in factors}))


def bisect(
    loss_at: Callable[[np.ndarray], np.ndarray],
    size: int,
    target: float,
    *,
    grid: int = 12,
    refine: int = 4,
    extra: tuple[int, ...] = (),
    start: Sequence[int] = (),
    upwards: bool = False,
    close: float = 1.0,
    max_rounds: int = 16,
) -> Selection:
    """Finds the smallest crossing.

    Args:
      loss_at: k `[K]` (ascending, distinct) -> losses `[K]` in nats; NaN counts as a miss.
      size: N, the largest k.
      target: loss to meet, in nats.
      grid: K of the first round.
      refine: K of the following ones, within the bracket.
      extra: values of k to look at in the first round besides the grid, such as the k after training.
      start: where the crossing is expected: a first round that replaces the grid, which is looked at
        only if none of these meets the target.
      upwards: look at the first round one k after another, from the smallest on, and at none above the
        first that meets the target. It changes no k: what lies above is only for the record.
      close: stop once neighbouring points on both sides of the crossing differ by no more than this
        factor.
      max_rounds: bound on the rounds; the bracket shrinks by about `refine` times in each.

    Returns:
      The selection. With `close` at 1 it is the smallest k exactly wherever the loss crosses the target
      once between neighbouring points of the curve.
    """
    seen: dict[int, float] = {}

    def look(ks: np.ndarray) -> None:
        ks = np.array([k for k in ks if k not in seen], int)
        if len(ks):
            for k, loss in zip(ks, loss_at(ks), strict=True):
                seen[int(k)] = float(loss) if np.isfinite(loss) else float("inf")

    def met() -> bool:
        return any(loss <= target for loss in seen.values())

    first = np.unique([k for k in start if 1 <= k <= size]).astype(int)
    for ks in (first, first_grid(size, grid, extra)):
        for some in ks[:, None] if upwards else [ks]:
            if not met():
                look(some)
    for _ in range(max_rounds):
        meeting = [k for k, loss in seen.items() if loss <= target]
        if not meeting:
            break
        high = min(meeting)
        low = max((k for k in seen if k < high), default=0)
        if high - low <= 1 or high <= close * low:
            break
        inside = np.rint(np.geomspace(max(low, 0.5), high, refine + 2)[1:-1]).astype(int)
        inside = np.unique(np.clip(inside, low + 1, high - 1))
        if high - low - 1 <= refine:
            inside = np.arange(low + 1, high)
        look(inside)
    curve = tuple(sorted(seen.items()))
    meeting = [k for k, loss in curve if loss <= target]
    k = min(meeting) if meeting else min(curve, key=lambda point: (point[1], point[0]))[0]
    return Selection(k=k, reached=bool(meeting), loss=seen[k], curve=curve)
