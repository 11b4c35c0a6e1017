"""The cut: k against brute force, calibration in every order, finalists, and targets that are sizes."""

import dataclasses

import numpy as np
import pytest

from circuitjax.core.statistics import mean_bound
from circuitjax.prune import cut
from circuitjax.prune.config import SelectionConfig
from circuitjax.prune.cut import choose
from circuitjax.prune.evaluate import answers
from circuitjax.prune.figures import figures
from circuitjax.prune.rank import Ranked
from tests.prune.planted import PLANTED, planted_problem

TARGET = SelectionConfig()


def ranked(ranks, **fields) -> Ranked:
    ranks = np.asarray(ranks, np.int32)
    return Ranked(ranks, np.zeros(ranks.size, bool), **fields)


def planted_first(problem, rng, noise) -> Ranked:
    """A ranking with the planted nodes first, more or less."""
    scores = np.array([name in PLANTED for name in problem.whole.names()], float)
    scores += noise * rng.random(scores.size)
    return ranked(np.argsort(np.argsort(-scores)))


@pytest.mark.parametrize("first", [5, 10_000])
@pytest.mark.parametrize("mode", ["inside", "after", "off"])
def test_selection_equals_brute_force_over_every_k(first, mode, monkeypatch):
    """The planted nodes first, in an order in which the loss falls once; the rest after them."""
    monkeypatch.setattr(cut, "scouts", lambda problem, examples: examples.first(first))
    problem, rng = planted_problem(), np.random.default_rng(9)
    settings = SelectionConfig(calibrate=mode)
    rankings = [
        planted_first(problem, rng, 0.5),
        ranked(rng.permutation(problem.whole.num_gates)),
    ]
    choices = choose(problem, settings, rankings)
    brief = choose(problem, settings, rankings, brief=True)
    for one, choice, quick in zip(rankings, choices, brief, strict=True):
        k = choice.selection.k
        np.testing.assert_array_equal(choice.opened, one.ranks < k)
        assert k <= quick.selection.k <= 1.02 * k
        seen = {p.k: p for p in choice.curve if p.items == problem.validation.items}
        name = "loss" if mode == "inside" else "raw"
        assert getattr(seen[k], name) <= settings.value
        assert all(getattr(p, name) > settings.value for q, p in seen.items() if q < k)
        found = answers(problem.whole, problem.batches, problem.validation, [choice.opened])
        assert choice.loss_uncalibrated == pytest.approx(float(found.losses("binary")[0]), abs=1e-4)
        if mode == "off":
            assert (choice.scale, choice.shift) == (1.0, 0.0)
            assert choice.loss == choice.loss_uncalibrated
    planted = choices[0]
    ks = range(1, 12)
    opened = [rankings[0].ranks < k for k in ks]
    raw = answers(problem.whole, problem.batches, problem.validation, opened).losses("binary")
    exact = next(k for k, loss in zip(ks, raw, strict=True) if loss <= settings.value)
    assert planted.k_after == exact
    assert planted.k_inside <= exact


def test_of_many_rankings_the_most_promising_are_cut_on_all_pairs(monkeypatch):
    problem, rng = planted_problem(), np.random.default_rng(12)
    rankings = [planted_first(problem, rng, noise) for noise in (3.0, 0.5, 2.0, 1.2, 1.05)]
    alone = [choose(problem, TARGET, [one])[0] for one in rankings]
    monkeypatch.setattr(cut, "scouts", lambda problem, examples: examples.first(8))
    found = choose(problem, TARGET, rankings)
    settled = [index for index, choice in enumerate(found) if not choice.rough]
    assert len(settled) == 2
    assert 1 in settled  # the best ranking
    for index in settled:
        assert found[index].selection.k == alone[index].selection.k
        assert found[index].loss == alone[index].loss
        assert found[index].reached
    assert all(p.items == 8 for i in set(range(5)) - set(settled) for p in found[i].curve)


def test_of_a_large_network_the_cut_is_near_and_brief(monkeypatch):
    problem, rng = planted_problem(), np.random.default_rng(3)
    ranked = planted_first(problem, rng, 0.5)
    (exact,) = choose(problem, TARGET, [ranked])
    monkeypatch.setattr(cut, "AT_ONCE", 10**6)
    (near,) = choose(problem, TARGET, [ranked])
    assert exact.reached
    assert near.reached
    assert exact.selection.k <= near.selection.k <= 1.02 * exact.selection.k + 1
    assert exact.k_after is not None
    assert near.k_after is None


def test_where_finalists_miss_the_target_the_next_ones_are_tried(monkeypatch):
    """On one pair the worst rankings promise everything; on all pairs only one holds."""
    problem, rng = planted_problem(), np.random.default_rng(13)
    monkeypatch.setattr(cut, "scouts", lambda problem, examples: examples.first(1))
    honest = cut._cut

    def biased(cutter, one, index, *, brief, rough):
        choice = honest(cutter, one, index, brief=brief, rough=rough)
        missed = dataclasses.replace(choice.selection, reached=False)
        keeps = rough or index == 3
        return choice if keeps else dataclasses.replace(choice, selection=missed)

    monkeypatch.setattr(cut, "_cut", biased)
    found = choose(problem, TARGET, [planted_first(problem, rng, 0.5) for _ in range(4)])
    assert not found[3].rough
    assert found[3].reached


@pytest.mark.parametrize("kind", ["edges", "nodes"])
def test_a_target_that_is_a_size_is_the_largest_set_within(kind):
    """A size that some k has exactly, and one less."""
    problem = planted_problem()
    one = planted_first(problem, np.random.default_rng(14), 0.5)
    measure = problem.whole.cost if kind == "edges" else problem.whole.nodes
    exact = measure(problem.whole.alive(one.ranks < 12))
    assert exact > 5
    for value in (exact, exact - 1):
        (choice,) = choose(problem, SelectionConfig(kind, value), [one])
        size = measure(problem.whole.alive(choice.opened))
        assert size <= value
        assert (size == exact) == (value == exact)
        assert measure(problem.whole.alive(one.ranks < choice.selection.k + 1)) > value


def test_match_soft_keeps_what_the_soft_gates_expect():
    problem, rng = planted_problem(), np.random.default_rng(15)
    one = dataclasses.replace(planted_first(problem, rng, 0.5), soft=9.4)
    (choice,) = choose(problem, SelectionConfig("match_soft"), [one])
    assert choice.selection.k == 9
    assert choice.reached


def test_a_target_kl_is_met_in_kl():
    problem, rng = planted_problem(), np.random.default_rng(16)
    (choice,) = choose(problem, SelectionConfig("kl", 0.01), [planted_first(problem, rng, 0.5)])
    assert choice.reached
    found = answers(problem.whole, problem.batches, problem.validation, [choice.opened], full=True)
    assert choice.kl == pytest.approx(float(found.kl.mean()), abs=1e-5)
    assert choice.kl <= 0.01
    assert (choice.scale, choice.shift) == (1.0, 0.0)


def test_figures_are_never_worse_calibrated_than_not():
    problem = planted_problem()
    rng = np.random.default_rng(17)
    opened = rng.random((4, problem.whole.num_gates)) < 0.5
    found = answers(problem.whole, problem.batches, problem.validation, opened)
    for one in figures(problem, TARGET, found):
        assert one.loss <= one.raw + 1e-6
        assert one.kl is None
        assert (one.aim, one.plain_aim) == (one.loss, one.raw)


def test_a_confidence_asks_the_upper_bound_of_the_mean_over_pairs():
    problem, rng = planted_problem(), np.random.default_rng(18)
    sure = SelectionConfig(confidence=0.95, calibrate="off")
    opened = rng.random((3, problem.whole.num_gates)) < 0.5
    found = answers(problem.whole, problem.batches, problem.validation, opened)
    pairs = np.logaddexp(0, -found.odds).reshape(3, -1, 2).mean(axis=-1)
    for one, losses in zip(figures(problem, sure, found), pairs, strict=True):
        assert one.aim == pytest.approx(float(mean_bound(losses, 0.95)))
        assert one.aim > one.loss == pytest.approx(losses.mean(), rel=1e-5)


def test_a_kl_beside_a_loss_is_met_too():
    problem, rng = planted_problem(), np.random.default_rng(19)
    both = SelectionConfig("loss", 0.5, kl=1e-6)
    ranked = planted_first(problem, rng, 0.5)
    (choice,) = choose(problem, both, [ranked])
    (alone,) = choose(problem, SelectionConfig("loss", 0.5), [ranked])
    assert choice.reached
    assert choice.kl <= 1e-6
    assert choice.selection.k > alone.selection.k
    assert choice.selection.loss <= 0.5
