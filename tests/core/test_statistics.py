"""Error bars hold what they should as often as they say; closed forms and scipy are the reference."""

import itertools

import numpy as np
import pytest
from scipy import stats

from circuitjax.core.statistics import (
    adjusted,
    clopper_pearson,
    mean_bound,
    mean_interval,
    resampled_means,
    sequential_p,
    sign_p,
)

ALPHA = 0.05


def above(hits, count, share):
    """Whether so many hits are more than a share explains, at one in a thousand."""
    return hits > stats.binom.ppf(0.999, count, share)


def test_a_shares_interval_is_the_exact_one():
    for count in (1, 7, 50):
        for hits in range(count + 1):
            exact = stats.binomtest(hits, count).proportion_ci(0.9, method="exact")
            assert clopper_pearson(hits, count, 0.9) == pytest.approx((exact.low, exact.high))
    # None wrong of n: at least (tail)^(1/n) are right.
    assert clopper_pearson(1000, 1000, 0.9)[0] == pytest.approx(0.05 ** (1 / 1000))


def test_adjusted_values_are_those_of_scipy(rng):
    for count in (1, 2, 9, 40):
        values = rng.random(count) ** 3
        assert adjusted(values) == pytest.approx(stats.false_discovery_control(values))
    assert adjusted([0.01, 0.01, 0.5]) == pytest.approx([0.015, 0.015, 0.5])
    assert adjusted([]) == []


def test_false_discoveries_are_kept_to_their_rate(rng):
    """Of 20 nulls and 10 true effects; the rate is the mean share of false among rejected."""
    shares = []
    for _ in range(2000):
        values = np.concatenate([rng.random(20), stats.norm.sf(rng.normal(3, 1, 10))])
        rejected = np.array(adjusted(values)) <= ALPHA
        shares.append(rejected[:20].sum() / max(rejected.sum(), 1))
    assert np.mean(shares) < ALPHA * 20 / 30 + 3 * np.std(shares) / np.sqrt(len(shares))


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_the_sign_test_is_the_binomial_one_and_keeps_its_level(tolerance):
    if not tolerance:
        for count, wins in itertools.product((1, 10, 31), (0, 1, 5, 10)):
            signs = np.where(np.arange(count) < wins, 1, -1)
            exact = stats.binomtest(min(wins, count), count).pvalue
            assert sign_p(signs) == pytest.approx(exact)
    count = 40
    for share in (0.5, 0.5 + tolerance):
        values = [sign_p(np.where(np.arange(count) < wins, 1, -1), tolerance) for wins in range(41)]
        chances = stats.binom.pmf(np.arange(41), count, share)
        assert chances[np.array(values) <= ALPHA].sum() <= ALPHA
    assert sign_p(np.zeros(30), tolerance) == 1.0
    assert sign_p(np.ones(100), tolerance) < 1e-4


def test_ties_make_the_sign_test_conservative(rng):
    signs = rng.choice([-1, 0, 1], p=[0.2, 0.6, 0.2], size=(3000, 50))
    rejected = sum(sign_p(row) <= ALPHA for row in signs)
    assert not above(rejected, 3000, ALPHA)


def batches(values, size):
    for start in range(0, len(values), size):
        yield values[start : start + size]


def by_hand(values, observed, h, n):
    """The definition, draw by draw."""
    hits = 0
    for index, value in enumerate(values[:n], 1):
        hits += value >= observed
        if hits == h:
            return h / index
    return (hits + 1) / (min(n, len(values)) + 1)


def test_a_sequential_p_is_its_definition_whatever_the_batches(rng):
    for observed in (-3.0, 0.0, 1.0, 2.0, 9.0):
        values = rng.normal(size=400)
        found = {
            sequential_p(batches(values, s), observed, exceedances=8, most=300) for s in (1, 7, 400)
        }
        (one,) = found
        assert one.p == by_hand(values, observed, 8, 300)
        assert one.low <= one.p <= one.high or one.exceeded < 8
        assert one.draws <= 300
    # What is as large as all draws has the least p there is.
    assert sequential_p([np.zeros(99)], 1.0, most=99).p == 0.01
    assert sequential_p([np.zeros(99)], 0.0, most=99).p == 1.0  # ties count against it


def test_no_more_is_drawn_than_needed():
    taken = []

    def draws():
        for index in itertools.count():
            taken.append(index)
            yield np.array([float(index % 2)])

    sequential_p(draws(), 1.0, exceedances=5, most=1000)
    assert len(taken) == 10


def test_a_sequential_p_is_valid_and_its_interval_covers():
    """Exactly, by the distribution of where it stops, for every true share."""
    h, n = 4, 40
    for share in np.linspace(0.01, 0.99, 25):
        covered = 0.0
        outcomes = [(h, count, stats.nbinom.pmf(count - h, h, share)) for count in range(h, n + 1)]
        outcomes += [(hits, n, stats.binom.pmf(hits, n, share)) for hits in range(h)]
        assert sum(chance for *_, chance in outcomes) == pytest.approx(1)
        for hits, count, chance in outcomes:
            values = np.zeros(count)
            if hits:  # the last draw is a hit where it stops before the end
                values[[*range(hits - 1), count - 1]] = 1
            found = sequential_p([values], 1.0, exceedances=h, most=n, level=0.9)
            assert (found.exceeded, found.draws) == (hits, count)
            covered += chance * (found.low <= share <= found.high)
        assert covered >= 0.9
    # Under the null what is tested is one more draw: the share it exceeds is uniform.
    shares = (np.arange(4000) + 0.5) / 4000
    for level in (0.05, 0.1, 0.3):
        rejected = 0.0
        for count in range(h, n + 1):
            rejected += (h / count <= level) * stats.nbinom.pmf(count - h, h, shares).mean()
        for hits in range(h):
            rejected += ((hits + 1) / (n + 1) <= level) * stats.binom.pmf(hits, n, shares).mean()
        assert rejected <= level + 1e-6


def test_resampled_means_are_means_of_drawn_values(rng):
    values = rng.normal(size=(3, 20))
    found = resampled_means(values, 500, seed=4)
    drawn = np.random.default_rng(4).integers(20, size=(500, 20))
    np.testing.assert_allclose(found, values[:, drawn].mean(axis=-1))
    assert np.std(found[0]) == pytest.approx(np.std(values[0]) / np.sqrt(20), rel=0.15)


def test_rows_are_each_by_itself_and_a_constant_has_no_spread(rng):
    values = np.stack([rng.exponential(size=64), np.full(64, 0.3), rng.normal(size=64)])
    low, high = mean_interval(values)
    for row in range(3):
        assert mean_interval(values[row]) == pytest.approx((low[row], high[row]))
    assert (low[1], high[1]) == pytest.approx((0.3, 0.3))
    assert np.all(low <= values.mean(axis=1))
    assert np.all(values.mean(axis=1) <= high)
    assert np.isnan(mean_interval(values[:, :1])).all()
    assert mean_bound(values[0], 0.975) == pytest.approx(high[0])


def test_a_bootstrap_interval_is_that_of_scipy(rng):
    values = rng.exponential(size=80)
    ours = mean_interval(values, samples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


@pytest.mark.parametrize(("draw", "mean"), [("exponential", 1.0), ("normal", 0.0)])
def test_intervals_and_bounds_cover_as_often_as_they_say(draw, mean):
    """400 samples of 128: coverage to within what skewness leaves of it, and three standard errors."""
    rng = np.random.default_rng(3)
    values = getattr(rng, draw)(size=(400, 128))
    low, high = mean_interval(values, samples=800)
    assert np.mean((low <= mean) & (mean <= high)) > 0.95 - 0.01 - 3 * 0.011
    assert np.mean(mean_bound(values, 0.95, samples=800) < mean) < 0.05 + 0.01 + 3 * 0.011


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval(np.ones(3), level=1.0), r"level is 1.0; it must be in \(0, 1\)"),
        (lambda: mean_bound(np.ones(3), 0.0), r"confidence is 0.0; it must be in \(0, 1\)"),
        (lambda: clopper_pearson(3, 2), "3 of 2 is no share"),
        (lambda: clopper_pearson(0, 0), "0 of 0 is no share"),
        (lambda: sequential_p([], 0.0), "there is no draw"),
        (lambda: sequential_p([np.ones(2)], 0.0, most=0), "most is 0; it must be at least 1"),
        (lambda: sequential_p([np.ones(2)], 0.0, exceedances=0), "exceedances is 0"),
        (lambda: sign_p(np.ones(0)), "there is no sign"),
        (lambda: sign_p(np.ones(3), 0.5), "tolerance is 0.5"),
        (lambda: adjusted([0.1, 1.2]), "each must be in"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
