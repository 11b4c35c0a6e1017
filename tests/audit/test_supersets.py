"""Supersets: a circuit that stands by itself stands among others; one that hides from them does not."""

import dataclasses

import numpy as np
import pytest

from circuitjax.audit.supersets import supersets
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.evaluate import answers
from tests.audit.planted_audit import circuit_of, jammed_model, jammed_problem
from tests.prune.planted import PLANTED, planted_problem

LOOSE = 0.3


def look(problem, circuit):
    return supersets(
        problem, circuit, problem.test, problem.validation, fractions=(0.3, 0.7), sets=3, steps=6
    )


@pytest.fixture(scope="module")
def honest():
    return look(planted_problem(), circuit_of(PLANTED))


@pytest.fixture(scope="module")
def jammed():
    return look(jammed_problem(), circuit_of(PLANTED, jammed_model()))


def test_the_ends_of_the_curve_are_the_circuit_and_the_model(honest):
    problem, circuit = planted_problem(), circuit_of(PLANTED)
    whole = {site: np.ones_like(mask) for site, mask in circuit.mask.items()}
    found = answers(problem, problem.test, [circuit.mask, whole])
    ends = np.asarray(calibrate(found.differences).loss)
    assert honest.fractions == (0.0, 0.3, 0.7, 1.0)
    assert [len(losses) for losses in honest.random] == [1, 3, 3, 1]
    assert honest.random[0][0] == pytest.approx(ends[0], abs=1e-5)
    assert honest.random[-1][0] == pytest.approx(ends[1], abs=1e-5)


def test_the_planted_circuit_passes_and_one_that_needs_silence_fails(honest, jammed):
    assert honest.adversarial < LOOSE
    assert jammed.random[0][0] < 0.1  # alone both do the task
    assert jammed.adversarial > 0.6  # among others only one does


def test_the_adversary_is_at_least_as_bad_as_chance_finds(honest, jammed):
    for found in (honest, jammed):
        assert found.adversarial >= max(max(losses) for losses in found.random) - 1e-6
        flat = np.concatenate([m.ravel() for m in circuit_of(PLANTED).mask.values()])
        assert np.all(found.mask[flat])
        share = found.mask[~flat].mean()
        assert found.adversarial_fraction == pytest.approx(share)
    assert max(max(path) for path in jammed.search) > 0.6


def test_the_same_seed_gives_the_same_sets(honest):
    again = look(planted_problem(), circuit_of(PLANTED))
    assert again.random == honest.random
    np.testing.assert_array_equal(again.mask, honest.mask)
    assert dataclasses.asdict(again)["adversarial"] == honest.adversarial
