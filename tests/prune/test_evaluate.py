"""Hard circuits: every way to evaluate them gives the same answers; attribution is a derivative."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit.find import Job, initial_state
from circuitjax.model.config import SITES
from circuitjax.model.sites import parse_address, shapes
from circuitjax.model.widths import widest
from circuitjax.prune import evaluate, masks, packing
from circuitjax.prune.config import Hyper
from circuitjax.prune.evaluate import Prober, answers, attribution
from circuitjax.prune.gates import all_gates, flatten_units, gates_from_ranks, gates_of, num_units
from circuitjax.prune.objective import answer_logits, binary_losses, logit_differences, task_loss
from tests.prune.planted import CONFIG, PLANTED, PRUNE, planted_problem


@pytest.fixture(scope="module")
def problem():
    """The planted model with random fills, so that every closed node matters."""
    rng = np.random.default_rng(5)
    fills = {s: jnp.asarray(rng.normal(0, 0.3, n), jnp.float32) for s, n in shapes(CONFIG).items()}
    return dataclasses.replace(planted_problem(), fills=fills)


def direct(problem, pairs, mask):
    gates = {site: jnp.asarray(m, jnp.float32) for site, m in mask.items()}
    logits = answer_logits(problem.config, problem.params, pairs, gates, problem.fills)
    return logit_differences(logits, pairs.answers), logits


@pytest.mark.parametrize("row_length", [0, 8])  # a row a prompt, pairs packed in rows
def test_answers_equal_the_model_run_directly(problem, monkeypatch, row_length):
    rng = np.random.default_rng(6)
    drawn = [{s: rng.random(n) < p for s, n in shapes(CONFIG).items()} for p in (0.2, 0.6, 0.9)]
    monkeypatch.setattr(evaluate, "_MASKS", 2)
    monkeypatch.setattr(packing.packed_batches, "__defaults__", (16,))
    # 24: the second batch has a ragged end
    pairs = dataclasses.replace(problem.validation, row_length=row_length)
    batches, _ = packing.packed_batches(pairs, True)
    assert [batch.size for batch in batches] == [16, 16]
    one = answers(problem, pairs, drawn, side_by_side=False)
    other = answers(problem, pairs, drawn, side_by_side=True)
    assert one.differences.shape == other.vocabulary.shape == (3, 24, 2)
    for index, mask in enumerate(drawn):
        differences, logits = direct(problem, pairs, mask)
        logs = np.asarray(logits, np.float64)
        logs = logs - np.log(np.exp(logs).sum(axis=-1, keepdims=True))
        right = np.asarray(pairs.answers)[..., None]
        expected = -np.take_along_axis(logs, right, axis=-1)[..., 0]
        for found in (one, other):
            np.testing.assert_allclose(found.differences[index], differences, atol=1e-4)
            np.testing.assert_allclose(found.vocabulary[index], expected, atol=1e-4)
        loss = float(np.mean(binary_losses(differences)))
        assert one.losses(PRUNE)[index] == pytest.approx(loss, abs=1e-4)
    vocabulary = dataclasses.replace(PRUNE, loss="vocabulary")
    np.testing.assert_allclose(
        one.losses(vocabulary), np.mean(one.vocabulary, axis=(1, 2)), rtol=1e-5
    )


@pytest.mark.parametrize("tie_qk", [False, True])
def test_a_reduced_model_answers_as_the_whole_one(problem, tie_qk):
    problem = dataclasses.replace(problem, prune=dataclasses.replace(PRUNE, tie_qk=tie_qk))
    rng = np.random.default_rng(7)
    units = num_units(CONFIG, tie_qk)
    rankings = [rng.permutation(units).astype(np.int32) for _ in range(2)]
    ks = (0, 1, 9, 60, 64, 65, units)
    small, whole = (Prober(problem, rankings, reduce=reduce) for reduce in (True, False))
    for index, ranks in enumerate(rankings):
        found = small.answers(problem.validation, index, ks).differences
        plain = whole.answers(problem.validation, index, ks).differences
        opened = [gates_from_ranks(CONFIG, jnp.asarray(ranks), k, tie_qk) for k in ks]
        expected = answers(problem, problem.validation, opened).differences
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(plain, expected, atol=1e-4)
    assert small._reduced, "no reduced model was used"


def test_probers_of_several_rankings_share_shapes_and_answer_alike(problem, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    units = num_units(CONFIG, False)
    rankings = [np.random.default_rng(seed).permutation(units).astype(np.int32) for seed in (1, 2)]
    together = list(evaluate.probers([problem, problem], rankings))
    ks, pairs = [1, units // 16, units // 4], problem.test
    for prober, ranks in zip(together, rankings, strict=True):
        found = prober.answers(pairs, 0, ks).differences
        expected = Prober(problem, [ranks], reduce=False).answers(pairs, 0, ks).differences
        np.testing.assert_allclose(found, expected, atol=2e-4)
    size = units // 16
    shapes_of = [
        jax.tree.map(lambda leaf: leaf.shape, prober._model_for(size).stack) for prober in together
    ]
    assert shapes_of[0] == shapes_of[1]
    own = [Prober(problem, [ranks]).widths(size) for ranks in rankings]
    assert own[0] != own[1]
    assert all(prober._model_for(size).widths == widest(own) for prober in together)


@pytest.mark.parametrize("tie_qk", [pytest.param(False, marks=pytest.mark.slow), True])
def test_attribution_is_the_loss_derivative_by_each_gate(problem, tie_qk, monkeypatch):
    prune = dataclasses.replace(PRUNE, tie_qk=tie_qk)
    problem = dataclasses.replace(problem, prune=prune)
    job = Job(3, Hyper(0.01, init_noise_scale=0.5, init_noise_bias=0.4))
    state = jax.tree.map(lambda leaf: leaf[0], initial_state(problem, [job]))
    pairs = problem.validation.take(np.arange(7))
    monkeypatch.setattr(packing.uneven_batches, "__defaults__", (4,))  # batches of 4 and 3
    found = attribution(problem, state, pairs)
    hard = {s: m for s, m in gates_of(state.tau, 1.0).items() if s in state.tau}
    assert found.shape == flatten_units(hard).shape

    @jax.jit
    def loss_at(gates):
        if tie_qk:
            gates = {**gates, "attn.k": gates["attn.q"]}
        logits = answer_logits(problem.config, problem.params, pairs, gates, problem.fills)
        return task_loss(prune, logits, pairs.answers)

    rng, start = np.random.default_rng(8), 0
    for site in (name for name in SITES if name in hard):
        m, size = hard[site], hard[site].size
        for place in rng.choice(size, 4, replace=False):
            sides = [
                float(loss_at({**hard, site: m.at[np.unravel_index(place, m.shape)].add(step)}))
                for step in (0.01, -0.01)
            ]
            slope = (sides[0] - sides[1]) / 0.02
            assert found[start + place] == pytest.approx(slope, abs=3e-3)
        start += size


def planted_first(rng, noise):
    """A ranking with the planted nodes first, more or less."""
    first = {site: np.zeros(shape) for site, shape in shapes(CONFIG).items()}
    for name in PLANTED:
        layer, site, index = parse_address(CONFIG, name)
        first[site][layer, index] = 1
    scores = np.concatenate([first[site].ravel() for site in shapes(CONFIG)])
    scores = scores + noise * rng.random(scores.size)
    return np.argsort(np.argsort(-scores)).astype(np.int32)


def test_of_many_rankings_the_most_promising_are_cut_on_all_pairs(monkeypatch):
    problem, rng = planted_problem(), np.random.default_rng(12)
    rankings = [planted_first(rng, noise) for noise in (3.0, 0.5, 2.0, 1.2, 1.05)]
    alone = [masks.choose_from_rankings(problem, [ranks])[0] for ranks in rankings]
    monkeypatch.setattr(masks, "_SCOUTS", 8)
    found = masks.choose_from_rankings(problem, rankings)
    settled = [index for index, choice in enumerate(found) if not choice.rough]
    assert len(settled) == 2
    assert 1 in settled  # the best ranking
    for index in settled:
        assert (found[index].selection.k, found[index].loss) == (
            alone[index].selection.k,
            alone[index].loss,
        )
        assert found[index].selection.reached
    assert all(point[-1] == 8 for i in {0, 2, 3, 4} - set(settled) for point in found[i].curve)


def test_where_finalists_miss_the_target_the_next_ones_are_tried(monkeypatch):
    """On one pair the worst rankings promise everything; on all pairs only a planted one holds."""
    problem, rng = planted_problem(), np.random.default_rng(13)
    monkeypatch.setattr(masks, "_SCOUTS", 1)
    honest = masks.cut

    def cut(prune, validation, prober, ranking, *rest, rough=False, **options):
        choice = honest(prune, validation, prober, ranking, *rest, rough=rough, **options)
        missed = dataclasses.replace(choice.selection, reached=False)
        return choice if rough or ranking == 3 else dataclasses.replace(choice, selection=missed)

    monkeypatch.setattr(masks, "cut", cut)
    found = masks.choose_from_rankings(problem, [planted_first(rng, 0.5) for _ in range(4)])
    assert not found[3].rough
    assert found[3].reached


@pytest.mark.parametrize("scouts", [5, 10_000])
def test_selection_equals_brute_force_over_every_k(problem, scouts, monkeypatch):
    """The planted nodes first, in an order in which the loss falls once; the rest after them."""
    monkeypatch.setattr(masks, "_SCOUTS", scouts)
    problem = planted_problem()
    rng = np.random.default_rng(9)
    shuffled = rng.permutation(num_units(CONFIG, False)).astype(np.int32)
    rankings = [planted_first(rng, 0.5), shuffled]
    for mode in ("inside", "after", "off"):
        prune = dataclasses.replace(PRUNE, calibrate=mode)
        changed = dataclasses.replace(problem, prune=prune)
        choices = masks.choose_from_rankings(changed, rankings)
        alone = masks.choose_from_rankings(changed, rankings, brief=True)
        for choice, one in zip(choices, alone, strict=True):
            assert one.selection.reached
            assert choice.selection.k <= one.selection.k <= 1.02 * choice.selection.k
            others = (one.k_after, choice.k_after), (one.k_inside, choice.k_inside)
            (skipped, _), same = others if mode == "inside" else others[::-1]
            assert skipped is None
            assert same[1] <= same[0] <= 1.02 * same[1]
        for ranks, choice in zip(rankings, choices, strict=True):
            seen = {
                k: (raw, fitted)
                for k, raw, fitted, pairs in choice.curve
                if pairs == changed.validation.size
            }
            column = 1 if mode == "inside" else 0
            k = choice.selection.k
            assert sum(int(m.sum()) for m in choice.mask.values()) == k
            raw = answers(changed, changed.validation, [choice.mask]).losses(prune)[0]
            assert choice.loss_uncalibrated == pytest.approx(float(raw), abs=1e-4)
            if choice.reached:
                assert seen[k][column] <= prune.target_loss
                assert all(v[column] > prune.target_loss for q, v in seen.items() if q < k)
            if mode == "off":
                assert (choice.scale, choice.shift, choice.loss) == (
                    1.0,
                    0.0,
                    choice.loss_uncalibrated,
                )
            if mode == "inside":
                assert choice.k_inside == (k if choice.reached else None)
            np.testing.assert_array_equal(
                flatten_units(choice.mask), np.asarray(ranks) < choice.selection.k
            )
        planted = choices[0]
        ks = range(1, 12)
        opened = [gates_from_ranks(CONFIG, jnp.asarray(rankings[0]), k, False) for k in ks]
        raw = answers(changed, changed.validation, opened).losses(prune)
        exact = next(k for k, loss in zip(ks, raw, strict=True) if loss <= prune.target_loss)
        assert planted.k_after == exact
        assert planted.k_inside <= exact


def test_the_whole_and_the_empty_circuit_are_the_ends_of_every_ranking(problem):
    ranks = np.random.default_rng(1).permutation(CONFIG.num_nodes).astype(np.int32)
    prober = Prober(problem, [ranks])
    ends = prober.answers(problem.test, 0, (0, CONFIG.num_nodes)).differences
    gates = [all_gates(CONFIG, value) for value in (0.0, 1.0)]
    np.testing.assert_allclose(ends, answers(problem, problem.test, gates).differences, atol=1e-4)
