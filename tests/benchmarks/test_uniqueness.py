"""Planted models with one, two and three ways give one, two and three circuits."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from circuitjax.audit.measure import Measure
from circuitjax.benchmarks.recovery import jobs_of, planted_problem, planted_search
from circuitjax.benchmarks.uniqueness import Found, _Run, different, uniqueness
from circuitjax.benchmarks.without import without
from circuitjax.prune.evaluate import answers
from circuitjax.zoo.planted.redundant import redundant_models

BUILD = {build.__name__: build for build in redundant_models()}
COUNTS = {"one_way": 1, "two_ways": 2, "three_ways": 3}
SETS = [frozenset("abcde"), frozenset("fghij"), frozenset("abxyz"), frozenset("vwxyz"), frozenset()]


def problem_of(name, grain, seed=0):
    search = planted_search(grain, "mean")
    selection = dataclasses.replace(search.selection, eliminate=True)
    search = dataclasses.replace(search, selection=selection)
    return planted_problem(BUILD[name](seed)[0], search), search


@pytest.mark.parametrize("most", [0.0, 0.2, 0.25, 1.0])
def test_different_is_the_largest_collection(most):
    def far(one, other):
        union = len(one | other)
        return (len(one & other) / union if union else 1.0) <= most

    chosen = different(SETS, most)
    assert all(far(SETS[i], SETS[j]) for i, j in itertools.combinations(chosen, 2))
    sizes = [
        len(some)
        for size in range(1, len(SETS) + 1)
        for some in itertools.combinations(range(len(SETS)), size)
        if all(far(SETS[i], SETS[j]) for i, j in itertools.combinations(some, 2))
    ]
    assert len(chosen) == max(sizes)


def test_different_at_its_ends():
    assert different([]) == ()
    assert different([frozenset("a")]) == (0,)
    assert different([frozenset("a")] * 3) == (0,)
    with pytest.raises(ValueError, match="17 circuits are too many to compare: at most 16"):
        different([frozenset("a")] * 17)


def test_without_some_gates_is_the_whole_with_these_closed(rng):
    problem, _ = problem_of("two_ways", "nodes")
    whole, few = problem.whole, problem.validation.first(8)
    closed = rng.random(whole.num_gates) < 0.3
    rows = rng.random((2, whole.num_gates)) < 0.8
    less = without(whole, closed)
    found = answers(less, problem.batches, few, rows)
    expected = answers(whole, problem.batches, few, rows & ~closed)
    np.testing.assert_array_equal(found.odds, expected.odds)
    assert less.grain == whole.grain
    np.testing.assert_array_equal(less.exists(), whole.exists() & ~closed)
    np.testing.assert_array_equal(less.cut(rows[0]), whole.cut(rows[0] & ~closed))
    np.testing.assert_array_equal(less.alive(rows[0]), whole.alive(rows[0] & ~closed))
    assert float(less.count(np.ones(whole.num_gates, np.float32))) == (~closed).sum()
    assert not np.any(less.alive(closed))


def counted(name, grain, most, seed=0):
    problem, search = problem_of(name, grain, seed)
    return uniqueness(
        problem, search, lambda s, n: jobs_of(search, n, [s]), most, polished=grain == "nodes"
    )


def check(found, ways, grain):
    assert found.count == len(ways)
    parts = {grain: [set(getattr(way, grain)) for way in ways]}[grain]
    if grain == "weights":
        parts = [{"->".join(pair) for pair in way} for way in parts]
    # Each circuit holds one whole way, and no two the same.
    held = [[way <= set(one.parts) for way in parts] for one in found.apart.circuits]
    assert np.array_equal(np.sum(held, axis=0), np.ones(len(ways)))
    for one in found.apart.circuits:
        assert one.reached
        assert one.loss <= found.suffices
        assert one.loss_own <= found.suffices
        # With one of several ways gone the model still does the task.
        assert (one.loss_without <= found.suffices) == (len(ways) > 1)
    assert (found.apart.loss_shared <= found.suffices) == (len(ways) == 1)
    assert found.apart.loss_together <= found.suffices
    assert found.loss_empty > found.suffices


@pytest.mark.parametrize("name", BUILD)
def test_what_was_found_is_closed_before_the_next_search(name, monkeypatch):
    """A search that finds the first way that is whole, in a model and losses that are real."""
    problem, search = problem_of(name, "nodes")
    ways, asked = BUILD[name](0), []

    def find(run, seed, closed, how):
        asked.append((how, seed, int(closed.sum())))
        whole = [way.nodes for way in ways if not np.any(run.gates(way.nodes) & closed)]
        run.measure = Measure("task", search.selection.value)
        parts = whole[0] if whole else ()
        loss = run.losses([frozenset(parts)])[0]
        return Found(how, seed, parts, bool(whole), loss), None

    monkeypatch.setattr(_Run, "find", find)
    found = uniqueness(problem, search, lambda s, n: [], 5, seed=3)
    check(found, ways, "nodes")
    size, count = len(ways[0].nodes), len(ways)
    assert asked[:5] == [("plain", 3 + i, 0) for i in range(5)]
    assert asked[5:-2] == [("without", 3 + i, size * i) for i in range(1, count)]
    # What two circuits may share: a third of their gates.
    assert asked[-2:] == [
        ("without", 3 + count, size * count),
        ("sharing", 3 + count, size * count - size // 3),
    ]
    assert found.plain.different == (0,)
    assert json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("grain", ["nodes", "edges", "weights"])
@pytest.mark.parametrize("name", BUILD)
def test_as_many_circuits_as_ways(name, grain, seed):
    check(counted(name, grain, 4, seed), BUILD[name](seed), grain)


def test_bad_input_is_one_clear_line():
    problem, search = problem_of("one_way", "nodes")
    with pytest.raises(ValueError, match="the number of circuits is 0; it must be from 1 to 16"):
        uniqueness(problem, search, lambda s, n: [], 0)
    easy = dataclasses.replace(search, selection=dataclasses.replace(search.selection, value=9.0))
    with pytest.raises(ValueError, match="the empty circuit meets the target of 9 nats"):
        uniqueness(problem, easy, lambda s, n: [], 2)
    selection = dataclasses.replace(search.selection, target="edges", value=5)
    with pytest.raises(ValueError, match="cut to edges, but circuits are compared at equal loss"):
        uniqueness(problem, dataclasses.replace(search, selection=selection), lambda s, n: [], 2)
