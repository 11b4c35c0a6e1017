"""What training, elimination and selection say of one set of open weights: the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit.find_weights import initial_weights, weight_problem
from circuitjax.model.sites import shapes
from circuitjax.prune.calibrate import calibrate, calibrated_loss
from circuitjax.prune.eliminate import open_first
from circuitjax.prune.objective import binary_losses
from circuitjax.prune.opening import GateHyper
from circuitjax.prune.train import Job
from circuitjax.prune.weight_select import WeightProber, rank_weights
from circuitjax.prune.weight_trial import WeightTrial
from circuitjax.prune.weights import weight_task_loss
from tests.prune.planted import CONFIG, PRUNE, planted_problem

HYPER = GateHyper(init=0.2, init_noise_scale=0.5, k_coef=0.0)


@pytest.fixture(scope="module", params=["inside", "off"])
def noisy(request):
    """The planted model with random fills: nodes that nothing enters have another value than they."""
    rng = np.random.default_rng(5)
    fills = {s: jnp.asarray(rng.normal(0, 0.3, n), jnp.float32) for s, n in shapes(CONFIG).items()}
    prune = dataclasses.replace(PRUNE, calibrate=request.param)
    return weight_problem(dataclasses.replace(planted_problem(prune), fills=fills))


def job_of(work, seed):
    state = initial_weights(work, [Job(seed, HYPER)])
    return jax.tree.map(lambda leaf: leaf[0], state)


@pytest.mark.parametrize("seed", range(3))
def test_training_elimination_and_selection_agree(noisy, seed):
    problem, job = noisy.problem, job_of(noisy, seed)
    start = (noisy.index, noisy.mask, noisy.fills)
    trained, parts = noisy.objective.loss(
        job.tau, jnp.zeros(()), HYPER, (jax.random.key(0), jnp.int32(0)), noisy.data,
        problem.validation,
    )  # fmt: skip
    assert float(trained) == pytest.approx(float(parts["task"]), abs=1e-6)
    ranks, opened = rank_weights(noisy.objective, job, noisy.data, problem.validation)
    assert 0 < opened.sum() < len(opened)
    trial = WeightTrial(problem, *start, problem.validation)
    assert trial.loss(opened) == pytest.approx(float(parts["task"]), abs=1e-4)
    assert trial.loss(trial.alive(opened)) == pytest.approx(trial.loss(opened), abs=1e-5)
    prober = WeightProber(problem, *start, [ranks])
    found = prober.answers(problem.validation, 0, [int(opened.sum())]).differences
    if problem.prune.calibrate == "inside":
        expected = float(calibrate(found).loss[0])
    else:
        expected = float(jnp.mean(binary_losses(found)))
    assert trial.loss(opened) == pytest.approx(expected, abs=2e-3)


def test_rises_are_derivatives(noisy):
    problem = noisy.problem
    few = problem.validation.take(np.arange(min(32, problem.validation.size)))
    trial = WeightTrial(problem, noisy.index, noisy.mask, noisy.fills, few)
    _, opened = rank_weights(noisy.objective, job_of(noisy, 1), noisy.data, problem.validation)
    found = trial.rises(opened)
    assert found.shape == opened.shape
    assert not found[~trial.alive(opened)].any()
    # Between both ends of the interval that the two slopes stand for, by its own reduced model.
    arguments = list(trial._arguments(opened))
    for place in np.argsort(-np.abs(found))[:4]:
        slopes = []
        for level in (1.0, 0.8):
            z = np.asarray(arguments[2], np.float64) * level
            ends = []
            for step in (0.02, -0.02):
                moved = z.copy()
                moved[place] += step
                ends.append(float(_loss_at(arguments, moved)))
            slopes.append((ends[0] - ends[1]) / 0.04)
        assert found[place] == pytest.approx(-np.mean(slopes), rel=0.05, abs=1e-4)


def _loss_at(arguments, z):
    (config, prune), data, _, gates, pairs = arguments
    return weight_task_loss(config, prune, data, jnp.asarray(z, jnp.float32), gates, pairs)


def test_a_loss_under_its_best_calibration_is_that_of_lbfgs_and_so_is_its_gradient():
    rng = np.random.default_rng(0)
    d = rng.normal(0, 1, (40, 2)) * 3 + np.array([1.5, -0.5]) + 20
    quick = jax.jit(calibrated_loss)
    assert float(quick(d)) == pytest.approx(float(calibrate(jnp.asarray(d)).loss), abs=2e-3)
    slope = np.asarray(jax.grad(quick)(jnp.asarray(d)))
    for place in ((0, 0), (7, 1), (21, 0)):
        ends = []
        for step in (0.3, -0.3):
            moved = d.copy()
            moved[place] += step
            ends.append(float(calibrate(jnp.asarray(moved), steps=60).loss))
        assert slope[place] == pytest.approx((ends[0] - ends[1]) / 0.6, rel=0.1, abs=2e-4)


@pytest.mark.parametrize("d", [np.zeros((8, 2)), np.full((8, 2), 1e4), [[5.0, -5.0]] * 8])
def test_it_is_finite_where_nothing_or_everything_is_told_apart(d):
    loss, slope = jax.value_and_grad(calibrated_loss)(jnp.asarray(d, jnp.float32))
    assert np.isfinite(float(loss))
    assert np.isfinite(np.asarray(slope)).all()
    assert float(loss) <= np.log(2) + 1e-5


def test_answers_the_wrong_way_round_are_worth_nothing():
    d = jnp.asarray([[-2.0, 2.0]] * 16)
    assert float(calibrated_loss(d)) == pytest.approx(np.log(2), abs=1e-2)


def test_ranks_begin_with_an_order():
    ranks = open_first(np.array([3, 0, 2, 1, 4]), np.array([4, 2]))
    np.testing.assert_array_equal(ranks, [4, 2, 1, 3, 0])
