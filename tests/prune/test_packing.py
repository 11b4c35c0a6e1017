"""Pairs in rows against the same pairs in a row each: everything a model says of them is the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.config import SITES
from circuitjax.model.reduced import can_reduce, reduce_model
from circuitjax.model.sites import shapes
from circuitjax.prune.objective import Pairs, answer_logits, reduced_logits
from circuitjax.prune.packing import (
    by_row,
    pack,
    packed_batches,
    row_length,
    some_of,
    training_rows,
)
from tests.model.test_reference import VARIANTS, variant

LONGEST = 11


def made_pairs(count, seed=0, vocab=24, shortest=1):
    """Pairs of any length that part anywhere, from the first token to the last."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((count, 2, LONGEST), np.int32)
    last = rng.integers(shortest, LONGEST, count)
    last[0], last[-1] = LONGEST - 1, shortest
    for row, end in enumerate(last):
        tokens[row, :, 1 : end + 1] = rng.integers(1, vocab, end)
        start = rng.integers(1, end + 1)
        tokens[row, 1, start : end + 1] = 1 + tokens[row, 1, start : end + 1] % (vocab - 1)
    answers = rng.permuted(np.tile(np.arange(vocab), (count, 1)), axis=1)[:, :2]
    ends = np.stack([last, last], axis=1)
    arrays = map(jnp.asarray, (tokens, ends.astype(np.int32), answers.astype(np.int32)))
    return Pairs(*arrays, row_length=8)


def random_gates(config, seed=1):
    rng = np.random.default_rng(seed)
    gates = {s: rng.uniform(size=shape).astype(np.float32) for s, shape in shapes(config).items()}
    fills = {s: rng.normal(size=g.shape).astype(np.float32) for s, g in gates.items()}
    return gates, fills


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_gradients_of_every_architecture(name):
    config, params = variant(name)
    # Where every token sees all, it would see the filler of rows that hold one prompt.
    pairs = made_pairs(6, shortest=1 if config.causal else LONGEST - 1)
    gates, fills = random_gates(config)
    packed, places = pack(pairs, config.causal)
    assert packed.tokens.shape[0] == 3
    weights = np.random.default_rng(2).normal(size=(6, 2, 24)).astype(np.float32)

    @jax.jit
    def both(gates):
        def total(gates, some, order):
            logits = answer_logits(config, params, some, gates, fills)[order]
            return jnp.sum(logits * weights), logits

        run = jax.value_and_grad(total, has_aux=True)
        return run(gates, pairs, np.arange(6)), run(gates, packed, places)

    ((_, plain), slopes), ((_, rows), packed_slopes) = both(gates)
    np.testing.assert_allclose(rows, plain, atol=2e-4, rtol=2e-4)
    for site in SITES:
        np.testing.assert_allclose(
            packed_slopes[site], slopes[site], atol=2e-3, rtol=2e-3, err_msg=site
        )


@pytest.mark.parametrize("name", ["plain", "layer norm", "concatenated positions", "tied"])
@pytest.mark.parametrize("candidates", [False, True])
def test_reduced_models(name, candidates):
    config, params = variant(name)
    assert can_reduce(config)
    pairs = made_pairs(6, seed=3)
    gates, fills = random_gates(config)
    keep = {site: gate > 0.6 for site, gate in gates.items()}
    reduced = reduce_model(config, jax.tree.map(np.asarray, params), keep, fills)
    packed, places = pack(pairs, config.causal)
    hard = {site: kept.astype(np.float32) for site, kept in keep.items()}
    logits = answer_logits(config, params, pairs, hard, fills)
    if candidates:
        logits = jnp.take_along_axis(logits, pairs.answers[:, None, :], axis=-1)
    for some, order in ((pairs, np.arange(6)), (packed, places)):
        found = reduced_logits(reduced, some, candidates=candidates)[order]
        np.testing.assert_allclose(found, logits, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("count", "group"), [(1, 1), (2, 2), (7, 1), (12, 2)])
def test_rows_hold_every_pair_once(count, group):
    pairs = made_pairs(count, seed=4)
    packed, places = pack(pairs, True)
    assert packed.completions.shape == (count // group, group, 2)
    assert packed.size == count
    assert sorted(places) == list(range(count))
    np.testing.assert_array_equal(packed.answers[places], pairs.answers)
    asked, plain = packed.prompts, pairs.prompts
    tokens = jnp.take_along_axis(asked.tokens, asked.positions, axis=1).reshape(-1, 2)
    ends = jnp.take_along_axis(plain.tokens, plain.positions, axis=1).reshape(-1, 2)
    np.testing.assert_array_equal(tokens[places], ends)
    np.testing.assert_array_equal(asked.candidates.reshape(-1, 2, 2)[places][:, 0], pairs.answers)


def test_what_is_shared_stands_there_once():
    pairs = made_pairs(40, seed=5)
    packed, _ = pack(pairs, True)
    tokens, last = np.asarray(pairs.tokens), np.asarray(pairs.last)[:, 0]
    own = 0
    for row, end in zip(tokens, last, strict=True):
        begin = int((row[0] != row[1]).argmax())
        own += begin + 2 * (end + 1 - begin)
    assert int((packed.layout.prompt >= 0).sum()) == own
    whole, _ = pack(pairs, False)
    assert int((whole.layout.prompt >= 0).sum()) == 2 * int((last + 1).sum())


def test_rows_of_all_sets_are_as_long_as_the_longest():
    config, _ = variant("plain")
    pairs = made_pairs(40, seed=6)
    length = row_length(config, pairs)
    assert length % 8 == 0
    assert pack(pairs, True)[0].tokens.shape[1] == length
    assert pack(pairs, True, least=length + 16)[0].tokens.shape[1] == length + 16
    roomy = dataclasses.replace(pairs, row_length=length + 8)
    assert pack(roomy.take(np.arange(4)), True)[0].tokens.shape[1] == length + 8
    # A few pairs that are all long need longer rows than the set does.
    longest = np.argsort(np.asarray(pairs.last)[:, 0])[-2:]
    few = dataclasses.replace(pairs.take(longest), row_length=8)
    assert pack(few, True)[0].tokens.shape[1] >= 2 * LONGEST


def test_rows_of_their_own_where_nothing_is_saved():
    config, _ = variant("plain")
    tokens = np.random.default_rng(9).integers(0, 24, (8, 2, LONGEST)).astype(np.int32)
    last = np.full((8, 2), LONGEST - 1, np.int32)
    early = Pairs(*map(jnp.asarray, (tokens, last, last)))
    assert row_length(config, early) == 0
    rows, places = pack(early, True)
    assert rows is early
    np.testing.assert_array_equal(places, np.arange(8))
    tokens[:, 1, :-1] = tokens[:, 0, :-1]
    late = dataclasses.replace(early, tokens=jnp.asarray(tokens))
    assert 0 < row_length(config, late) < 4 * LONGEST
    bidirectional = dataclasses.replace(config, causal=False)
    assert row_length(bidirectional, late) == 0


@pytest.mark.parametrize(("count", "size"), [(20, 8), (5, 64), (7, 2), (6, 3), (1, 64)])
def test_batches_of_an_evaluation(count, size):
    pairs = made_pairs(count, seed=7)
    batches, places = packed_batches(pairs, True, size)
    assert {batch.size for batch in batches} == {min(size, count)}
    answers = np.concatenate([batch.answers for batch in batches])[places]
    np.testing.assert_array_equal(answers, pairs.answers)


def test_a_prompt_that_is_no_longer_than_what_it_shares_keeps_a_token():
    tokens = np.array([[[0, 3, 4, 5], [0, 3, 4, 5]]], np.int32)
    arrays = map(jnp.asarray, (tokens, np.array([[3, 2]]), np.array([[1, 2]])))
    pairs = Pairs(*arrays, row_length=8)
    config, params = variant("plain")
    packed, _ = pack(pairs, True)
    np.testing.assert_allclose(
        answer_logits(config, params, packed, None, None),
        answer_logits(config, params, pairs, None, None),
        atol=2e-4,
    )


def test_training_rows_are_drawn_by_pairs():
    pairs = made_pairs(40, seed=8)
    rows = training_rows(pairs, True, 16)
    drawn = rows.draw(jax.random.key(0), 16)
    assert drawn.size == 16
    assert drawn.tokens.shape == (8, rows.tokens.shape[1])
    known = {tuple(row) for row in np.asarray(pairs.answers)}
    assert {tuple(row) for row in np.asarray(drawn.answers)} <= known
    assert training_rows(pairs, True, 5).draw(jax.random.key(0), 5).size == 5
    assert training_rows(made_pairs(7), True, 4).draw(jax.random.key(0), 4).size == 4


def test_some_pairs_fit_the_rows_of_all():
    pairs = made_pairs(64, seed=4)
    pairs = dataclasses.replace(pairs, row_length=row_length(variant("plain")[0], pairs))
    assert pairs.row_length
    order = by_row(pairs, causal=True)
    assert sorted(order.tolist()) == list(range(64))
    whole = packed_batches(pairs, True, size=16)[0][0].tokens.shape
    for count in (16, 32, 48):
        some = some_of(pairs, True, count)
        np.testing.assert_array_equal(some.tokens, np.asarray(pairs.tokens)[order[:count]])
        assert {b.tokens.shape for b in packed_batches(some, True, size=16)[0]} == {whole}
    assert some_of(pairs, True, 64) is pairs
    # The first so many as they come would need longer rows: three of the longest among them.
    longest = pairs.take(np.argsort(-np.asarray(pairs.last)[:, 0], kind="stable"))
    longest_first = packed_batches(longest.take(np.arange(16)), True, size=16)[0][0].tokens.shape
    assert longest_first[1] > whole[1]
    assert packed_batches(some_of(longest, True, 16), True, size=16)[0][0].tokens.shape == whole
