"""Tests err no more often than they say, and see what is there."""

import pytest

from circuitjax.audit.check import LEVEL
from circuitjax.benchmarks.error_rates import Rate, error_rates, rates_table
from circuitjax.zoo.planted.models import planted_models

_SKEWED = 0.02  # by which the bootstrap's coverage of skewed losses may miss its level


def test_a_rate_is_told_with_its_interval():
    rates = [
        Rate("a", "s", True, 100, 5),
        Rate("a", "t", False, 4, 4),
        Rate("b", "u", None, 7, 0),
    ]
    rows = rates_table(rates)
    assert [row[2] for row in rows] == ["error", "power", "not known"]
    assert rows[0][5:] == [0.05, "0.016 to 0.113"]
    assert rows[1][5:] == [1.0, "0.398 to 1.000"]


@pytest.mark.slow
def test_error_rates_are_not_above_their_level_and_true_circuits_are_seen():
    rates = error_rates([build(0) for build in planted_models()], trials=20)
    assert {rate.test for rate in rates} == {
        *("necessity", "equivalence", "independence", "minimality", "bound")
    }
    for rate in rates:
        slack = _SKEWED if rate.test == "bound" else 0.0
        if rate.null:
            assert rate.trials >= 200, rate
            assert rate.interval[0] <= LEVEL + slack, rate
        elif rate.null is False and rate.test != "independence":
            assert rate.rejected >= 0.8 * rate.trials, rate
