"""Seeds and controls: jobs of one program, each the run it would be alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.audit.reruns import Rerun, jaccard, run_worlds, stability
from circuitjax.audit.worlds import (
    held_out_templates,
    make_worlds,
    shuffle_weights,
    stack_worlds,
)
from circuitjax.circuit.find import Job, initial_state, train_masks
from circuitjax.prune.config import Hyper
from circuitjax.prune.evaluate import attribution
from circuitjax.prune.gates import flatten_units, gates_from_ranks
from circuitjax.prune.objective import Pairs
from circuitjax.prune.select import rank_nodes
from circuitjax.tasks.base import Task
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import PLANTED, TASK, planted_model, planted_problem

HYPER = Hyper(0.01, init_noise_scale=0.05, lr=0.02)


@pytest.fixture(scope="module")
def ran():
    worlds, absent = make_worlds(planted_model(), TASK, planted_problem())
    return worlds, absent, run_worlds(worlds, HYPER, [0, 1], pairs=40)


def flat(names):
    return np.concatenate([m.ravel() for m in circuit_of(names).mask.values()])


def test_the_task_is_found_and_the_controls_are_not(ran):
    worlds, absent, runs = ran
    assert [world.name for world in worlds] == ["task", "nonsense", "shuffled", "weights"]
    assert "one template only" in absent["templates"]
    assert [(run.world, run.seed) for run in runs] == [
        ("task", 0),
        ("task", 1),
        ("nonsense", 0),
        ("shuffled", 0),
        ("weights", 0),
    ]
    for run in runs[:2]:
        assert run.reached
        assert run.loss_test < 0.3
    # Hard gates of a chain may all die in training: not every seed finds the seven.
    assert runs[0].nodes <= 7
    assert np.all(flat(PLANTED)[runs[0].mask])
    # No other token can be told from the first letter, and coins tell nothing.
    assert not runs[2].reached
    assert not runs[3].reached
    assert min(run.loss for run in runs[2:4]) > 0.3


def test_a_job_of_a_world_is_the_run_alone(ran):
    problem = planted_problem()
    jobs = [Job(0, HYPER)]
    state = train_masks(problem, initial_state(problem, jobs))
    one = jax.tree.map(lambda leaf: leaf[0], state)
    order = rank_nodes(
        np.asarray(flatten_units(one.tau)), attribution(problem, one, problem.validation)
    )
    # What the search cut is a prefix of the ranking that the plain training gives, cleaned up.
    run = ran[2][0]
    places = np.flatnonzero(run.mask)
    whole = gates_from_ranks(
        problem.config, jnp.asarray(order), int(order[places].max()) + 1, False
    )
    kept = np.concatenate([np.asarray(m).ravel() for m in whole.values()]) > 0.5
    assert np.all(kept[run.mask])
    assert kept.sum() <= 3 * run.nodes


def test_worlds_differ_in_what_they_say(ran):
    by_name = {world.name: world.problem for world in ran[0]}
    task = by_name["task"]
    real = np.asarray(task.train.answers)
    nonsense = np.asarray(by_name["nonsense"].train.answers)
    assert len(np.unique(nonsense, axis=0)) == 1
    assert not set(nonsense.ravel()) & set(real.ravel())
    shuffled = np.asarray(by_name["shuffled"].train.answers)
    swapped = np.any(shuffled != real, axis=1)
    assert 0.2 < swapped.mean() < 0.8
    np.testing.assert_array_equal(shuffled[swapped], real[swapped][:, ::-1])
    for name in ("nonsense", "shuffled"):
        np.testing.assert_array_equal(by_name[name].train.tokens, task.train.tokens)


def test_shuffled_weights_keep_pattern_and_values(rng):
    params = planted_model().params
    found = shuffle_weights(params, rng)
    for name, stack in params["layers"].items():
        for before, after in zip(stack, found["layers"][name], strict=True):
            np.testing.assert_array_equal(before != 0, after != 0)
            np.testing.assert_array_equal(np.sort(before.ravel()), np.sort(after.ravel()))
    assert np.any(found["layers"]["mlp_in"] != params["layers"]["mlp_in"])
    np.testing.assert_array_equal(params["embed"] != 0, found["embed"] != 0)


def test_stacked_worlds_have_equal_shapes():
    def pairs(size, length, value):
        tokens = jnp.full((size, 2, length), value, jnp.int32).at[:, :, 0].set(9)
        return Pairs(tokens, jnp.full((size, 2), length - 1), jnp.full((size, 2), value))

    sets = [pairs(5, 4, 1), pairs(3, 6, 2)]
    stacked = stack_worlds(sets, True, 4)
    assert stacked.tokens.shape == (6, 2, 2, 6)  # an even number, for rows of two
    np.testing.assert_array_equal(stacked.tokens[:, 0, 0, 4:], 9)
    np.testing.assert_array_equal(stacked.tokens[:, 1, 1, 1:], 2)
    np.testing.assert_array_equal(stacked.answers[:, 1], 2)
    # The same prompt twice: the second one's last token is all that it has for itself.
    packed = stack_worlds([dataclasses.replace(some, row_length=8) for some in sets], True, 4)
    assert packed.tokens.shape == (3, 2, 16)
    for world, length in ((0, 4), (1, 6)):
        real = np.asarray(packed.layout.prompt[:, world]) >= 0
        np.testing.assert_array_equal(real.sum(axis=-1), 2 * (length + 1))
    assert packed.draw(jax.random.key(0), 4).completions.shape == (2, 2, 2, 2)


@pytest.mark.parametrize(("longer", "slots"), [(1, 8), (8, 16)])
def test_a_few_longer_rows_of_another_world_are_left_out(longer, slots):
    def pairs(lengths, value):
        tokens = jnp.full((len(lengths), 2, 8), value, jnp.int32).at[:, :, 0].set(9)
        last = jnp.asarray(lengths, jnp.int32)[:, None].repeat(2, axis=1) - 1
        found = Pairs(tokens, last, jnp.full((len(lengths), 2), value))
        return dataclasses.replace(found, row_length=8)

    # Both prompts alike: of n tokens a pair takes n + 1 slots.
    sets = [pairs([3] * 40, 1), pairs([8] * longer + [3] * (40 - longer), 2)]
    stacked = stack_worlds(sets, True, 4)
    assert stacked.tokens.shape == (20, 2, slots)
    for world in (0, 1):
        rows = jax.tree.map(lambda leaf, w=world: leaf[:, w], stacked)
        assert np.all(np.asarray(rows.ends) < slots)
        # Every prompt ends with its own world's token.
        ends = np.take_along_axis(np.asarray(rows.tokens), np.asarray(rows.ends), axis=1)
        np.testing.assert_array_equal(ends, world + 1)


def test_some_templates_are_held_out_where_there_are_several():
    def sampler(name):
        def sample(rng):
            return TASK.samplers[0](rng)

        sample.__name__ = name
        return sample

    task = Task("six", "several", samplers=tuple(sampler(name) for name in "abcdef"))
    assert held_out_templates(task) == ("b", "e")
    assert held_out_templates(TASK) == ()
    worlds, absent = make_worlds(planted_model(), task, planted_problem())
    assert "templates" not in absent
    world = next(world for world in worlds if world.name == "templates")
    assert "b, e" in world.note
    assert world.problem.test.size == planted_problem().test.size


def test_jaccard_and_core_by_hand():
    a, b, c = (np.array(bits, bool) for bits in ([1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]))
    assert jaccard(a, b) == pytest.approx(0.5)
    assert jaccard(a, a) == 1
    assert jaccard(a, c) == 0
    assert jaccard(c, c) == 1
    problem = planted_problem()
    extra = [
        flat((*PLANTED, "0.attn.act_in.5")),
        flat((*PLANTED, "0.attn.act_in.6")),
    ]
    runs = [Rerun("task", seed, mask, 0, True, 0.1, 0.1) for seed, mask in enumerate(extra)]
    found = stability(problem, runs, flat(PLANTED), pairs=24)
    assert found["jaccard"] == pytest.approx(7 / 9)
    assert found["with_circuit"] == pytest.approx(7 / 8)
    assert found["core"] == found["core_in_circuit"] == 7
    assert found["core_share"] == pytest.approx(7 / 8)
    assert found["core_loss"] < 0.1
    alone = dataclasses.replace(runs[0], mask=flat(PLANTED[:3]))
    broken = stability(problem, [alone, runs[1]], flat(PLANTED), pairs=24)
    assert broken["core"] == 3
    assert broken["core_loss"] == pytest.approx(np.log(2), abs=1e-3)
