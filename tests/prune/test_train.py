"""Mask training: jobs = loop, chunks = whole, AdamW by hand, and a planted circuit is found."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit.find import Job, initial_state, train_masks
from circuitjax.core import checkpoints
from circuitjax.model.sites import kept_addresses
from circuitjax.prune import nodes, train
from circuitjax.prune.config import Hyper
from circuitjax.prune.gates import clamp, gates_of
from circuitjax.prune.nodes import NodeMasks
from circuitjax.prune.packing import training_rows
from circuitjax.prune.train import make_train_chunk
from tests.prune.planted import CONFIG, PLANTED, PRUNE, planted_problem

HYPERS = (
    Hyper(0.01, init_noise_scale=0.05, lr=0.02, lr_warmup_frac=0.1),
    Hyper(0.05, init_noise_scale=0.2, lr=0.1, wd=0.3, inv_beta2=0.3, heaviside_temp=0.5),
)
JOBS = [Job(seed, hyper) for seed, hyper in enumerate(HYPERS)]


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def trained():
    problem, metrics = planted_problem(), []
    state = train_masks(problem, initial_state(problem, JOBS), lambda s, m: metrics.append(m))
    joined = {name: np.concatenate([m[name] for m in metrics], axis=1) for name in metrics[0]}
    return problem, state, joined


def test_the_planted_circuit_is_found(trained):
    _, state, metrics = trained
    tau = jax.tree.map(lambda leaf: leaf[0], state.tau)
    mask = {site: np.asarray(m) > 0.5 for site, m in gates_of(tau, 1.0).items()}
    kept = set(kept_addresses(CONFIG, mask))
    assert kept == set(PLANTED)
    assert metrics["k"].shape == (2, PRUNE.steps)
    assert metrics["task"][0, -1] < 0.1
    assert int(state.step[0]) == PRUNE.steps


def test_parameters_stay_in_their_box(trained):
    for leaf in jax.tree.leaves(trained[1].tau):
        assert np.abs(leaf).max() <= 1


def test_jobs_together_equal_each_alone(trained):
    problem, state, _ = trained
    for index, job in enumerate(JOBS):
        alone = train_masks(problem, initial_state(problem, [job]))
        together = jax.tree.map(lambda leaf, i=index: leaf[i : i + 1], state)
        assert_same(alone, together)


def test_any_chunks_and_a_restart_from_disk_equal_the_whole(trained, tmp_path):
    problem, whole, _ = trained
    program = make_train_chunk(NodeMasks(CONFIG, PRUNE))
    rows = training_rows(problem.train, True, PRUNE.batch_size)
    arguments = ((problem.params, problem.fills), rows)
    state = initial_state(problem, JOBS)
    state, _ = program(state, 7, *arguments)
    checkpoints.save_step(tmp_path, 7, state)
    restored = checkpoints.load_step(tmp_path, 7, initial_state(problem, JOBS))
    # From step 7 on to the next multiple of the chunk, and so on.
    assert_same(train_masks(problem, jax.device_put(restored)), whole)


@pytest.mark.slow
def test_side_by_side_equals_one_after_another(trained, monkeypatch):
    problem, _, metrics = trained
    monkeypatch.setattr(train, "map_jobs", jax.vmap)
    program = make_train_chunk.__wrapped__(NodeMasks(CONFIG, PRUNE))
    state = initial_state(problem, JOBS)
    rows = training_rows(problem.train, True, PRUNE.batch_size)
    _, found = program(state, 20, (problem.params, problem.fills), rows)
    for name, values in found.items():
        np.testing.assert_allclose(values, metrics[name][:, :20], rtol=1e-4, atol=1e-5)


def test_steps_are_adamw_of_the_clipped_gradient(monkeypatch):
    """With given gradients, against AdamW in NumPy: decay by the rate, schedule, clamp, clipping."""
    rng = np.random.default_rng(4)
    steps, shape = 8, (2, 3)
    prune = dataclasses.replace(PRUNE, steps=steps, chunk=steps, batch_size=1)
    gradients = rng.normal(size=(steps, *shape)).astype(np.float32)
    gradients[2] *= 30  # above an RMS of 1: clipped
    gradients[5] *= 1e-3
    hyper = Hyper(0.0, wd=0.4, lr=0.3, inv_beta2=0.2, lr_warmup_frac=0.25)

    def linear_loss(config, prune, params, tau, hyper, fills, pairs):
        # The batch is one row of the "pairs", which knows the step through the order below.
        loss = jnp.sum(params[fills["step"][0]] * tau["attn.q"])
        return loss, {"task": loss, "k": jnp.zeros(())}

    monkeypatch.setattr(nodes, "pruning_loss", linear_loss)
    program = make_train_chunk.__wrapped__(NodeMasks(CONFIG, prune))
    start = rng.normal(0, 0.5, shape).astype(np.float32)
    tau = {"attn.q": jnp.asarray(start)}
    one = train.MaskState(
        tau,
        train._adam(hyper).init(tau),
        jnp.zeros((), jnp.int32),
        jax.random.key_data(jax.random.key(0)),
        jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hyper),
    )
    state = jax.tree.map(lambda leaf: leaf[None], one)
    pairs = planted_problem().train
    for step in range(steps):
        fills = {"step": jnp.array([step])}
        state, metrics = program(state, 1, (jnp.asarray(gradients), fills), pairs)
        np.testing.assert_allclose(
            metrics["gradient_rms"][0, 0], np.sqrt(np.mean(gradients[step] ** 2)), rtol=1e-5
        )

    expected, first, second = start.astype(float), np.zeros(shape), np.zeros(shape)
    warmup = 0.25 * steps
    for step, raw in enumerate(gradients.astype(float)):
        clipped = raw / max(1.0, np.sqrt(np.mean(raw**2)))
        first = 0.9 * first + 0.1 * clipped
        second = 0.8 * second + 0.2 * clipped**2
        direction = (first / (1 - 0.9 ** (step + 1))) / (
            np.sqrt(second / (1 - 0.8 ** (step + 1))) + 1e-8
        )
        rise = min(1.0, (step + 1) / warmup)
        fall = 1 - max(0.0, step - warmup) / (steps - warmup)
        rate = 0.3 * rise * fall
        expected = np.clip(expected - rate * direction - rate * 0.4 * expected, -1, 1)
    np.testing.assert_allclose(state.tau["attn.q"][0], expected, atol=2e-5)


def test_clamp_is_a_box():
    np.testing.assert_array_equal(clamp({"a": jnp.array([-3.0, 0.25, 1.5])})["a"], [-1, 0.25, 1])


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_good_state():
    problem, seen = planted_problem(), []
    bad = jax.tree.map(lambda leaf: leaf, dict(problem.params))

    def after(state, metrics):
        seen.append(int(state.step[0]))
        bad["embed"] = jnp.full_like(bad["embed"], jnp.nan)

    broken = dataclasses.replace(problem, params=bad)
    with pytest.raises(FloatingPointError, match=r"at step 20: the last good .* 20"):
        train_masks(broken, initial_state(problem, JOBS), after)
    assert seen == [20]


def test_a_parameter_that_is_not_a_number_is_no_closed_gate():
    problem = planted_problem()
    state = initial_state(problem, JOBS)
    tau = {**state.tau, "attn.q": state.tau["attn.q"].at[1, 0, 0].set(jnp.nan)}
    with pytest.raises(FloatingPointError, match="of job 1 left the finite numbers at step 0"):
        train_masks(problem, dataclasses.replace(state, tau=tau))
