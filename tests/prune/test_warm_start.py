"""Gates that start from a ranking start in its order, spread as said, and are otherwise the same."""

import dataclasses

import numpy as np
import pytest

from circuitjax.prune.attribution import gains
from circuitjax.prune.config import Hyper
from circuitjax.prune.cut import scouts
from circuitjax.prune.jobs import initial_state
from circuitjax.prune.opening import GATES
from circuitjax.prune.rank import Baseline, rank_scores, scores_without_training
from circuitjax.prune.train import Job
from circuitjax.prune.trial import GateTrial
from tests.prune.planted import SEARCH, planted_problem


@pytest.mark.parametrize(("gate", "spread"), [("heaviside", 0.2), ("hard_concrete", 2.0)])
def test_gates_start_in_the_order_of_the_ranking(gate, spread):
    problem = planted_problem()
    cold = dataclasses.replace(SEARCH, choices=dataclasses.replace(SEARCH.choices, gate=gate))
    choices = dataclasses.replace(cold.choices, warm_start="attribution")
    warm = dataclasses.replace(cold, choices=choices)
    jobs = [Job(seed, Hyper(init_noise_scale=0.0, init_noise_bias=0.1)) for seed in (0, 1)]
    one, two = (initial_state(problem, search, jobs) for search in (cold, warm))
    before, after = np.asarray(one.tau["gates"]), np.asarray(two.tau["gates"])
    np.testing.assert_array_equal(after[0], after[1])  # without noise jobs start alike
    size = np.abs(gains(problem, problem.train, "attribution"))
    ordered = size[np.argsort(-after[0])]
    assert np.all(np.diff(ordered) <= 1e-6 * size.max())  # to rounding: some are equal
    moved = (after - before)[0]
    within = np.abs(after[0]) < GATES[gate].bound
    assert moved[within].std() == pytest.approx(spread, rel=0.1)
    assert moved.mean() == pytest.approx(0, abs=0.1 * spread)
    assert set(two.tau) == set(one.tau)
    np.testing.assert_array_equal(one.key, two.key)


@pytest.mark.parametrize("ranking", ["attribution", "fisher"])
def test_where_a_loss_is_held_training_begins_at_the_rankings_own_cut(ranking):
    problem = planted_problem()
    choices = dataclasses.replace(SEARCH.choices, control="hold", warm_start=ranking)
    search = dataclasses.replace(SEARCH, choices=choices)
    (scores,) = np.asarray(
        initial_state(problem, search, [Job(0, Hyper(init_noise_bias=0.1))]).tau["gates"]
    )
    ranks = rank_scores(problem, scores_without_training(problem, Baseline(ranking), 0), 0).ranks
    count = int((scores > 0).sum())
    assert 5 <= count < len(scores) // 4  # about the seven planted ones
    np.testing.assert_array_equal(scores > 0, ranks < count)
    assert np.all(np.diff(scores[np.argsort(ranks)]) <= 0)
    trial = GateTrial(problem, scouts(problem, problem.train), "calibrated")
    target = search.selection.value
    assert trial.loss(ranks < count) <= target
    assert trial.loss(ranks < int(count / 1.2)) > target
