"""Supersets: a circuit that stands by itself stands among others; one that hides from them does not."""

import dataclasses

import numpy as np
import pytest

from circuitjax.audit.measure import measure_of
from circuitjax.audit.supersets import supersets
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.evaluate import answers
from tests.audit.planted_audit import circuit_of, jammed_model, jammed_problem, weights_of
from tests.prune.planted import PLANTED, SEARCH, planted_model, planted_problem

LOOSE = 0.3


def look(problem, circuit):
    measure = measure_of(problem, SEARCH, circuit)
    sets = (problem.test, problem.validation)
    return supersets(problem, measure, circuit, *sets, fractions=(0.3, 0.7), sets=3, steps=6)


@pytest.fixture(scope="module")
def honest():
    return look(planted_problem(), circuit_of(PLANTED))


@pytest.fixture(scope="module")
def jammed():
    return look(jammed_problem(), circuit_of(PLANTED, jammed_model()))


def test_the_ends_of_the_curve_are_the_circuit_and_the_model(honest):
    problem, (model, gates) = planted_problem(), circuit_of(PLANTED).view(planted_model())
    found = answers(model, problem.batches, problem.test, [gates, np.ones_like(gates)])
    ends = np.asarray(calibrate(found.odds).loss)
    assert honest.fractions == (0.0, 0.3, 0.7, 1.0)
    assert [len(losses) for losses in honest.random] == [1, 3, 3, 1]
    assert honest.random[0][0] == pytest.approx(ends[0], abs=1e-5)
    assert honest.random[-1][0] == pytest.approx(ends[1], abs=1e-5)


def test_the_planted_circuit_passes_and_one_that_needs_silence_fails(honest, jammed):
    assert honest.adversarial < LOOSE
    assert jammed.random[0][0] < 0.1  # alone both do the task
    assert jammed.adversarial > 0.6  # among others only one does


def test_the_adversary_is_at_least_as_bad_as_chance_finds(honest, jammed):
    gates = circuit_of(PLANTED).view(planted_model()).gates
    for found in (honest, jammed):
        assert found.adversarial >= max(max(losses) for losses in found.random) - 1e-6
        assert np.all(found.gates[gates])
        assert found.adversarial_fraction == pytest.approx(found.gates[~gates].mean())
    assert max(max(path) for path in jammed.search) > 0.6


def test_the_same_seed_gives_the_same_sets(honest):
    again = look(planted_problem(), circuit_of(PLANTED))
    assert again.random == honest.random
    np.testing.assert_array_equal(again.gates, honest.gates)
    assert dataclasses.asdict(again.figures()) == dataclasses.asdict(honest.figures())


def test_supersets_of_weights_begin_with_the_circuit_and_end_with_the_model(honest):
    found = look(planted_problem(), weights_of(circuit_of(PLANTED)))
    assert found.random[0][0] == pytest.approx(honest.random[0][0], abs=1e-5)
    assert found.random[-1][0] == pytest.approx(honest.random[-1][0], abs=1e-5)
    assert found.adversarial < LOOSE
