"""Sets of gates by one program give what `answers` gives set by set, and silent gates are silent."""

import numpy as np
import pytest

from circuitjax.benchmarks.programs import PROGRAMS
from circuitjax.benchmarks.recovery import (
    gate_sets,
    planted_problem,
    planted_search,
    program_problem,
    program_search,
)
from circuitjax.prune.evaluate import answers
from circuitjax.zoo.planted.models import planted_models


def program(grain, ablation):
    search = program_search(ablation, grain)
    return program_problem(PROGRAMS["neighbours"](0).program(), search), search


def planted(grain, ablation):
    search = planted_search(grain, ablation)
    return planted_problem(planted_models()[1](0), search), search


@pytest.mark.parametrize(
    ("made", "grain", "ablation"),
    [
        (program, "edges", "interchange"),
        pytest.param(program, "edges", "mean", marks=pytest.mark.slow),
        pytest.param(program, "nodes", "zero", marks=pytest.mark.slow),
        pytest.param(program, "nodes", "interchange", marks=pytest.mark.slow),
        pytest.param(program, "weights", "zero", marks=pytest.mark.slow),
        (planted, "nodes", "mean"),
        pytest.param(planted, "edges", "resample", marks=pytest.mark.slow),
    ],
)
def test_losses_are_those_of_each_set_alone(rng, made, grain, ablation):
    problem, search = made(grain, ablation)
    asked, kl = gate_sets(problem, search), search.selection.target == "kl"
    exists = np.flatnonzero(problem.whole.exists())
    assert asked.names == [problem.whole.names()[gate] for gate in exists]
    masks = rng.random((3, len(exists))) < 0.9
    rows = np.zeros((3, problem.whole.num_gates), bool)
    rows[:, exists] = masks
    found = answers(problem.whole, problem.batches, problem.validation, rows, full=kl)
    expected = found.kl.mean(axis=1) if kl else found.losses("binary")
    np.testing.assert_allclose(asked.changes(masks), expected, rtol=1e-4, atol=1e-6)
    # More sets than one call takes, and one alone.
    many = np.repeat(masks, 23, axis=0)
    np.testing.assert_allclose(asked.changes(many), np.repeat(expected, 23), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(asked.changes(masks[:1]), expected[:1], rtol=1e-4, atol=1e-6)
    # What cannot matter: all of it closed, and any part of it.
    loud = asked.can_matter()
    some = loud | (rng.random(len(loud)) < 0.5)
    whole = asked.changes(np.ones((1, len(loud)), bool))
    np.testing.assert_allclose(asked.changes(np.stack([loud, some])), whole.repeat(2), atol=1e-5)
    assert loud.any()
