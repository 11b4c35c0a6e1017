"""Other replacements, frozen norms, templates; patterns and activations against the model's."""

import dataclasses

import numpy as np
import pytest

from circuitjax.audit.agreement import agreement
from circuitjax.audit.evidence import correlations
from circuitjax.audit.replacement import by_template, donors, sufficiency
from circuitjax.model.sites import shapes
from circuitjax.prune.evaluate import answers
from tests.audit.planted_audit import circuit_of, mask_of
from tests.prune.planted import CONFIG, PLANTED, planted_problem


def test_donors_are_others_of_equal_length():
    last = np.array([3, 5, 3, 3, 7, 5, 3, 5])
    for seed in range(20):
        chosen = donors(last, np.random.default_rng(seed))
        assert np.all(chosen != np.arange(8))
        shared = np.arange(8) != 4
        np.testing.assert_array_equal(last[chosen[shared]], last[shared])
        assert len(set(chosen[shared])) == 7
    assert donors(np.array([3]), np.random.default_rng(0)).tolist() == [0]


@pytest.fixture(scope="module")
def found():
    problem = planted_problem()
    means = {s: np.zeros(shape, np.float32) for s, shape in shapes(CONFIG).items()}
    return {
        name: sufficiency(problem, circuit, problem.test, means=means)
        for name, circuit in {
            "planted": circuit_of(PLANTED),
            "whole": dataclasses.replace(
                circuit_of(PLANTED),
                mask={s: np.ones(shape, bool) for s, shape in shapes(CONFIG).items()},
            ),
            "half": circuit_of([*PLANTED[:3], *PLANTED[4:]]),
        }.items()
    }


def test_the_whole_model_has_nothing_to_replace(found):
    problem = planted_problem()
    whole = {s: np.ones(shape) for s, shape in shapes(CONFIG).items()}
    values = np.asarray(answers(problem, problem.test, [whole]).differences[0], np.float64)
    loss = np.mean(np.logaddexp(0, np.array([-1.0, 1.0]) * values))
    for norms in found["whole"].values():
        for losses in norms.values():
            assert losses["loss_uncalibrated"] == pytest.approx(loss, abs=1e-5)


def test_what_is_replaced_decides_only_where_the_circuit_is_not_whole(found):
    assert set(found["planted"]) == {"mean", "zero", "resample"}
    for norms in found["planted"].values():
        assert norms["free"]["loss"] < 0.05
        # A model without norms has none to freeze.
        assert norms["frozen"]["loss"] == pytest.approx(norms["free"]["loss"], abs=1e-5)
    assert found["planted"]["mean"] == found["planted"]["zero"]  # this model's means are zeros
    # Without its second reader the answer comes from another prompt, or from nowhere.
    assert found["half"]["zero"]["free"]["loss"] > 0.6
    assert found["half"]["resample"]["free"]["loss_uncalibrated"] > 1.0


def test_a_loss_is_that_of_the_best_calibration_on_its_own_pairs(found):
    """No scale and shift do better, and a circuit that knows nothing is at chance, never above."""
    problem, circuit = planted_problem(), circuit_of([*PLANTED[:3], *PLANTED[4:]])
    zeros = {s: np.zeros(shape, np.float32) for s, shape in shapes(CONFIG).items()}
    values = np.asarray(answers(problem, problem.test, [circuit.mask], zeros).differences[0])
    signed = np.array([-1.0, 1.0])
    grid = [
        np.mean(np.logaddexp(0, signed * (scale * values + shift)))
        for scale in np.geomspace(1e-3, 10, 25)
        for shift in np.linspace(-2, 2, 21)
    ]
    loss = found["half"]["zero"]["free"]["loss"]
    assert loss <= min(grid) + 1e-4
    for norms in (norms for kinds in found.values() for norms in kinds.values()):
        for losses in norms.values():
            assert losses["loss"] <= min(losses["loss_uncalibrated"], np.log(2)) + 1e-5


def test_a_template_has_the_loss_of_its_own_pairs():
    values = np.array([[4.0, -4.0], [1.0, 0.0], [0.0, 0.0]])
    losses = by_template(values, ["a", "b", "b"], 2.0, 0.5)
    signed = np.array([-1.0, 1.0]) * (2 * values + 0.5)
    each = np.logaddexp(0, signed).mean(axis=1)
    assert losses["a"] == {"loss": pytest.approx(each[0], abs=1e-6), "pairs": 1}
    assert losses["b"] == {"loss": pytest.approx(each[1:].mean(), abs=1e-6), "pairs": 2}


def test_correlation_within_a_side_is_not_fooled_by_the_sides():
    rng = np.random.default_rng(0)
    centre = np.array([5.0, -5.0])
    model, other = (rng.normal(0, 0.1, (400, 2)) + centre for _ in range(2))
    found = correlations(model, other)
    assert found["correlation"] > 0.99
    assert abs(found["correlation_within"]) < 0.2
    same = correlations(model, 2 * model + 1)
    assert same["correlation"] == pytest.approx(1)
    assert same["correlation_within"] == pytest.approx(1)
    constant = correlations(model, np.zeros((400, 2)))
    assert constant == {"correlation": None, "correlation_within": None}


def test_the_inside_of_the_whole_model_agrees_with_itself():
    problem = planted_problem()
    whole = dataclasses.replace(
        circuit_of(PLANTED), mask={s: np.ones(x, bool) for s, x in shapes(CONFIG).items()}
    )
    found = agreement(problem, whole, problem.test)
    assert set(found["heads"]) == {"0.h0", "0.h1", "1.h0", "1.h1"}
    assert found["divergence"] == pytest.approx(0, abs=1e-6)
    assert found["unexplained"] == [pytest.approx(0, abs=1e-6)] * 2


def test_a_node_that_lost_its_input_is_wholly_unexplained():
    problem = planted_problem()
    found = agreement(problem, circuit_of(PLANTED), problem.test)
    assert found["heads"] == {"0.h0": pytest.approx(0, abs=1e-6)}
    assert found["unexplained"] == [pytest.approx(0, abs=1e-5)] * 2
    cut = circuit_of(PLANTED)
    mask = mask_of([name for name in PLANTED if name != "1.mlp.act_in.1"])
    broken = agreement(problem, dataclasses.replace(cut, mask=mask), problem.test)
    assert broken["unexplained"][0] == pytest.approx(0, abs=1e-5)
    # Zeros for two neurons that are never negative: their means would have been better guesses.
    assert 1.05 < broken["unexplained"][1] < 3
