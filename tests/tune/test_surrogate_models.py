"""Gaussian processes against the textbook formulas, and against functions they should learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm

from circuitjax.tune.surrogate_models import (
    fit_process,
    normal_scores,
    success_probability,
)


def covariance(process, a, b):
    """a Matern 3/2 + b (1 + x . x'), written out."""
    matern, linear = process.kernel.k1, process.kernel.k2
    distance = np.sqrt(3) * cdist(a / matern.k2.length_scale, b / matern.k2.length_scale)
    rough = matern.k1.constant_value * (1 + distance) * np.exp(-distance)
    return rough + linear.k1.constant_value * (1 + a @ b.T)


def test_posterior_is_the_textbook_one(rng):
    inputs, targets = rng.normal(size=(20, 3)), rng.normal(size=20)
    process = fit_process(inputs, targets).add(np.ones((1, 3)), np.array([0.5]))
    at = rng.normal(size=(7, 3))
    known, values = np.vstack([inputs, np.ones((1, 3))]), np.append(targets, 0.5)
    inner = covariance(process, known, known) + process.noise * np.eye(21)
    across = covariance(process, at, known)
    mean, deviation = process.predict(at)
    np.testing.assert_allclose(mean, across @ np.linalg.solve(inner, values), atol=1e-8)
    left = np.diag(covariance(process, at, at) - across @ np.linalg.solve(inner, across.T))
    np.testing.assert_allclose(deviation, np.sqrt(left), atol=1e-7)


def test_it_learns_a_smooth_function_and_what_does_not_matter(rng):
    inputs = rng.uniform(-2, 2, (80, 3))
    process = fit_process(inputs, np.sin(2 * inputs[:, 0]))
    at = rng.uniform(-1.5, 1.5, (200, 3))
    error = process.predict(at)[0] - np.sin(2 * at[:, 0])
    assert np.sqrt(np.mean(error**2)) < 0.15
    lengths = process.kernel.k1.k2.length_scale
    assert lengths[0] < lengths[1:].min() / 3


def test_it_finds_the_noise(rng):
    inputs = rng.uniform(-2, 2, (150, 2))
    process = fit_process(inputs, inputs[:, 0] + rng.normal(0, 0.5, 150))
    assert 0.15 < process.noise < 0.4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_or_equal_points_are_no_trouble(count):
    for inputs in (np.zeros((count, 4)), np.eye(4)[:count]):
        mean, deviation = fit_process(inputs, np.zeros(count)).predict(np.ones((2, 4)))
        np.testing.assert_allclose(mean, 0, atol=1e-9)
        assert np.all(deviation > 0)


def test_normal_scores_are_those_of_the_ranks(rng):
    values = np.exp(5 * rng.normal(size=30))
    ranks = np.argsort(np.argsort(values)) + 1
    np.testing.assert_allclose(normal_scores(values), norm.ppf(ranks / 31), atol=1e-6)


def test_normal_scores_of_equal_values_are_equal():
    np.testing.assert_allclose(normal_scores(np.full(5, 3.0)), 0, atol=1e-6)
    np.testing.assert_allclose(normal_scores(np.array([2.0])), 0, atol=1e-6)
    scores = normal_scores(np.array([1.0, 1.0, 1e9]))
    assert scores[0] == scores[1] < 0 < scores[2] < 3


def test_success_is_seen_where_it_is(rng):
    inputs = rng.uniform(-2, 2, (80, 2))
    process = fit_process(inputs, np.where(inputs[:, 0] > 0.5, -1.0, 1.0))
    at = np.array([[-1.0, 0.0], [1.5, 0.0]])
    good, bad = success_probability(process, at)
    assert good > 0.9
    assert bad < 0.1
