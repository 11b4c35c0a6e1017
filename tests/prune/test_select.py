"""The bisection against brute force over all k, on loss curves of every kind."""

import numpy as np
import pytest

from circuitjax.prune.select import bisect, first_grid, rank_nodes


class Curve:
    """loss(k) for k from 1 to N, and how often it was asked."""

    def __init__(self, losses: np.ndarray) -> None:
        self.losses, self.rounds, self.asked = losses, 0, []

    def __call__(self, ks: np.ndarray) -> np.ndarray:
        assert np.all(np.diff(ks) > 0)
        self.rounds += 1
        self.asked += list(ks)
        return self.losses[ks - 1]


def test_a_falling_curve_is_solved_exactly(rng):
    for _ in range(300):
        size = int(rng.integers(1, 5000))
        losses = np.sort(rng.random(size) ** rng.choice([0.2, 1, 8]))[::-1]
        target = float(rng.choice([rng.random(), losses[rng.integers(size)]]))
        curve = Curve(losses)
        found = bisect(curve, size, target, grid=int(rng.integers(3, 20)), max_rounds=40)
        meeting = np.flatnonzero(losses <= target)
        assert found.reached == bool(len(meeting))
        if len(meeting):
            assert found.k == meeting[0] + 1
            assert found.loss == losses[meeting[0]]
        assert len(set(curve.asked)) == len(curve.asked)  # no k twice


def test_the_number_of_probes_is_logarithmic(rng):
    for size in (100, 10_000, 1_000_000):
        for target in rng.random(10):
            curve = Curve(np.linspace(1, 0, size))
            bisect(curve, size, float(target))
            assert len(curve.asked) <= 12 + 4 * (3 + np.log(size) / np.log(4))
            assert curve.rounds <= 4 + np.log(size) / np.log(4)


def test_an_early_crossing_is_preferred_to_a_late_one(rng):
    # The loss meets the target on [first, last], then rises again and falls at the very end.
    for _ in range(200):
        size = int(rng.integers(500, 5000))
        first = int(rng.integers(2, 100))
        last = int(rng.integers(first * 5, size))
        ks = np.arange(1, size + 1)
        losses = np.where(ks < first, 0.6, np.where(ks <= last, 0.1, 0.6))
        losses[-1] = 0.01
        found = bisect(Curve(losses), size, 0.15)
        assert found.k == first


def test_whatever_the_curve_the_answer_is_consistent_with_what_was_seen(rng):
    for _ in range(300):
        size = int(rng.integers(1, 800))
        losses = rng.random(size)
        losses[rng.random(size) < 0.1] = np.nan
        found = bisect(Curve(losses), size, 0.05, extra=(int(rng.integers(0, 2 * size)),))
        seen = dict(found.curve)
        meeting = [k for k, loss in seen.items() if loss <= 0.05]
        assert found.reached == bool(meeting)
        if meeting:
            assert found.k == min(meeting)
        elif np.isfinite(list(seen.values())).any():
            assert found.loss == min(seen.values())
        assert found.loss == seen[found.k]
        for k, loss in seen.items():
            assert loss == (losses[k - 1] if np.isfinite(losses[k - 1]) else np.inf)
        # Every smaller k next to the answer was tried, and misses.
        assert not found.reached or found.k == 1 or seen[found.k - 1] > 0.05


def test_looking_upwards_changes_no_k_and_looks_at_less(rng):
    asked = [0, 0]
    for _ in range(200):
        size = int(rng.integers(1, 3000))
        losses = rng.random(size) ** rng.choice([0.3, 1, 3])
        start = tuple(rng.integers(1, size + 1, 3)) if rng.random() < 0.5 else ()
        curves = Curve(losses), Curve(losses)
        at_once = bisect(curves[0], size, 0.1, start=start, refine=1)
        upwards = bisect(curves[1], size, 0.1, start=start, refine=1, upwards=True)
        assert (upwards.k, upwards.reached) == (at_once.k, at_once.reached)
        assert set(curves[1].asked) <= set(curves[0].asked)
        asked = [total + len(curve.asked) for total, curve in zip(asked, curves, strict=True)]
    assert asked[1] < asked[0]


def test_a_close_search_ends_within_its_factor(rng):
    for _ in range(100):
        size = int(rng.integers(1, 5000))
        losses = np.sort(rng.random(size))[::-1]
        curve, exact = Curve(losses), bisect(Curve(losses), size, 0.3, max_rounds=40)
        found = bisect(curve, size, 0.3, close=1.1, refine=1)
        assert found.reached == exact.reached
        if found.reached:
            assert exact.k <= found.k <= max(1.1 * exact.k, exact.k + 1)


def test_nothing_meets_the_target():
    found = bisect(Curve(np.array([0.9, 0.5, 0.7])), 3, 0.2)
    assert (found.k, found.reached, found.loss) == (2, False, 0.5)
    found = bisect(Curve(np.full(5, np.nan)), 5, 0.2)
    assert not found.reached


def test_the_first_grid_is_dense_at_small_k():
    grid = first_grid(10_000, 12, (77, 0, 20_000))
    assert grid[0] == 1
    assert grid[-1] == 10_000
    assert 77 in grid
    assert {0, 20_000}.isdisjoint(grid)
    np.testing.assert_array_equal(first_grid(1, 12), [1])


@pytest.mark.parametrize("seed", range(3))
def test_ties_are_broken_by_attribution(seed):
    rng = np.random.default_rng(seed)
    scores = rng.choice([-1.0, 0.2, 1.0], 50)
    attribution = rng.normal(size=50)
    ranks = rank_nodes(scores, attribution)
    assert sorted(ranks) == list(range(50))
    expected = sorted(range(50), key=lambda i: (-scores[i], attribution[i]))
    np.testing.assert_array_equal(np.argsort(ranks), expected)
