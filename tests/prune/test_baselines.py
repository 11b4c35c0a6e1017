"""Rankings without learning: each against its definition worked out another way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.config import SITES
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply
from circuitjax.prune import baselines
from circuitjax.prune.baselines import (
    RANKINGS,
    Baseline,
    activation_variance,
    attribution_of_whole,
    baseline_scores,
    integrated_attribution,
    rank_by,
)
from circuitjax.prune.gates import all_gates, flatten_units, num_units
from circuitjax.prune.objective import answer_logits, task_loss
from circuitjax.prune.problem import Problem
from tests.prune.planted import CONFIG, PRUNE, planted_problem

SOME = 6  # pairs


@pytest.fixture(scope="module")
def problem() -> Problem:
    """The planted circuit, everything smooth, with random fills, no gate idle, no loss saturated."""
    config = dataclasses.replace(CONFIG, norm="rms", activation="gelu")
    rng = np.random.default_rng(11)
    plain = planted_problem()
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32),
        dict(plain.params),
    )
    scales = {f"{part}_norm_scale": jnp.ones((2, 16)) for part in ("attn", "mlp")}
    params = {
        **params,
        "layers": {**params["layers"], **scales},
        "final_norm_scale": jnp.full(16, 0.2),
    }
    fills = {s: jnp.asarray(rng.normal(0, 0.3, n), jnp.float32) for s, n in shapes(CONFIG).items()}
    return dataclasses.replace(plain, config=config, params=params, fills=fills)


def tied(problem: Problem) -> Problem:
    return dataclasses.replace(problem, prune=dataclasses.replace(PRUNE, tie_qk=True))


@pytest.fixture(scope="module")
def loss_at(problem):
    """Task loss of all pairs as a compiled function of the gates."""
    pairs = problem.train.take(np.arange(SOME))

    @jax.jit
    def compiled(gates):
        logits = answer_logits(problem.config, problem.params, pairs, gates, problem.fills)
        return task_loss(problem.prune, logits, pairs.answers)

    return lambda gates: float(compiled(gates))


TIED = pytest.mark.parametrize("tie_qk", [False, pytest.param(True, marks=pytest.mark.slow)])


@TIED
def test_attribution_is_the_first_order_change_of_the_loss(problem, loss_at, tie_qk):
    """By finite differences of the loss, one gate at a time."""
    problem, start = tied(problem) if tie_qk else problem, 0
    found = attribution_of_whole(problem, problem.train.take(np.arange(SOME)))
    assert found.shape == (num_units(CONFIG, tie_qk),)
    whole, rng = all_gates(CONFIG, 1.0), np.random.default_rng(2)
    slopes, step = [], 0.02
    for site, (layers, width) in shapes(CONFIG).items():
        if tie_qk and site == "attn.k":
            continue
        for place in rng.choice(layers * width, 6, replace=False):
            sides = []
            for sign in (1, -1):
                moved = whole[site].at[divmod(int(place), width)].add(sign * step)
                both = ("attn.q", "attn.k") if tie_qk and site == "attn.q" else (site,)
                sides.append(loss_at({**whole, **dict.fromkeys(both, moved)}))
            slopes.append((sides[0] - sides[1]) / (2 * step))
            assert found[start + place] == pytest.approx(slopes[-1], abs=3e-5)
        start += layers * width
    assert np.count_nonzero(np.abs(slopes) > 1e-3) > 10  # far above what is tolerated


@TIED
def test_integrated_attribution_is_complete(problem, loss_at, tie_qk):
    """Its sum is the loss of the whole model minus that of the empty circuit."""
    problem = tied(problem) if tie_qk else problem
    pairs = problem.train.take(np.arange(SOME))
    ends = [loss_at(all_gates(CONFIG, value)) for value in (1.0, 0.0)]
    errors = [
        abs(integrated_attribution(problem, pairs, points).sum() - (ends[0] - ends[1]))
        for points in (1, 16)
    ]
    assert abs(ends[0] - ends[1]) > 0.1
    assert errors[1] < 1e-4
    assert errors[0] > 20 * errors[1]  # the error is the rule's


def test_variance_is_that_of_all_real_tokens(problem, monkeypatch):
    monkeypatch.setattr(baselines, "_AT_ONCE", 3)
    pairs = problem.train.take(np.arange(SOME))
    short = np.asarray(pairs.last) - np.arange(SOME)[:, None] % 3  # some prompts end earlier
    pairs = dataclasses.replace(pairs, last=jnp.asarray(short))
    tokens = pairs.tokens.reshape(2 * SOME, -1)
    captured = apply(problem.config, problem.params, tokens, capture=SITES).captured
    real = np.arange(tokens.shape[1])[None] <= short.reshape(2 * SOME, 1)
    assert 0 < real.mean() < 1
    expected = {
        site: np.var(np.asarray(captured[site], np.float64)[:, real], axis=1) for site in SITES
    }
    np.testing.assert_allclose(
        activation_variance(problem, pairs), flatten_units(expected), rtol=1e-3, atol=1e-7
    )
    expected["attn.q"] = expected["attn.q"] + expected.pop("attn.k")
    np.testing.assert_allclose(
        activation_variance(tied(problem), pairs), flatten_units(expected), rtol=1e-3, atol=1e-7
    )


def test_random_is_a_permutation_of_its_seed(problem):
    first, again, other = (
        rank_by(problem, baseline_scores(problem, Baseline("random"), seed), seed)
        for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.sort(first), np.arange(CONFIG.num_nodes))
    # Two permutations of N have one place in common on average.
    assert np.sum(first == other) < 10


def test_scores_read_training_pairs_alone_and_no_more_than_asked_for(problem):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"{name} of another split was read")

    lone = dataclasses.replace(problem, validation=Untouchable(), test=Untouchable())
    few = dataclasses.replace(problem, train=problem.train.take(np.arange(SOME)))
    for ranking in RANKINGS:
        asked = Baseline(ranking, pairs=SOME, points=2)
        found = baseline_scores(lone, asked, 0)
        np.testing.assert_allclose(found, baseline_scores(few, asked, 0), rtol=1e-4, atol=1e-7)
        assert np.all(found >= 0)
    for ranking in RANKINGS[:3]:
        np.testing.assert_array_equal(
            baseline_scores(few, Baseline(ranking, points=2), 0),
            baseline_scores(few, Baseline(ranking, points=2), 1),
        )


def test_equal_scores_are_in_the_order_of_the_seed_and_unequal_ones_in_their_own(problem):
    scores = np.zeros(CONFIG.num_nodes)
    scores[[40, 3]] = 1.0, 2.0
    ranks = [rank_by(problem, scores, seed) for seed in (0, 0, 1)]
    assert [list(r[[3, 40]]) for r in ranks] == [[0, 1]] * 3
    np.testing.assert_array_equal(ranks[0], ranks[1])
    assert np.mean(ranks[0] == ranks[2]) < 0.2
    assert abs(np.corrcoef(ranks[0], np.arange(len(scores)))[0, 1]) < 0.3


def test_scores_that_are_not_finite_are_refused(problem):
    scores = np.zeros(CONFIG.num_nodes)
    scores[7] = np.nan
    with pytest.raises(FloatingPointError, match="1 of 288 scores are not finite"):
        rank_by(problem, scores, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ranking": "gradient"}, "ranking is 'gradient'; choose one of"),
        ({"ranking": "variance", "pairs": 0}, "pairs is 0"),
        ({"ranking": "integrated", "points": 0}, "points is 0"),
    ],
)
def test_a_wrong_baseline_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Baseline(**fields)
