"""Seeds and controls: jobs of one program, each the run it would be alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.audit.measure import members
from circuitjax.audit.reruns import Rerun, jaccard, run_worlds, stability
from circuitjax.audit.worlds import (
    make_worlds,
    shuffle_weights,
    stack_worlds,
)
from circuitjax.gated.examples import Examples
from circuitjax.prune.candidates import candidates_of
from circuitjax.prune.config import Hyper
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.train import Job
from circuitjax.tasks.base import Task
from circuitjax.tasks.templates import held_out_templates, templates_of
from circuitjax.tasks.tokenizer import Tokenizer
from tests.audit.planted_audit import circuit_of, measure
from tests.prune.planted import PLANTED, SEARCH, TASK, planted_model, planted_problem

HYPER = Hyper(k_coef=0.01, init_noise_scale=0.05, lr=0.02)


@pytest.fixture(scope="module")
def ran():
    worlds, absent = make_worlds(TASK, planted_problem(), SEARCH)
    aim, said = measure(circuit_of(PLANTED)), []
    runs = run_worlds(worlds, SEARCH, aim, HYPER, [0, 1], items=40, say=said.append)
    steps = SEARCH.train.steps
    assert said[0].startswith(f"searches: step {SEARCH.train.chunk} of {steps} of 5 jobs, about ")
    assert said[-1] == "searches: 5 of 5 ranked"
    return worlds, absent, runs


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
    assert runs[0].parts <= set(PLANTED)
    assert runs[0].figures().size == runs[0].nodes == len(runs[0].parts)
    # No other token can be told from the first letter, and coins tell nothing.
    assert not runs[2].reached
    assert not runs[3].reached
    assert min(run.loss for run in runs[2:4]) > 0.3


def test_a_job_of_a_world_is_the_run_alone(ran):
    problem, jobs = planted_problem(), [Job(0, HYPER)]
    state = train_gates(problem, SEARCH, initial_state(problem, SEARCH, jobs))
    (alone,) = candidates_of(problem, SEARCH, jobs, state)
    run = ran[2][0]
    assert run.nodes == alone.nodes
    assert run.edges == alone.edges
    assert run.loss == pytest.approx(alone.choice.loss, abs=1e-5)


def test_worlds_differ_in_what_they_say(ran):
    by_name = {world.name: world.problem for world in ran[0]}
    task = by_name["task"]
    real = np.asarray(task.train.right)[:, 0]
    nonsense = np.asarray(by_name["nonsense"].train.right)[:, 0]
    assert len(np.unique(nonsense.reshape(-1, 2), axis=0)) == 1
    assert not set(nonsense) & set(real)
    wrong = np.asarray(by_name["nonsense"].train.wrong).reshape(-1, 2)
    np.testing.assert_array_equal(wrong, nonsense.reshape(-1, 2)[:, ::-1])
    shuffled = np.asarray(by_name["shuffled"].train.right)[:, 0]
    swapped = (shuffled != real).reshape(-1, 2)
    np.testing.assert_array_equal(swapped[:, 0], swapped[:, 1])
    assert 0.2 < swapped.mean() < 0.8
    for name in ("nonsense", "shuffled"):
        np.testing.assert_array_equal(by_name[name].train.tokens, task.train.tokens)


def test_what_reads_no_completions_has_no_world_of_others():
    choices = dataclasses.replace(SEARCH.choices, minimise="kl")
    worlds, absent = make_worlds(
        TASK, planted_problem(), dataclasses.replace(SEARCH, choices=choices)
    )
    assert [world.name for world in worlds] == ["task", "weights"]
    assert "reads no completions" in absent["nonsense"]
    unpaired = planted_problem().with_sets(
        {s: dataclasses.replace(getattr(planted_problem(), s), paired=False, row_length=0)
         for s in ("train", "validation", "test")}
    )  # fmt: skip
    _, absent = make_worlds(TASK, unpaired, SEARCH)
    assert "no pairs" in absent["shuffled"]


def test_shuffled_weights_keep_pattern_and_values(rng):
    params = planted_model().params
    found = shuffle_weights(params, rng)
    for name, stack in params["layers"].items():
        for before, after in zip(stack, found["layers"][name], strict=True):
            np.testing.assert_array_equal(before != 0, after != 0)
            np.testing.assert_array_equal(np.sort(before.ravel()), np.sort(after.ravel()))
    assert np.any(found["layers"]["mlp_in"] != params["layers"]["mlp_in"])
    np.testing.assert_array_equal(params["embed"] != 0, found["embed"] != 0)


def problems(sets):
    return [planted_problem().with_sets({"train": some}) for some in sets]


def pairs(lengths, width, value, row=0) -> Examples:
    tokens = np.full((len(lengths), 2, width), value, np.int32)
    tokens[:, :, 0] = 9
    last = np.repeat(np.array(lengths)[:, None] - 1, 2, axis=1)
    return Examples.of_pairs(tokens, last, np.full((len(lengths), 2), value), row)


def test_stacked_worlds_have_equal_shapes():
    sets = [pairs([4] * 5, 4, 1), pairs([6] * 3, 6, 2)]
    stacked = stack_worlds(problems(sets), 4)
    assert stacked.tokens.shape == (12, 2, 2, 6)  # an even number of pairs, for rows of two
    np.testing.assert_array_equal(stacked.tokens[:, 0, 0, 4:], 9)
    np.testing.assert_array_equal(stacked.tokens[:, 1, 1, 1:], 2)
    np.testing.assert_array_equal(stacked.right[:, 1], 2)
    # The same prompt twice: the second one's last token is all that it has for itself.
    packed = stack_worlds(problems([dataclasses.replace(s, row_length=8) for s in sets]), 4)
    assert packed.tokens.shape == (3, 2, 16)
    for world, length in ((0, 4), (1, 6)):
        real = np.asarray(packed.layout.prompt[:, world]) >= 0
        np.testing.assert_array_equal(real.sum(axis=-1), 2 * (length + 1))
    assert packed.draw(jax.random.key(0), 4).completions.shape == (2, 2, 2, 2)


def test_worlds_with_fewer_completions_are_padded():
    few, many = pairs([4] * 4, 4, 1), pairs([4] * 4, 4, 2)
    wide = jnp.tile(many.right, (1, 3))
    stacked = stack_worlds(problems([few, many.replace_answers(wide, many.wrong)]), 4)
    assert stacked.right.shape == (8, 2, 3)
    np.testing.assert_array_equal(stacked.right[:, 0, 1:], -1)


@pytest.mark.parametrize(("longer", "slots"), [(1, 8), (8, 16)])
def test_a_few_longer_rows_of_another_world_are_left_out(longer, slots):
    # Both prompts alike: of n tokens a pair takes n + 1 slots.
    sets = [pairs([3] * 40, 8, 1, 8), pairs([8] * longer + [3] * (40 - longer), 8, 2, 8)]
    stacked = stack_worlds(problems(sets), 4)
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
    tokenizer = Tokenizer.from_json(planted_model().tokenizer_json)
    assert held_out_templates(templates_of(task, tokenizer)) == ("b", "e")
    assert held_out_templates(templates_of(TASK, tokenizer)) == ()
    worlds, absent = make_worlds(task, planted_problem(), SEARCH)
    assert "templates" not in absent
    world = next(world for world in worlds if world.name == "templates")
    assert "b, e" in world.note
    assert world.problem.test.size == planted_problem().test.size


def test_jaccard_and_core_by_hand():
    a, b, c = frozenset("abc"), frozenset("bcd"), frozenset()
    assert jaccard(a, b) == pytest.approx(0.5)
    assert jaccard(a, a) == 1
    assert jaccard(a, c) == 0
    assert jaccard(c, c) == 1
    problem, circuit = planted_problem(), circuit_of(PLANTED)
    aim, own = measure(circuit), members(circuit)
    assert own == set(PLANTED)
    runs = [
        Rerun("task", seed, own | {extra}, 8, 0, True, 0.1, 0.1)
        for seed, extra in enumerate(("0.attn.act_in.5", "0.attn.act_in.6"))
    ]
    found = stability(problem, aim, runs, own, items=24)
    assert found.jaccard == pytest.approx(7 / 9)
    assert found.with_circuit == pytest.approx(7 / 8)
    assert found.core == found.core_in_circuit == 7
    assert found.core_share == pytest.approx(7 / 8)
    assert found.core_loss < 0.1
    alone = dataclasses.replace(runs[0], parts=frozenset(PLANTED[:3]))
    broken = stability(problem, aim, [alone, runs[1]], own, items=24)
    assert broken.core == 3
    assert broken.core_loss == pytest.approx(np.log(2), abs=1e-3)
