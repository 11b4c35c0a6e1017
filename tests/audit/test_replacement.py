"""Other replacements, frozen norms, templates; patterns and activations against the model's."""

import numpy as np
import pytest

from circuitjax.audit.agreement import agreement
from circuitjax.audit.evidence import correlations
from circuitjax.audit.record import Template
from circuitjax.audit.replacement import by_template, sufficiency
from circuitjax.gated.replacement import ABLATIONS
from circuitjax.model.transformer import apply
from tests.audit.planted_audit import circuit_of, mask_of, measure, weights_of, whole_mask
from tests.prune.planted import CONFIG, PLANTED, SEARCH, planted_model, planted_problem

HALF = [*PLANTED[:3], *PLANTED[4:]]


def look(circuit, **more):
    problem = planted_problem()
    return sufficiency(problem, SEARCH, measure(circuit), circuit, problem.test, **more)


@pytest.fixture(scope="module")
def found():
    circuits = {"planted": PLANTED, "whole": whole_mask(), "half": HALF}
    return {name: look(circuit_of(names))[0] for name, names in circuits.items()}


def test_the_whole_model_has_nothing_to_replace(found):
    test = planted_problem().test
    logits = apply(CONFIG, planted_model().params, test.tokens[:, 0]).logits
    rows = np.arange(test.size), np.asarray(test.positions)[:, 0]
    values = np.asarray(logits, np.float64)[rows]
    right, wrong = (
        np.take_along_axis(values, np.asarray(x), axis=-1) for x in (test.right, test.wrong)
    )
    loss = np.mean(np.logaddexp(0, wrong - right))
    assert set(found["whole"]) == set(ABLATIONS)
    for norms in found["whole"].values():
        for losses in norms.values():
            assert losses.loss_uncalibrated == pytest.approx(loss, abs=1e-5)


def test_what_is_replaced_decides_only_where_the_circuit_is_not_whole(found):
    for norms in found["planted"].values():
        assert norms["free"].loss < 0.05
    assert found["planted"]["mean"] == found["planted"]["zero"]  # this model's means are zeros
    # Without its second reader the answer comes from another prompt, or from nowhere.
    assert found["half"]["zero"]["free"].loss > 0.6
    assert found["half"]["resample"]["free"].loss_uncalibrated > 1.0
    # The other prompt of a pair says the opposite.
    assert found["half"]["interchange"]["free"].loss_uncalibrated > 2.0


def test_what_cannot_be_asked_says_why():
    _, skipped = look(circuit_of(PLANTED))
    assert skipped == {"frozen norms": "the model has no norms"}
    figures, skipped = look(circuit_of(PLANTED), corrupted=False)
    assert "interchange" not in figures
    assert skipped["interchange replacement"] == "the task has no corrupted prompts"


def test_weights_between_the_nodes_are_replaced_alike(found):
    """All weights open, the closed ones are those of closed nodes, whose values are replaced."""
    figures, _ = look(weights_of(circuit_of(PLANTED)))
    for kind in ("mean", "zero"):
        want = found["planted"][kind]["free"].loss_uncalibrated
        assert figures[kind]["free"].loss_uncalibrated == pytest.approx(want, abs=1e-5)


def test_a_loss_is_that_of_the_best_calibration_on_its_own_items(found):
    """A circuit that knows nothing is at chance, never above."""
    for norms in (norms for kinds in found.values() for norms in kinds.values()):
        for losses in norms.values():
            assert losses.loss <= min(losses.loss_uncalibrated, np.log(2)) + 1e-4


def test_a_template_has_the_loss_of_its_own_items():
    odds = np.array([4.0, 4.0, 1.0, 0.0, 0.0, 0.0])
    circuit = circuit_of(PLANTED, scale=2.0, shift=0.5)
    losses = by_template(odds, ["a", "a", "b", "b", "b", "b"], circuit, 2)
    fitted = 2 * odds + 0.5 * np.tile([1.0, -1.0], 3)
    each = np.logaddexp(0, -fitted)
    # One item has no interval, and that of two lies between their losses.
    assert losses["a"] == Template(pytest.approx(each[:2].mean(), abs=1e-6), 1)
    assert (losses["b"].loss, losses["b"].items) == (pytest.approx(each[2:].mean(), abs=1e-6), 2)
    items = sorted(each[2:].reshape(2, 2).mean(axis=1))
    low, high = losses["b"].interval
    assert items[0] - 1e-6 <= low <= losses["b"].loss <= high <= items[1] + 1e-6
    plain = by_template(odds[:3], ["x", "y", "y"], None, 1)
    wanted = np.logaddexp(0, -odds[1:3]).mean()
    assert (plain["y"].loss, plain["y"].items) == (pytest.approx(wanted), 2)


def test_correlation_within_a_side_is_not_fooled_by_the_sides():
    rng = np.random.default_rng(0)
    model, other = (rng.normal(5, 0.1, 800) for _ in range(2))
    found = correlations(model, other, paired=True)
    assert found["correlation"] > 0.99
    assert abs(found["correlation_within"]) < 0.2
    # Without pairs there are no two sides.
    alone = correlations(model, other, paired=False)
    assert abs(alone["correlation"]) < 0.2
    assert alone["correlation_within"] is None
    same = correlations(model, 2 * model, paired=True)
    assert same["correlation"] == pytest.approx(1)
    assert same["correlation_within"] == pytest.approx(1)
    constant = correlations(model, np.zeros(800), paired=True)
    assert constant == {"correlation": None, "correlation_within": None}


def test_the_inside_of_the_whole_model_agrees_with_itself():
    problem = planted_problem()
    found = agreement(problem, circuit_of(whole_mask()), problem.test)
    assert set(found.heads) == {"0.h0", "0.h1", "1.h0", "1.h1"}
    assert found.divergence == pytest.approx(0, abs=1e-6)
    assert found.unexplained == [pytest.approx(0, abs=1e-6)] * 2


def test_a_node_that_lost_its_input_is_wholly_unexplained():
    problem = planted_problem()
    for circuit in (circuit_of(PLANTED), weights_of(circuit_of(PLANTED))):
        found = agreement(problem, circuit, problem.test)
        assert found.heads == {"0.h0": pytest.approx(0, abs=1e-6)}
        assert found.unexplained == [pytest.approx(0, abs=1e-5)] * 2
    mask = mask_of([name for name in PLANTED if name != "1.mlp.act_in.1"])
    broken = agreement(problem, circuit_of(mask), problem.test)
    assert broken.unexplained[0] == pytest.approx(0, abs=1e-5)
    # Zeros for two neurons that are never negative: their means would have been better guesses.
    assert 1.05 < broken.unexplained[1] < 3
