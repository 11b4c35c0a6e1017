"""Residual edges: training laws, evaluation against the plain model, connection, recovery."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuitjax.circuit.find_edges import (
    default_edge_hyper,
    default_edge_jobs,
    edge_candidates,
    initial_edge_state,
    pick_edges,
    train_edges,
)
from circuitjax.prune.residual import EdgeConfig, ResidualMasks, active_edges
from circuitjax.prune.residual_paths import connected
from circuitjax.prune.residual_problem import fixed_replacements, make_edge_problem
from circuitjax.prune.residual_select import edge_answers, look_at
from circuitjax.prune.residual_trial import EdgeTrial, gate_slopes

from circuitjax.core import checkpoints
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.transformer import apply
from circuitjax.prune.train import Job, make_train_chunk
from tests.prune.planted import CONFIG, TASK, planted_model

TRUTH = {"embed->a0.h0<v>", "a0.h0->m1<in>", "m1->logits"}
SETTINGS = EdgeConfig(
    steps=60, batch_size=16, chunk=20, train_examples=64, validation_examples=24, test_examples=40
)


def problem_of(**changes):
    return make_edge_problem(planted_model(), TASK, dataclasses.replace(SETTINGS, **changes))


@pytest.fixture(scope="module")
def trained():
    problem = problem_of()
    jobs = default_edge_jobs(SETTINGS, [0, 1])
    return problem, jobs, train_edges(problem, initial_edge_state(problem, jobs))


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_jobs_together_equal_each_alone(trained):
    problem, jobs, state = trained
    for index in (0, 3):
        alone = train_edges(problem, initial_edge_state(problem, [jobs[index]]))
        assert_same(alone, jax.tree.map(lambda leaf, i=index: leaf[i : i + 1], state))


def test_chunks_of_one_length_share_one_compiled_program(trained):
    problem, jobs, _ = trained
    program = make_train_chunk.__wrapped__(ResidualMasks(problem.config, problem.settings))
    state = initial_edge_state(problem, jobs)
    for _ in range(2):
        state, _ = program(state, 2, (problem.params, problem.fixed), problem.train)
    assert program._cache_size() == 1


def test_a_restart_from_disk_equals_the_whole(trained, tmp_path):
    problem, jobs, whole = trained
    kept = []

    def on_chunk(state, metrics):
        if int(state.step[0]) == 20:
            checkpoints.save_step(tmp_path, 20, state)
        kept.append(metrics["sparsity"])

    train_edges(problem, initial_edge_state(problem, jobs), on_chunk)
    restored = checkpoints.load_step(tmp_path, 20, initial_edge_state(problem, jobs))
    assert_same(train_edges(problem, jax.device_put(restored)), whole)
    assert np.concatenate(kept, axis=1).shape == (4, 60)


def test_all_open_is_the_model_and_all_closed_the_corrupted_run():
    problem = problem_of()
    size = residual_graph(CONFIG).num_edges
    found = edge_answers(problem, problem.test, np.stack([np.ones(size), np.zeros(size)]))
    np.testing.assert_allclose(found.kl[0], 0, atol=1e-5)
    assert found.agree[0].all()
    places = np.asarray(problem.test.positions)[:, :, None]
    for row, side in enumerate((0, 1)):
        logits = apply(CONFIG, problem.params, problem.test.tokens[:, side]).logits
        logits = np.take_along_axis(np.asarray(logits), places, axis=1)[:, 0]
        right, wrong = (
            np.take_along_axis(logits, np.asarray(tokens), axis=1)[:, 0]
            for tokens in (problem.test.right, problem.test.wrong)
        )
        np.testing.assert_allclose(found.odds[row], right - wrong, atol=1e-4)
    # A pair's corrupted prompt is its other prompt: both rows tell the same pair apart.
    pairs = found.pair_differences()[0]
    assert (pairs[:, 0] > 0).all()
    assert (pairs[:, 1] < 0).all()


@pytest.mark.parametrize(
    ("gate", "control", "ablation"),
    [
        ("hard_concrete", "lagrangian", "interchange"),
        pytest.param("hard_concrete", "lagrangian", "zero", marks=pytest.mark.slow),
        pytest.param("hard_concrete", "lagrangian", "mean", marks=pytest.mark.slow),
        ("heaviside", "count", "interchange"),
    ],
)
def test_the_planted_edges_are_recovered(gate, control, ablation):
    changes = {"gate": gate, "control": control, "node_gates": gate == "hard_concrete"}
    problem = problem_of(ablation=ablation, target_value=0.1, steps=100, **changes)
    jobs = default_edge_jobs(problem.settings, range(5))
    state = train_edges(problem, initial_edge_state(problem, jobs))
    candidates = edge_candidates(problem, jobs, state)
    graph = residual_graph(CONFIG)
    for seed in range(5):
        own = [found for found in candidates if found.job.seed == seed]
        found = pick_edges(problem, own)
        assert found.choice.reached
        names = {graph.names[edge] for edge in np.flatnonzero(found.choice.kept)}
        assert names == TRUTH


def test_the_requested_sparsity_is_reached():
    problem = problem_of(steps=200, chunk=100)
    targets = (0.3, 0.6, 0.9)
    jobs = [
        Job(0, default_edge_hyper(problem.settings, target_sparsity=target)) for target in targets
    ]
    last = {}

    def on_chunk(state, metrics):
        last.update(metrics)

    train_edges(problem, initial_edge_state(problem, jobs), on_chunk)
    np.testing.assert_allclose(last["sparsity"][:, -1], targets, atol=0.01)


@pytest.mark.parametrize("target", ["edges", "match_soft", "kl"])
def test_other_targets(trained, target):
    problem, jobs, state = trained
    value = {"edges": 5, "match_soft": 1, "kl": 0.01}[target]
    settings = dataclasses.replace(SETTINGS, target=target, target_value=value)
    changed = dataclasses.replace(problem, settings=settings)
    for found in edge_candidates(changed, jobs, state):
        if target == "edges":
            assert found.edges <= 5
        if target == "match_soft":
            assert found.choice.selection.k == max(1, round(found.choice.soft))
        if target == "kl":
            assert found.choice.kl <= 0.01


@pytest.mark.parametrize("ablation", ["interchange", "zero"])
def test_connection_against_a_search_along_paths(ablation):
    graph = residual_graph(CONFIG)
    rng = np.random.default_rng(0)
    for _ in range(30):
        kept = rng.random(graph.num_edges) < rng.choice([0.1, 0.3, 0.6])
        edges = [graph.names[e].split("->") for e in np.flatnonzero(kept)]
        arcs = [(writer, reader.split("<")[0]) for writer, reader in edges]

        def reach(start, arcs):
            found, todo = {start}, [start]
            while todo:
                here = todo.pop()
                for a, b in arcs:
                    if a == here and b not in found:
                        found.add(b)
                        todo.append(b)
            return found

        forward = reach("embed", arcs) if ablation == "interchange" else set(graph.writers)
        backward = reach("logits", [(b, a) for a, b in arcs])
        expected = {
            e
            for e in np.flatnonzero(kept)
            if graph.writers[graph.sources[e]] in forward
            and graph.readers[graph.targets[e]].split("<")[0] in backward
        }
        assert set(np.flatnonzero(connected(CONFIG, kept, ablation))) == expected


def test_dropping_what_is_not_connected_changes_no_answer():
    rng = np.random.default_rng(1)
    for ablation in ("interchange", "zero"):
        problem = problem_of(ablation=ablation)
        masks = rng.random((6, residual_graph(CONFIG).num_edges)) < 0.4
        bare = np.stack([connected(CONFIG, mask, ablation) for mask in masks])
        assert (bare != masks).any()
        before, after = (edge_answers(problem, problem.test, m) for m in (masks, bare))
        np.testing.assert_allclose(before.odds, after.odds, atol=1e-4)
        np.testing.assert_allclose(before.kl, after.kl, atol=1e-5)


def test_the_derivative_by_a_hard_gate():
    problem = problem_of()
    rng = np.random.default_rng(2)
    gates = (rng.random(residual_graph(CONFIG).num_edges) < 0.7).astype(np.float32)
    batch = problem.validation.take(np.arange(6))
    slope = np.asarray(gate_slopes(problem, "task", batch, jnp.asarray(gates)))
    strong = np.argsort(-np.abs(slope))[:3]
    for edge in (*strong, *rng.choice(len(gates), 3, replace=False)):
        sides = np.stack([gates, gates])
        sides[:, edge] += (0.01, -0.01)
        task = edge_answers(problem, batch, sides).task_losses()
        assert slope[edge] == pytest.approx((task[0] - task[1]) / 0.02, abs=5e-3)


@pytest.mark.parametrize("target", ["kl", "loss"])
def test_what_closing_costs_is_what_selection_measures(target):
    problem = problem_of(target=target, calibrate=False)
    rng = np.random.default_rng(3)
    opened = rng.random(residual_graph(CONFIG).num_edges) < 0.7
    some = problem.train.take(np.arange(40))  # a whole batch and part of another
    trial = EdgeTrial(problem, some)
    found = edge_answers(problem, some, (opened | ~trial.alive(np.ones_like(opened)))[None])
    expected = found.kl.mean() if target == "kl" else found.task_losses()[0]
    assert trial.loss(opened) == pytest.approx(expected, rel=1e-4)
    rises = trial.rises(opened)
    assert not rises[~opened].any()
    first = some.take(np.arange(32))
    for edge in np.argsort(-np.abs(rises))[:3]:
        sides = np.stack([opened, opened]).astype(np.float32)
        sides[:, edge] += (0.01, -0.01)
        found = edge_answers(problem, first, sides)
        losses = found.kl.mean(axis=1) if target == "kl" else found.task_losses()
        assert rises[edge] == pytest.approx((losses[1] - losses[0]) / 0.02, rel=0.05, abs=1e-3)


def test_the_mean_replacement_is_the_mean_over_real_tokens():
    problem = problem_of(ablation="mean")
    some = problem.train.take(np.arange(5))
    found = fixed_replacements(CONFIG, problem.params, "mean", some)
    tokens, last = np.asarray(some.tokens)[:, 1], np.asarray(some.positions)[:, 0]
    table = np.asarray(problem.params["embed"])
    rows = [table[t] for row, end in zip(tokens, last, strict=True) for t in row[: end + 1]]
    np.testing.assert_allclose(found.first[0, 0, 0], np.mean(rows, axis=0), atol=1e-6)


def test_positions_do_not_count_under_interchange():
    config = dataclasses.replace(CONFIG, position="learned")
    graph = residual_graph(config)
    assert active_edges(config, "zero").all()
    active = active_edges(config, "interchange")
    assert active.sum() == graph.num_edges - len(graph.readers)


def test_a_given_set_is_judged_as_it_is():
    problem = problem_of()
    names = residual_graph(CONFIG).names
    truth = np.array([name in TRUTH for name in names])
    assert look_at(problem, truth).reached
    assert not look_at(problem, np.zeros_like(truth)).reached


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "edges", "target_value": 10**6}, "only"),
        ({"target_value": -1.0}, "target_loss"),
        ({"gate": "soft"}, "gate"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        problem_of(**changes)
    with pytest.raises(ValueError, match="target_sparsity"):
        default_edge_hyper(SETTINGS, target_sparsity=1.0)
