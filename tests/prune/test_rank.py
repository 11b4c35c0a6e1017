"""Rankings: learned ones by score, and scores without training against independent computations."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.config import SITES
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.transformer import apply
from circuitjax.prune.attribution import gains
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import default_search
from circuitjax.prune.evaluate import answers, gate_slopes
from circuitjax.prune.find import prepare
from circuitjax.prune.jobs import initial_state, objective_of
from circuitjax.prune.opening import GATES
from circuitjax.prune.rank import (
    RANKINGS,
    Baseline,
    learned_ranking,
    rank_scores,
    scores_without_training,
)
from circuitjax.prune.train import Job
from tests.prune.planted import CONFIG, PLANTED, SEARCH, TASK, planted_model, planted_problem


@pytest.fixture(scope="module")
def problem():
    return planted_problem()


def test_attribution_finds_the_planted_nodes(problem):
    scores = scores_without_training(problem, Baseline("attribution"), 0)
    ranks = rank_scores(problem, scores, 0).ranks
    first = {problem.whole.names()[i] for i in np.flatnonzero(ranks < len(PLANTED))}
    assert first == set(PLANTED)


def test_attribution_is_the_slope_with_every_gate_open(problem):
    scores = scores_without_training(problem, Baseline("attribution", items=20), 0)
    some = problem.train.first(20)
    slopes = gate_slopes(problem, np.ones(problem.whole.num_gates), some, "task")
    np.testing.assert_allclose(scores, np.abs(slopes), rtol=1e-5, atol=1e-8)


def test_integrated_attribution_is_complete(problem):
    """Its sum over gates is the loss of the empty circuit minus that of the whole model."""
    some = problem.train.first(16)
    total = gains(problem, some, "integrated").sum()
    ends = np.stack([np.ones(problem.whole.num_gates), np.zeros(problem.whole.num_gates)])
    whole, empty = answers(problem.whole, problem.batches, some, ends).losses("binary")
    assert total == pytest.approx(empty - whole, abs=2e-3)


def test_integrated_attribution_is_of_the_loss_that_is_asked_for(problem):
    """Over the whole vocabulary the loss of a circuit that keeps nothing is log V, not log 2."""
    some = problem.train.first(16)
    baseline = Baseline("integrated", items=16)
    total = gains(problem, some, "integrated", loss="vocabulary")
    ends = np.stack([np.ones(problem.whole.num_gates), np.zeros(problem.whole.num_gates)])
    found = answers(problem.whole, problem.batches, some, ends, full=True)
    whole, empty = found.losses("vocabulary")
    assert total.sum() == pytest.approx(empty - whole, abs=1e-2)
    assert abs(total.sum() - gains(problem, some, "integrated").sum()) > 0.1
    scores = scores_without_training(problem, baseline, 0, "vocabulary")
    np.testing.assert_array_equal(scores, np.abs(total))


@pytest.mark.parametrize("tied", [False, True])
def test_variance_is_that_of_the_activations(problem, tied):
    """Of 40 pairs, which is more than are run at once."""
    problem = dataclasses.replace(problem, whole=dataclasses.replace(problem.whole, tied=tied))
    scores = scores_without_training(problem, Baseline("variance", items=40), 0)
    some = problem.train.first(40)
    tokens, last = some.tokens[:, 0], np.asarray(some.positions)[:, 0]
    captured = apply(CONFIG, problem.whole.params, tokens, capture=SITES).captured
    real = np.arange(tokens.shape[1])[None] <= last[:, None]
    tree = {s: np.asarray(captured[s], np.float64)[:, real].var(axis=1) for s in SITES}
    if tied:
        tree["attn.q"] = tree["attn.q"] + tree["attn.k"]
    np.testing.assert_allclose(scores, problem.whole.flat(tree), rtol=1e-3, atol=1e-6)


def test_random_is_a_permutation_of_its_seed(problem):
    one, same, other = (
        scores_without_training(problem, Baseline("random"), seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    assert sorted(one) == list(range(problem.whole.num_gates))


def test_equal_scores_are_in_random_order_and_bad_ones_refused(problem):
    equal = np.zeros(problem.whole.num_gates)
    one, other = (rank_scores(problem, equal, seed).ranks for seed in (0, 1))
    assert np.any(one != other)
    equal[3] = np.nan
    with pytest.raises(FloatingPointError, match=r"^1 of .* scores are not finite"):
        rank_scores(problem, equal, 0)


@pytest.mark.parametrize("field", ["items", "points"])
def test_a_bad_baseline_is_one_line(field):
    with pytest.raises(ValueError, match=f"^{field} is 0; it must be a whole number"):
        Baseline("attribution", **{field: 0})
    with pytest.raises(ValueError, match=r"^ranking is 'magic'; choose one of "):
        Baseline("magic")
    assert all(Baseline(name).to_dict()["ranking"] == name for name in RANKINGS)


def test_learned_gates_are_ranked_by_score_and_ties_by_slope(problem):
    objective = objective_of(problem, SEARCH)
    state = jax.tree.map(
        lambda leaf: leaf[0], initial_state(problem, SEARCH, [Job(0, Hyper(0.01))])
    )
    rng = np.random.default_rng(2)
    scores = np.round(rng.uniform(-1, 1, problem.whole.num_gates), 1)  # many are equal
    state = dataclasses.replace(state, tau={"gates": jnp.asarray(scores, jnp.float32)})
    found = learned_ranking(problem, objective, state, problem.validation)
    slopes = gate_slopes(problem, scores > 0, problem.validation, "task")
    order = np.argsort(found.ranks)
    pairs = list(itertools.pairwise(order))
    assert all(scores[a] >= scores[b] - 1e-6 for a, b in pairs)
    assert all(slopes[a] <= slopes[b] for a, b in pairs if scores[a] == scores[b])
    assert found.trained == int((scores > 0).sum())
    np.testing.assert_array_equal(found.opened, scores > 0)
    chance = GATES["heaviside"].chance(jnp.asarray(scores), Hyper())
    assert found.soft == pytest.approx(float(chance.sum()))


def test_a_gate_ranks_no_higher_than_what_owns_it():
    search = default_search(
        "edges", gate="heaviside", control="count", owners=True, ablation="interchange",
        train=16, validation=8, test=8,
    )  # fmt: skip
    problem = prepare(planted_model(), TASK, search)
    state = jax.tree.map(lambda x: x[0], initial_state(problem, search, [Job(0, Hyper(0.01))]))
    rng = np.random.default_rng(3)
    tau = {name: rng.uniform(-1, 1, leaf.shape) for name, leaf in state.tau.items()}
    state = dataclasses.replace(state, tau=jax.tree.map(lambda x: jnp.asarray(x, "f"), tau))
    found = learned_ranking(problem, objective_of(problem, search), state, problem.validation)
    lower = np.minimum(tau["gates"], tau["owners"][residual_graph(CONFIG).sources])
    ordered = lower[np.argsort(found.ranks)]
    assert np.all(np.diff(ordered) <= 1e-6)
    np.testing.assert_array_equal(found.opened, lower > 0)
