"""Pairs in rows against the same pairs in a row each: everything a model says of them is the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.examples import Examples
from circuitjax.gated.nodes import NodeGates
from circuitjax.gated.rows import Batches, pack, row_length
from circuitjax.model.reduced import can_reduce
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
    return Examples.of_pairs(tokens, np.stack([last, last], axis=1), answers, row_length=8)


def tokens_of(pairs) -> np.ndarray:
    """`[B, 2, T]`, both prompts of each pair."""
    return np.asarray(pairs.tokens)[::2]


def answers_of(rows) -> np.ndarray:
    """`[B, 2]`, the right completions of both prompts of each pair."""
    return np.asarray(rows.right).reshape(-1, 2)


def random_gates(config, params, seed=1):
    """A model that holds random constants, and gates in (0, 1)."""
    rng = np.random.default_rng(seed)
    model = NodeGates(params, None, config=config)
    values = model.tree(rng.normal(size=model.num_gates).astype(np.float32))
    gates = rng.uniform(size=model.num_gates).astype(np.float32)
    return model.replace(held=jax.tree.map(jnp.asarray, values)), gates


def pair_logits(model, gates, rows):
    """`[B, 2, V]` in the order of the rows."""
    found = model.logits(gates, rows)[:, 0]
    return found.reshape(-1, 2, found.shape[-1])


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_gradients_of_every_architecture(name):
    config, params = variant(name)
    # Where every token sees all, it would see the filler of rows that hold one prompt.
    pairs = made_pairs(6, shortest=1 if config.causal else LONGEST - 1)
    model, gates = random_gates(config, params)
    packed, places = pack(pairs, config.causal)
    assert packed.tokens.shape[0] == 3
    weights = np.random.default_rng(2).normal(size=(6, 2, 24)).astype(np.float32)

    @jax.jit
    def both(gates):
        def total(gates, some, order):
            logits = pair_logits(model, gates, some)[order]
            return jnp.sum(logits * weights), logits

        run = jax.value_and_grad(total, has_aux=True)
        return run(gates, pairs, np.arange(6)), run(gates, packed, places)

    ((_, plain), slopes), ((_, rows), packed_slopes) = both(gates)
    np.testing.assert_allclose(rows, plain, atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(packed_slopes, slopes, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", ["plain", "layer norm", "concatenated positions", "tied"])
def test_reduced_models(name):
    config, params = variant(name)
    assert can_reduce(config)
    pairs = made_pairs(6, seed=3)
    model, gates = random_gates(config, params)
    keep = gates > 0.6
    small = model.reduced(keep)
    assert small.small is not None
    packed, places = pack(pairs, config.causal)
    hard = keep.astype(np.float32)
    expected = pair_logits(model, hard, pairs)
    odds = model.answers(hard, pairs).reshape(-1, 2, 2)
    for some, order in ((pairs, np.arange(6)), (packed, places)):
        found = pair_logits(small, hard, some)[order]
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=2e-4)
        found = small.answers(hard, some).reshape(-1, 2, 2)[order]
        np.testing.assert_allclose(found, odds, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("count", "group"), [(1, 1), (2, 2), (7, 1), (12, 2)])
def test_rows_hold_every_pair_once(count, group):
    pairs = made_pairs(count, seed=4)
    packed, places = pack(pairs, True)
    assert packed.completions.shape == (count // group, group, 2)
    assert packed.size == 2 * count
    assert sorted(places) == list(range(count))
    np.testing.assert_array_equal(answers_of(packed)[places], answers_of(pairs))
    wrong = np.asarray(packed.wrong).reshape(-1, 2)[places]
    np.testing.assert_array_equal(wrong, answers_of(pairs)[:, ::-1])
    asked, plain = packed.prompts, pairs.prompts
    tokens = jnp.take_along_axis(asked.tokens, asked.positions, axis=1).reshape(-1, 2)
    ends = jnp.take_along_axis(plain.tokens, plain.positions, axis=1).reshape(-1, 2)
    np.testing.assert_array_equal(tokens[places], ends)


def test_what_is_shared_stands_there_once():
    pairs = made_pairs(40, seed=5)
    packed, _ = pack(pairs, True)
    tokens, last = tokens_of(pairs), np.asarray(pairs.positions)[::2, 0]
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
    longest = np.argsort(np.asarray(pairs.positions)[::2, 0])[-2:]
    few = dataclasses.replace(pairs.take(longest), row_length=8)
    assert pack(few, True)[0].tokens.shape[1] >= 2 * LONGEST


def test_rows_of_their_own_where_nothing_is_saved():
    config, _ = variant("plain")
    tokens = np.random.default_rng(9).integers(0, 24, (8, 2, LONGEST)).astype(np.int32)
    last = np.full((8, 2), LONGEST - 1, np.int32)
    early = Examples.of_pairs(tokens, last, last)
    assert row_length(config, early) == 0
    rows, places = pack(early, True)
    assert rows is early
    np.testing.assert_array_equal(places, np.arange(8))
    tokens[:, 1, :-1] = tokens[:, 0, :-1]
    late = Examples.of_pairs(tokens, last, last)
    assert 0 < row_length(config, late) < 4 * LONGEST
    bidirectional = dataclasses.replace(config, causal=False)
    assert row_length(bidirectional, late) == 0


@pytest.mark.parametrize(("count", "size"), [(20, 8), (5, 64), (7, 2), (6, 3), (1, 64)])
@pytest.mark.parametrize("packs", [True, False])
def test_batches_of_an_evaluation(count, size, packs):
    pairs = made_pairs(count, seed=7)
    batches, places = Batches(True, packs, size).even(pairs)
    assert {batch.size for batch in batches} == {2 * min(size, count)}
    right = np.concatenate([batch.right for batch in batches])[places]
    np.testing.assert_array_equal(right, pairs.right)
    assert packs or all(isinstance(batch, Examples) for batch in batches)


@pytest.mark.parametrize(("count", "size"), [(20, 8), (5, 64), (1, 64)])
def test_batches_of_a_mean_hold_every_example_once(count, size):
    pairs = made_pairs(count, seed=7)
    seen = [tuple(row) for b in Batches(True, True, size).uneven(pairs) for row in answers_of(b)]
    assert sorted(seen) == sorted(map(tuple, answers_of(pairs)))


def test_a_prompt_that_is_no_longer_than_what_it_shares_keeps_a_token():
    tokens = np.array([[[0, 3, 4, 5], [0, 3, 4, 5]]], np.int32)
    pairs = Examples.of_pairs(tokens, [[3, 2]], [[1, 2]], row_length=8)
    config, params = variant("plain")
    model = NodeGates(params, None, config=config)
    packed, _ = pack(pairs, True)
    np.testing.assert_allclose(model.full(packed), model.full(pairs), atol=2e-4)


def test_training_rows_are_drawn_by_pairs():
    pairs, batches = made_pairs(40, seed=8), Batches(True, True)
    rows = batches.training(pairs, 16)
    drawn = rows.draw(jax.random.key(0), 16)
    assert drawn.size == 32
    assert drawn.tokens.shape == (8, rows.tokens.shape[1])
    known = {tuple(row) for row in answers_of(pairs)}
    assert {tuple(row) for row in answers_of(drawn)} <= known
    assert batches.training(pairs, 5).draw(jax.random.key(0), 5).size == 10
    assert batches.training(made_pairs(7), 4).draw(jax.random.key(0), 4).size == 8


def test_rows_of_a_prompt_each_are_drawn_with_their_partner():
    drawn = Batches(True, False).training(made_pairs(40), 16).draw(jax.random.key(0), 16)
    tokens = np.asarray(drawn.tokens)
    assert tokens.shape[:2] == (32, 2)
    np.testing.assert_array_equal(tokens[::2, 0], tokens[1::2, 1])
    np.testing.assert_array_equal(tokens[::2, 1], tokens[1::2, 0])


def test_some_pairs_fit_the_rows_of_all():
    pairs = made_pairs(64, seed=4)
    pairs = dataclasses.replace(pairs, row_length=row_length(variant("plain")[0], pairs))
    assert pairs.row_length
    batches = Batches(True, True, 16)
    order = batches.order(pairs)
    assert sorted(order.tolist()) == list(range(64))
    whole = batches.even(pairs)[0][0].tokens.shape
    for count in (16, 32, 48):
        some = batches.some(pairs, count)
        np.testing.assert_array_equal(tokens_of(some), tokens_of(pairs)[order[:count]])
        assert {batch.tokens.shape for batch in batches.even(some)[0]} == {whole}
    assert batches.some(pairs, 64) is pairs
    # The first so many as they come would need longer rows: three of the longest among them.
    longest = pairs.take(np.argsort(-np.asarray(pairs.positions)[::2, 0], kind="stable"))
    longest_first = batches.even(longest.take(np.arange(16)))[0][0].tokens.shape
    assert longest_first[1] > whole[1]
    assert batches.even(batches.some(longest, 16))[0][0].tokens.shape == whole
