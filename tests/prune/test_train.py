"""Training of gates: jobs = loop, chunks = whole, AdamW by hand, and a planted circuit is found."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.core import checkpoints
from circuitjax.prune import train
from circuitjax.prune.config import Hyper
from circuitjax.prune.jobs import initial_state, objective_of, train_gates
from circuitjax.prune.train import Job, finite_jobs, make_train_chunk
from tests.drawn import assert_same
from tests.prune.planted import PLANTED, SEARCH, planted_problem

HYPERS = (
    Hyper(0.01, init_noise_scale=0.05, lr=0.02, lr_warmup_frac=0.1),
    Hyper(0.05, init_noise_scale=0.2, lr=0.1, wd=0.3, inv_beta2=0.3, heaviside_temp=0.5),
)
JOBS = [Job(seed, hyper) for seed, hyper in enumerate(HYPERS)]


@pytest.fixture(scope="module")
def trained():
    problem, metrics = planted_problem(), []
    start = initial_state(problem, SEARCH, JOBS)
    state = train_gates(problem, SEARCH, start, lambda s, m: metrics.append(m))
    joined = {name: np.concatenate([m[name] for m in metrics], axis=1) for name in metrics[0]}
    return problem, state, joined


def test_the_planted_circuit_is_found(trained):
    problem, state, metrics = trained
    opened = np.asarray(state.tau["gates"][0]) > 0
    names = problem.whole.names()
    assert {names[i] for i in np.flatnonzero(opened)} == set(PLANTED)
    assert metrics["k"].shape == (2, SEARCH.train.steps)
    assert metrics["task"][0, -1] < 0.1
    assert int(state.step[0]) == SEARCH.train.steps


def test_scores_stay_in_their_box(trained):
    for leaf in jax.tree.leaves(trained[1].tau):
        assert np.abs(leaf).max() <= 1


def test_jobs_together_equal_each_alone(trained):
    problem, state, _ = trained
    for index, job in enumerate(JOBS):
        alone = train_gates(problem, SEARCH, initial_state(problem, SEARCH, [job]))
        together = jax.tree.map(lambda leaf, i=index: leaf[i : i + 1], state)
        assert_same(alone, together)


def test_any_chunks_and_a_restart_from_disk_equal_the_whole(trained, tmp_path):
    problem, whole, _ = trained
    program = make_train_chunk(objective_of(problem, SEARCH))
    rows = problem.batches.training(problem.train, SEARCH.train.batch_size)
    state, _ = program(initial_state(problem, SEARCH, JOBS), 7, problem.trained, rows)
    checkpoints.save_step(tmp_path, 7, state)
    restored = checkpoints.load_step(tmp_path, 7, initial_state(problem, SEARCH, JOBS))
    # From step 7 on to the next multiple of the chunk, and so on.
    assert_same(train_gates(problem, SEARCH, jax.device_put(restored)), whole)


def test_runs_that_differ_in_the_target_share_a_program():
    other = dataclasses.replace(SEARCH, selection=dataclasses.replace(SEARCH.selection, value=0.3))
    problem = planted_problem()
    one, two = (make_train_chunk(objective_of(problem, search)) for search in (SEARCH, other))
    assert one is two


def test_a_step_is_adamw_by_hand(trained):
    """Two steps in NumPy from the loss's own gradient: clipping, moments, decay, learning rate, box."""
    problem, _, _ = trained
    search = dataclasses.replace(SEARCH, train=dataclasses.replace(SEARCH.train, steps=10))
    objective, job = objective_of(problem, search), JOBS[1]
    rows = problem.batches.training(problem.train, search.train.batch_size)
    state = initial_state(problem, search, [job])
    program = make_train_chunk(objective)
    tau = np.asarray(state.tau["gates"][0], np.float64)
    first, second = np.zeros_like(tau), np.zeros_like(tau)
    key = jax.random.wrap_key_data(state.key[0])
    hyper = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), job.hyper)

    @jax.jit
    def gradient_at(tau, at, batch):
        return jax.grad(
            lambda t: objective.loss({"gates": t}, (), hyper, at, problem.trained, batch)[0]
        )(tau)

    for step in range(2):
        own = jax.random.fold_in(key, step)
        batch = rows.draw(own, search.train.batch_size)
        at = (jax.random.fold_in(own, 1), jnp.asarray(step))
        g = np.asarray(gradient_at(jnp.asarray(tau, jnp.float32), at, batch), np.float64)
        g = g / max(np.sqrt(np.mean(g * g)), 1.0)
        b2 = 1 - 0.3
        first, second = 0.9 * first + 0.1 * g, b2 * second + (1 - b2) * g * g
        update = first / (1 - 0.9 ** (step + 1))
        update = update / (np.sqrt(second / (1 - b2 ** (step + 1))) + 1e-8)
        rate = 0.1 * (1 - step / 10)
        tau = np.clip(tau - rate * (update + 0.3 * tau), -1, 1)
        state, metrics = program(state, 1, problem.trained, rows)
        np.testing.assert_allclose(state.tau["gates"][0], tau, atol=2e-5)
    assert metrics["gradient_rms"].shape == (1, 1)


def test_a_job_that_diverges_is_named_with_its_step_and_may_be_spared():
    problem = planted_problem()
    jobs = [JOBS[0], Job(1, Hyper(float("nan")))]
    start = initial_state(problem, SEARCH, jobs)
    with pytest.raises(FloatingPointError, match=r"^the pruning of job 1 diverged .* at step \d"):
        train_gates(problem, SEARCH, start)
    state = train_gates(problem, SEARCH, initial_state(problem, SEARCH, jobs), spare=True)
    assert finite_jobs(state).tolist() == [True, False]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_one_line(seed):
    with pytest.raises(ValueError, match=r"^seed is .*; it must be in \[0, 2\^32\)$"):
        Job(seed, HYPERS[0])


@pytest.mark.slow
def test_side_by_side_equals_one_after_another(trained, monkeypatch):
    problem, state, _ = trained
    monkeypatch.setattr("circuitjax.core.policy.backend", lambda: "gpu")
    train.make_train_chunk.cache_clear()
    mapped = train_gates(problem, SEARCH, initial_state(problem, SEARCH, JOBS))
    train.make_train_chunk.cache_clear()
    np.testing.assert_allclose(mapped.tau["gates"], state.tau["gates"], atol=2e-3)
