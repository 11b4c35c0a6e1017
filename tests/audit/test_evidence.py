"""Evidence: controls match, necessity shows, faithfulness is zero for the model itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.audit.evidence import baseline, evidence, matched_random_gates
from circuitjax.circuit.circuit import Circuit
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply
from tests.audit.planted_audit import PLAIN, circuit_of, whole_mask
from tests.prune.planted import CONFIG, PLANTED, SEARCH, planted_model, planted_problem

SIGN = np.array([1.0, -1.0])


@pytest.fixture(scope="module")
def planted() -> Circuit:
    return circuit_of(PLANTED, scale=1.5, shift=0.25)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def by_hand(examples, mask):
    """Logits `[M, V]` of every prompt run through the model alone, in float64 afterwards."""
    gates = {site: jnp.asarray(m, jnp.float32) for site, m in mask.items()}
    logits = apply(CONFIG, planted_model().params, examples.tokens[:, 0], gates).logits
    rows = np.arange(examples.size), np.asarray(examples.positions)[:, 0]
    return np.asarray(logits, np.float64)[rows]


def odds(logits, examples):
    right, wrong = (
        np.take_along_axis(logits, np.asarray(tokens), axis=-1)[:, 0]
        for tokens in (examples.right, examples.wrong)
    )
    return right - wrong


def test_random_sets_match_the_circuit_at_every_layer_and_site(planted):
    model, gates = planted.view(planted_model())
    sets = matched_random_gates(model, gates, 30, seed=1)
    for chosen in sets:
        for site, mask in model.tree(chosen).items():
            same = planted.opened["mask"][site].sum(axis=1)
            np.testing.assert_array_equal(mask.sum(axis=1), same)
    assert len({chosen.tobytes() for chosen in sets}) == 30
    again = matched_random_gates(model, gates, 30, seed=1)
    np.testing.assert_array_equal(sets, again)


def test_figures_of_the_planted_circuit(planted):
    problem, mask = planted_problem(), planted.opened["mask"]
    figures = evidence(problem, SEARCH, planted)
    kept = odds(by_hand(problem.test, mask), problem.test)
    fitted = 1.5 * kept + 0.25 * np.tile(SIGN, len(kept) // 2)
    raw = np.mean(np.logaddexp(0, -kept))
    assert figures["loss_circuit_uncalibrated"] == pytest.approx(raw, abs=1e-4)
    assert figures["loss_circuit"] == pytest.approx(np.mean(np.logaddexp(0, -fitted)), abs=1e-4)
    assert figures["accuracy_circuit"] == pytest.approx(np.mean(fitted > 0))
    # Sufficient, and without it the task is at chance. So it is without a random set that happens to
    # hold one of the seven, each of which the others need; without any other set it is done.
    assert figures["loss_circuit_uncalibrated"] < 0.1
    assert figures["loss_without_circuit"] > 0.6
    model, gates = planted.view(planted_model())
    sets = matched_random_gates(model, gates, SEARCH.selection.random_controls, seed=0)
    random = figures["loss_without_random"]
    spared = [not np.any(chosen & gates) for chosen in sets]
    assert sum(spared) >= 5
    assert max(loss for loss, apart in zip(random, spared, strict=True) if apart) < 0.1
    assert figures["loss_without_circuit"] > max(random) - 0.05
    assert figures["necessity_percentile"] == np.mean(
        np.array(random) < figures["loss_without_circuit"]
    )
    without = odds(by_hand(problem.test, {site: ~m for site, m in mask.items()}), problem.test)
    expected = np.mean(np.logaddexp(0, -without))
    assert figures["loss_without_circuit"] == pytest.approx(expected, abs=1e-4)

    full, part = (softmax(by_hand(problem.test, m)) for m in (whole_mask(), mask))
    kl = np.mean(np.sum(full * np.log(full / part), axis=-1))
    assert figures["kl_to_model"] == pytest.approx(kl, abs=1e-4)
    agree = np.mean(full.argmax(axis=-1) == part.argmax(axis=-1))
    assert figures["argmax_agreement"] == pytest.approx(agree)


def test_the_whole_model_as_a_circuit_is_itself():
    problem = planted_problem()
    figures = evidence(problem, SEARCH, circuit_of(whole_mask()))
    base = baseline(problem, SEARCH)
    assert figures["kl_to_model"] == pytest.approx(0, abs=1e-6)
    assert figures["argmax_agreement"] == 1
    assert figures["loss_circuit"] == pytest.approx(base["loss_unpruned"], abs=1e-6)
    assert figures["accuracy_circuit"] == base["accuracy_unpruned"] == 1


def test_without_calibration_the_stored_one_is_not_used(planted):
    figures = evidence(planted_problem(), PLAIN, planted)
    assert figures["loss_circuit"] == figures["loss_circuit_uncalibrated"]


def test_baseline_is_the_model_and_the_calibrated_empty_circuit():
    problem = planted_problem()
    base = baseline(problem, SEARCH)
    logits = by_hand(problem.test, whole_mask())
    loss = np.mean(np.logaddexp(0, -odds(logits, problem.test)))
    assert base["loss_unpruned"] == pytest.approx(loss, abs=1e-4)
    # Both prompts of a pair end alike, so nothing past the gates can tell them apart: ln 2.
    assert base["loss_empty"] == pytest.approx(np.log(2), abs=1e-4)
    empty = {site: np.zeros(shape, bool) for site, shape in shapes(CONFIG).items()}
    full, part = softmax(logits), softmax(by_hand(problem.test, empty))
    kl = np.mean(np.sum(full * np.log(full / part), axis=-1))
    assert base["kl_empty"] == pytest.approx(kl, abs=1e-4)
