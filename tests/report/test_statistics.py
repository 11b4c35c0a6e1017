"""Statistics against values worked out by hand."""

import math

import numpy as np
import pytest

from circuitjax.audit.reruns import jaccard
from circuitjax.report.statistics import bootstrap_interval, geometric_mean


def test_the_geometric_mean():
    assert geometric_mean([4, 9]) == pytest.approx(6)
    assert geometric_mean([1, 10, 100]) == pytest.approx(10)
    assert math.isnan(geometric_mean([]))
    with pytest.raises(ValueError, match="not of 0"):
        geometric_mean([3, 0])
    with pytest.raises(ValueError, match="not of inf"):
        geometric_mean([math.inf])


def test_the_bootstrap_of_two_values():
    # A resample is twice the one (1/4), one of each (1/2), or twice the other (1/4).
    assert bootstrap_interval([2, 8], level=0.95) == pytest.approx((2, 8))
    assert bootstrap_interval([2, 8], level=0.4) == pytest.approx((4, 4))


def test_the_bootstrap_of_many_values_is_the_normal_interval(rng):
    logs = rng.normal(3, 1, 400)
    logs = (logs - logs.mean()) / logs.std()
    low, high = bootstrap_interval(np.exp(logs), samples=5_000)
    assert np.log([low, high]) * 20 == pytest.approx([-1.96, 1.96], abs=0.1)


def test_the_bootstrap_is_seeded_and_has_its_limits():
    values = [3.0, 5.0, 70.0, 11.0]
    assert bootstrap_interval(values) == bootstrap_interval(values[::-1])
    assert bootstrap_interval(values, samples=50) != bootstrap_interval(values, samples=50, seed=1)
    assert all(map(math.isnan, bootstrap_interval([3.0])))
    with pytest.raises(ValueError, match="level is 1"):
        bootstrap_interval(values, level=1)
    with pytest.raises(ValueError, match="not of -1"):
        bootstrap_interval([1.0, -1.0])


def test_the_overlap_of_sets():
    assert jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert jaccard({1}, {2}) == 0
    assert jaccard(set(), set()) == 1
    assert jaccard({("a", "b")}, {("a", "b"), ("b", "c"), ("c", "d")}) == pytest.approx(1 / 3)
