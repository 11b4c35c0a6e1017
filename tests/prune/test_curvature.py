"""The curvature of the KL by each gate: against sums over the vocabulary, and against the KL itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.conditions import logits_under
from circuitjax.gated.measures import kl_divergence
from circuitjax.prune.curvature import KlRises, _along, curvature
from circuitjax.prune.defaults import default_search
from circuitjax.prune.evaluate import gate_slopes, references
from circuitjax.prune.find import prepare
from circuitjax.prune.rank import Baseline, scores_without_training
from circuitjax.prune.trial import trial_of_cut
from tests.prune.planted import TASK, planted_model
from tests.prune.test_attribution import make


def test_over_all_signs_the_directions_make_up_the_curvature_by_the_logits():
    chance = np.array([0.5, 0.3, 0.15, 0.05], np.float32)
    signs = np.array(list(itertools.product([-1, 1], repeat=4)), np.float32)
    along = np.asarray(_along(jnp.broadcast_to(chance, signs.shape), jnp.asarray(signs)))
    found = along.T @ along / len(along)
    np.testing.assert_allclose(found, np.diag(chance) - np.outer(chance, chance), atol=1e-6)


def exact(problem, at=1.0):
    """A half of F `[G]` at some gates by a sum over the vocabulary, and the KL by the gates."""
    model = problem.whole
    rows = [problem.batches.whole(problem.train)]
    ((batch, reference),) = references(model, rows, full=True)
    gates = at * jnp.ones(model.num_gates)

    def log_chance(z):
        return jax.nn.log_softmax(logits_under(model, z, batch, reference)[:, 0])

    slopes = jax.jacfwd(log_chance)(gates)  # [M, V, G]
    chance = jnp.exp(log_chance(gates))
    half = 0.5 * jnp.mean(jnp.einsum("mv,mvg->mg", chance, slopes**2), axis=0)

    def kl(z):
        return jnp.mean(kl_divergence(logits_under(model, z, batch, reference), reference.full))

    return np.asarray(half), jax.jit(kl)


@pytest.mark.parametrize(
    ("grain", "ablation"), [("edges", "interchange"), ("edges", "mean"), ("nodes", "zero")]
)
def test_closing_a_gate_a_little_adds_what_the_curvature_says(grain, ablation):
    problem = make(grain, ablation)
    half, kl = exact(problem)
    ones, step = np.ones(problem.whole.num_gates, np.float32), 0.1
    for gate in np.argsort(-half)[:6]:
        moved = []
        for sign in (-1, 1):
            gates = ones.copy()
            gates[gate] += sign * step
            moved.append(float(kl(gates)))
        assert np.mean(moved) == pytest.approx(half[gate] * step**2, rel=0.1)


@pytest.mark.parametrize(
    ("grain", "ablation"), [("edges", "interchange"), ("edges", "resample"), ("nodes", "zero")]
)
def test_draws_add_up_to_the_sum_over_the_vocabulary(grain, ablation):
    problem = make(grain, ablation)
    mixes = ablation == "resample"  # two prompts are each other's donors, drawn anew for each draw
    draws = 600
    examples = problem.train.take(np.arange(draws) % 3)
    found = curvature(problem.whole, problem.batches, examples)
    assert found.shape == (problem.whole.num_gates,)
    assert np.all(found >= 0)
    if mixes:
        assert found.sum() > 0
        return
    half, _ = exact(problem)
    assert np.corrcoef(found, half)[0, 1] > 0.95
    assert found.sum() == pytest.approx(half.sum(), rel=0.15)


def some_closed(problem):
    """A circuit that differs from the model, and still answers much as it does."""
    opened = np.random.default_rng(0).random(problem.whole.num_gates) < 0.8
    return problem.whole.alive(opened & problem.whole.exists())


def test_the_rise_of_a_circuits_kl_is_its_slope_and_the_curvature_of_its_own_answers():
    problem = make("edges", "interchange")
    opened = some_closed(problem)
    half, kl = exact(problem, opened)
    slope = np.asarray(jax.grad(kl)(opened.astype(np.float32)))
    rises = KlRises(problem.whole, problem.batches, problem.train)  # three items, over and over
    found = np.mean([rises(opened) for _ in range(200)], axis=0)
    assert np.min(-slope) < -0.005 < 0.005 < np.max(-slope)
    first = np.maximum(-slope, 0.0)  # a promised fall is not believed
    np.testing.assert_allclose(found, half + first, atol=0.2 * np.max(half))
    assert np.corrcoef(found - first, half)[0, 1] > 0.95
    assert (found - first).sum() == pytest.approx(half.sum(), rel=0.15)


def test_every_call_measures_on_the_next_items_and_remembers_the_last_ones():
    search = default_search("edges", target_kl=0.1, train=32, validation=8, test=8)
    problem = prepare(planted_model(), TASK, search)
    opened = problem.whole.alive(problem.whole.exists())
    opened[np.flatnonzero(opened)[::3]] = False
    halves = [problem.train.take(np.arange(start, start + 16)) for start in (0, 16)]
    first, second = (gate_slopes(problem, opened, half, "kl") for half in halves)
    assert not np.allclose(first, second, atol=1e-4)
    rises = KlRises(problem.whole, problem.batches, problem.train)
    rises(opened)
    np.testing.assert_allclose(rises._slope / rises._weight, first, atol=1e-5)
    rises(opened)
    both = (0.75 * first + second) / 1.75
    np.testing.assert_allclose(rises._slope / rises._weight, both, atol=1e-5)


def test_what_starts_from_the_curvature_is_eliminated_by_it():
    problem = make("edges", "interchange")
    search = default_search("edges", warm_start="fisher", target_kl=0.1)
    opened = some_closed(problem)
    rises = KlRises(problem.whole, problem.batches, problem.train)
    trial = trial_of_cut(problem, search)
    for _ in range(2):  # the second call goes on from the first
        found, expected = trial.rises(opened), rises(opened)
        np.testing.assert_allclose(found, np.where(opened, expected, 0.0), rtol=1e-6)
    plain = trial_of_cut(problem, default_search("edges", target_kl=0.1)).rises(opened)
    assert not np.allclose(plain, found)


def test_the_ranking_is_the_curvature_over_training_items():
    problem = make()
    found = scores_without_training(problem, Baseline("fisher"), 3)
    np.testing.assert_array_equal(found, curvature(problem.whole, problem.batches, problem.train))
    assert Baseline("fisher").to_dict() == {"ranking": "fisher", "items": 512}


@pytest.mark.parametrize(("condition", "curved"), [("interchange", True), ("supersets", False)])
def test_under_a_condition_that_leaves_parts_in_estimates_are_slopes(condition, curved):
    search = default_search(
        "edges",
        ranking="eliminated",
        target_kl=0.1,
        hold_under=condition,
        train=8,
        validation=8,
        test=8,
    )
    trial = trial_of_cut(prepare(planted_model(), TASK, search), search)
    assert (trial._curved is not None) == curved
