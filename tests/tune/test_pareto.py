"""The front against every pair of points, expected improvement against Monte Carlo."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from circuitjax.tune.pareto import log_expected_improvement, pareto_front


def undominated(costs, outputs):
    """Points that no other beats on one count and matches on the other; of twins the first."""
    kept = []
    for i in range(len(costs)):
        rivals = [j for j in range(len(costs)) if j != i]
        beaten = any(
            costs[j] <= costs[i]
            and outputs[j] <= outputs[i]
            and (costs[j] < costs[i] or outputs[j] < outputs[i] or j < i)
            for j in rivals
        )
        if not beaten:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_front_against_every_pair(seed):
    rng = np.random.default_rng(seed)
    # Few distinct values, so that ties of every kind occur.
    costs, outputs = rng.integers(1, 8, 25).astype(float), rng.integers(0, 8, 25).astype(float)
    front = pareto_front(costs, outputs)
    assert sorted(front) == undominated(costs, outputs)
    assert np.all(np.diff(costs[front]) > 0)
    assert np.all(np.diff(outputs[front]) < 0)


@pytest.mark.parametrize("seed", range(20))
def test_front_with_a_tolerance(seed):
    rng = np.random.default_rng(seed)
    costs, outputs = np.exp(rng.normal(size=60)), rng.normal(size=60)
    front = pareto_front(costs, outputs, 0.1)
    assert np.all(costs[front[1:]] > 1.1 * costs[front[:-1]])
    assert front[-1] == np.argmin(outputs)
    for i in range(60):  # a member is as good and at most a tenth dearer
        assert np.any(
            (outputs[front] <= outputs[i]) & (costs[front] <= 1.1 * costs[i] * (1 + 1e-12))
        )


def test_equal_costs_leave_the_best_alone(rng):
    outputs = rng.normal(size=40)
    costs = 100 * rng.uniform(1.0, 1.09, 40)
    assert list(pareto_front(costs, outputs, 0.1)) == [np.argmin(outputs)]


def test_no_point_has_no_front():
    assert pareto_front(np.array([]), np.array([])).size == 0


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.5, 0.7), (-2.0, 0.1), (0.3, 3.0)])
def test_expected_improvement_against_monte_carlo(mean, deviation, rng):
    draws = np.maximum(0.2 - rng.normal(mean, deviation, 1_000_000), 0)
    found = np.exp(log_expected_improvement(mean, deviation, 0.2))
    assert found == pytest.approx(draws.mean(), abs=5 * draws.std() / 1000 + 1e-12)


@pytest.mark.parametrize("u", [-0.999, -1.001, -3.0, -8.0, -30.0])
def test_expected_improvement_in_the_tail_against_an_integral(u):
    # E[max(u - x, 0)] = phi(u) * integral over t > 0 of t exp(u t - t^2 / 2): nothing cancels in it.
    integral = quad(lambda t: t * np.exp(u * t - t * t / 2), 0, 40 / abs(u), epsabs=0)[0]
    expected = norm.logpdf(u) + np.log(integral)
    assert float(log_expected_improvement(0.0, 1.0, u)) == pytest.approx(expected, rel=1e-7)


def test_hopeless_candidates_keep_their_order():
    means = np.array([1.0, 10.0, 100.0, 999.0, 1001.0, 1e5])
    values = log_expected_improvement(means, np.ones(6), np.zeros(6))
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values) < 0)
