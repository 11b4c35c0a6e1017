"""Hard circuits: every way to evaluate them gives the same answers; slopes are derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.measures import odds_of
from circuitjax.gated.rows import Batches
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply
from circuitjax.model.widths import widest
from circuitjax.prune import evaluate
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.evaluate import answers, gate_slopes
from circuitjax.prune.prober import Prober
from circuitjax.prune.problem import Problem
from tests.prune.planted import CONFIG, planted_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    """The planted model with random replacements, so that every closed node matters."""
    rng = np.random.default_rng(5)
    fills = {s: jnp.asarray(rng.normal(0, 0.3, n), jnp.float32) for s, n in shapes(CONFIG).items()}
    planted = planted_problem()
    return dataclasses.replace(planted, whole=dataclasses.replace(planted.whole, held=fills))


def direct(problem, examples, gates):
    """Logits `[M, V]` of one circuit, by the plain forward pass."""
    model = problem.whole
    tree = model.tree(jnp.asarray(gates, jnp.float32))
    tokens = examples.tokens[:, 0]
    found = apply(CONFIG, model.params, tokens, tree, model.held, positions=examples.positions)
    return found.logits


@pytest.mark.parametrize("row_length", [0, 8])  # a row a prompt, pairs packed in rows
@pytest.mark.parametrize("full", [False, True])
def test_answers_equal_the_model_run_directly(problem, monkeypatch, row_length, full):
    rng = np.random.default_rng(6)
    drawn = np.stack([rng.random(problem.whole.num_gates) < p for p in (0.2, 0.6, 0.9)])
    monkeypatch.setattr(evaluate, "_SETS", 2)
    # 24 pairs: the second batch has a ragged end
    examples = dataclasses.replace(problem.validation, row_length=row_length)
    batches = Batches(True, True, 16)
    assert [batch.size for batch in batches.even(examples)[0]] == [32, 32]
    one = answers(problem.whole, batches, examples, drawn, full=full, together=False)
    other = answers(problem.whole, batches, examples, drawn, full=full, together=True)
    whole = np.asarray(direct(problem, examples, np.ones(problem.whole.num_gates)))[:, 0]
    for index, gates in enumerate(drawn):
        logits = direct(problem, examples, gates)
        logs = np.asarray(jax.nn.log_softmax(logits[:, 0]), np.float64)
        right, wrong = (np.asarray(side)[:, 0] for side in (examples.right, examples.wrong))
        rows = np.arange(examples.size)
        for found in (one, other):
            expected = logs[rows, right] - logs[rows, wrong]
            np.testing.assert_allclose(found.odds[index], expected, atol=1e-4)
            if full:
                np.testing.assert_allclose(found.vocabulary[index], -logs[rows, right], atol=1e-4)
                full_logs = np.asarray(jax.nn.log_softmax(whole), np.float64)
                kl = np.sum(np.exp(full_logs) * (full_logs - logs), axis=-1)
                np.testing.assert_allclose(found.kl[index], kl, atol=1e-4)
                np.testing.assert_array_equal(found.agree[index], whole.argmax(1) == logs.argmax(1))
        loss = np.mean(np.log1p(np.exp(-one.odds[index].astype(float))))
        assert one.losses("binary")[index] == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_reduced_model_answers_as_the_whole_one(problem, tied):
    problem = dataclasses.replace(problem, whole=dataclasses.replace(problem.whole, tied=tied))
    rng = np.random.default_rng(7)
    units = problem.whole.num_gates
    rankings = [rng.permutation(units).astype(np.int32) for _ in range(2)]
    ks = (0, 1, 9, 60, 64, 65, units)
    small, whole = (Prober(problem, rankings, reduce=reduce) for reduce in (True, False))
    for index, ranks in enumerate(rankings):
        found = small.answers(problem.validation, index, ks).odds
        plain = whole.answers(problem.validation, index, ks).odds
        expected = [
            odds_of(
                _picked(direct(problem, problem.validation, ranks < k), problem), problem.validation
            )
            for k in ks
        ]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(plain, expected, atol=1e-4)
    assert any(model.small is not None for model in small._models.values())


def _picked(logits, problem):
    batch = problem.validation
    tokens = jnp.concatenate([batch.right, batch.wrong], axis=1)
    return jnp.take_along_axis(logits[:, 0], tokens, axis=1)


def test_reduced_models_of_several_rankings_can_share_a_shape(problem):
    units = problem.whole.num_gates
    rankings = [np.random.default_rng(seed).permutation(units).astype(np.int32) for seed in (1, 2)]
    size = units // 16
    own = [Prober(problem, [ranks], reduce=True).widths(size) for ranks in rankings]
    assert own[0] != own[1]
    ks, examples = [1, size, units // 4], problem.test
    probers = [
        Prober(
            problem,
            [ranks],
            reduce=True,
            room=lambda size: widest(
                [Prober(problem, [ranks], reduce=True).widths(size) for ranks in rankings]
            ),
        )
        for ranks in rankings
    ]
    for prober, ranks in zip(probers, rankings, strict=True):
        found = prober.answers(examples, 0, ks).odds
        expected = Prober(problem, [ranks], reduce=False).answers(examples, 0, ks).odds
        np.testing.assert_allclose(found, expected, atol=2e-4)
    assert probers[0].widths(size) != probers[1].widths(size)  # alone; together they are one shape
    made = [prober._model_for(size).small.widths for prober in probers]
    assert made[0] == made[1] == widest(own)


def test_a_memory_answers_what_was_asked_before(problem):
    units = problem.whole.num_gates
    ranks = np.random.default_rng(4).permutation(units).astype(np.int32)
    memory = AnswerMemory()
    first = Prober(problem, [ranks], memory=memory).answers(problem.test, 0, (3, 9))
    silent = Prober(problem, [ranks], memory=memory)
    silent._look = None  # it may not be asked again
    again = silent.answers(problem.test, 0, (9, 3))
    np.testing.assert_array_equal(again.odds, first.odds[::-1])
    with pytest.raises(TypeError):
        silent.answers(problem.validation, 0, (3,))  # other examples are another question


@pytest.mark.parametrize("kind", ["task", "kl"])
def test_slopes_are_the_derivative_by_each_gate(problem, kind):
    rng = np.random.default_rng(8)
    gates = rng.uniform(0.3, 1.0, problem.whole.num_gates).astype(np.float32)
    examples = problem.validation.take(np.arange(7))
    split = dataclasses.replace(problem, batches=Batches(True, True, 4))  # batches of 4 and 3
    found = gate_slopes(split, gates, examples, kind)

    @jax.jit
    def loss_at(z):
        reference = evaluate.Reference(problem.whole.full(examples), None)
        measured = evaluate.measured(problem.whole, z, examples, reference, kl=kind == "kl")
        return evaluate.total_loss(kind, measured)

    largest = np.argsort(-np.abs(found))[:6]
    for place in [*largest, *rng.choice(gates.size, 4, replace=False)]:
        step = np.zeros_like(gates)
        step[place] = 0.01
        slope = (float(loss_at(gates + step)) - float(loss_at(gates - step))) / 0.02
        assert found[place] == pytest.approx(slope, abs=4e-3)
    assert np.abs(found).max() > 1e-2
