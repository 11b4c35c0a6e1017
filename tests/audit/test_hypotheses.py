"""Tests of a circuit: laws of each statistic, and nulls that hold by construction."""

import numpy as np
import pytest
from scipy import stats

from circuitjax.audit.evidence import among_all, matched_random_gates, necessity
from circuitjax.audit.hypotheses import correct, equivalence, independence
from circuitjax.audit.record import Hypothesis
from circuitjax.core.statistics import adjusted
from tests.audit.planted_audit import circuit_of, whole_mask
from tests.prune.planted import PLANTED, planted_problem


def hsic_by_hand(x, y):
    """The normalised criterion with loops for the kernel and matrices for the centring."""

    def kernel(values):
        count = len(values)
        apart = [abs(values[i] - values[j]) for i in range(count) for j in range(i + 1, count)]
        width = np.median(apart)
        found = np.empty((count, count))
        for i in range(count):
            for j in range(count):
                found[i, j] = np.exp(-((values[i] - values[j]) ** 2) / (2 * width**2))
        centre = np.eye(count) - 1 / count
        return centre @ found @ centre

    one, other = kernel(x), kernel(y)
    return np.trace(one @ other) / np.sqrt(np.trace(one @ one) * np.trace(other @ other))


def test_independence_is_the_criterion_and_finds_a_relation_without_correlation(rng):
    x = rng.normal(size=60)
    found = independence(x, x**2 + 0.1 * rng.normal(size=60), 1)
    assert abs(np.corrcoef(x, x**2)[0, 1]) < 0.4
    assert found.p < 0.01
    y = rng.normal(size=60)
    assert independence(x, y, 1).statistic == pytest.approx(hsic_by_hand(x, y))
    # Whatever monotone or not, a scale of either changes nothing.
    assert independence(3 * x, 0.1 * y + 5, 1).statistic == pytest.approx(hsic_by_hand(x, y))
    assert independence(x, x, 1).statistic == pytest.approx(1)


def test_a_constant_is_independent_of_everything(rng):
    for rest in (np.zeros(40), np.full(40, 0.7)):
        found = independence(rng.normal(size=40), rest, 2)
        assert (found.p, found.statistic) == (1.0, 0.0)


def test_what_favours_one_completion_after_both_prompts_tells_nothing(rng):
    """A pair's common bias raises the odds of one prompt and lowers those of the other."""
    bias = np.repeat(rng.normal(size=50), 2) * np.tile([1.0, -1.0], 50)
    model = np.repeat(rng.normal(size=50), 2) + bias
    assert independence(model, bias, 2).p == 1.0


def test_independence_keeps_its_level(rng):
    values = [
        independence(rng.normal(size=32), rng.exponential(size=32), 1, permutations=99, seed=n).p
        for n in range(300)
    ]
    assert np.sum(np.array(values) <= 0.05) <= stats.binom.ppf(0.999, 300, 0.05)


def test_equivalence_counts_items_and_is_symmetric(rng):
    model = rng.normal(size=80)
    assert equivalence(model, model, 2).p == 1.0
    better = equivalence(model, model + 0.1, 2)
    worse = equivalence(model + 0.1, model, 2)
    assert better.statistic == 1.0
    assert worse.statistic == 0.0
    assert better.p == worse.p < 1e-3
    # Of a pair the mean loss decides: better after one prompt and much worse after the other is worse.
    both = model + np.tile([0.1, -2.0], 40)
    assert equivalence(model, both, 2).statistic == 0.0


def test_tests_are_corrected_for_their_number():
    tests = [Hypothesis(str(p), "", 0.0, p, None, None, 1, 0) for p in (0.04, 0.01, 0.5)]
    found = correct(tests)
    assert [test.adjusted for test in found] == adjusted([0.04, 0.01, 0.5])
    assert [test.p for test in found] == [0.04, 0.01, 0.5]
    assert correct([]) == []


def test_the_planted_circuit_is_necessary_and_the_result_knows_no_batches():
    problem = planted_problem()
    view = among_all(problem, circuit_of(PLANTED))
    found = necessity(problem, view, most=120, exceedances=30)
    assert necessity(problem, view, most=120, exceedances=30, batch=7) == found
    # Sets that hold one of the seven do the same harm: as many as the definition counts.
    assert found.p == pytest.approx((found.exceeded + 1) / (found.draws + 1))
    assert found.low <= found.exceeded / found.draws <= found.high


def test_a_random_set_is_as_necessary_as_random_sets_are():
    """Under the null the p-value is uniform: it is at most 0.3 in at most 0.3 of the cases."""
    problem = planted_problem()
    model, gates = among_all(problem, circuit_of(PLANTED))
    values = []
    for number, chosen in enumerate(matched_random_gates(model, gates, 40, seed=5)):
        view = among_all(problem, circuit_of(PLANTED))._replace(gates=chosen)
        values.append(necessity(problem, view, most=19, exceedances=6, seed=100 + number).p)
    assert np.sum(np.array(values) <= 0.3) <= stats.binom.ppf(0.999, 40, 0.3)


def test_the_whole_model_is_no_better_than_itself():
    problem = planted_problem()
    view = among_all(problem, circuit_of(whole_mask()))
    assert necessity(problem, view, most=20).p == 1.0  # there is one set of that shape
