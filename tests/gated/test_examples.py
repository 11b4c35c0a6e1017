"""Examples: a pair is two of them, each the other's corrupted one, and taking keeps pairs together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.examples import Examples, joined, picked, slices_of
from tests.drawn import assert_same


def random_pairs(count=6, length=5, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 20, (count, 2, length))
    return Examples.of_pairs(
        tokens, rng.integers(1, length, (count, 2)), rng.integers(0, 20, (count, 2))
    ), tokens


def contrast(count=4, length=5, right=2, wrong=3):
    rng = np.random.default_rng(1)
    last = np.repeat(rng.integers(1, length, (count, 1)), 1, axis=1)
    arrays = (
        rng.integers(0, 20, (count, 2, length)),
        last,
        rng.integers(0, 20, (count, right)),
        rng.integers(0, 20, (count, wrong)),
    )
    return Examples(*(jnp.asarray(x, jnp.int32) for x in arrays))


def test_a_pair_is_two_examples_each_the_others_corrupted_one():
    pairs, tokens = random_pairs()
    assert (pairs.size, pairs.items, pairs.unit) == (12, 6, 2)
    np.testing.assert_array_equal(pairs.tokens[::2], tokens)
    np.testing.assert_array_equal(pairs.tokens[1::2], tokens[:, ::-1])
    np.testing.assert_array_equal(pairs.right[::2], pairs.wrong[1::2])
    np.testing.assert_array_equal(pairs.wrong[::2], pairs.right[1::2])
    np.testing.assert_array_equal(pairs.prompts.tokens, pairs.tokens[:, 0])


@pytest.mark.parametrize("make", [lambda: random_pairs()[0], contrast])
def test_items_are_taken_whole(make):
    some = make()
    index = np.array([2, 0, 2])
    for taken in (some.take(index), some.take(jnp.asarray(index))):
        assert taken.items == 3
        for number, item in enumerate(index):
            one = taken.take(np.array([number]))
            assert_same(one, some.take(np.array([item])))
    assert_same(some.first(2), some.take(np.arange(2)))
    assert some.first(99) is some
    drawn = some.draw(jax.random.key(0), 5)
    assert drawn.items == 5
    known = {tuple(np.ravel(some.take(np.array([i])).tokens)) for i in range(some.items)}
    assert all(tuple(np.ravel(drawn.take(np.array([i])).tokens)) in known for i in range(5))


def test_each_example_beside_its_reverse_is_a_pair():
    pairs, _ = random_pairs()
    assert pairs.as_pairs() is pairs
    some = contrast()
    both = some.as_pairs()
    assert both.paired
    assert both.items == some.size
    np.testing.assert_array_equal(both.tokens[::2], some.tokens)
    np.testing.assert_array_equal(both.tokens[1::2], some.tokens[:, ::-1])
    np.testing.assert_array_equal(both.positions[1::2], some.positions)
    np.testing.assert_array_equal(both.right[::2, :2], some.right)
    np.testing.assert_array_equal(both.right[::2, 2], -1)
    np.testing.assert_array_equal(both.right[1::2], some.wrong)


def test_sets_are_joined_one_after_another():
    one, other = random_pairs(seed=0)[0], random_pairs(seed=1)[0]
    both = joined([one, other])
    assert both.items == 12
    assert_same(both.take(np.arange(6)), one)
    assert_same(both.take(np.arange(6, 12)), other)


def test_logits_are_picked_at_the_first_position():
    some = contrast()
    logits = np.random.default_rng(2).normal(size=(some.size, 2, 20)).astype(np.float32)
    found = picked(jnp.asarray(logits), some)
    for row in range(some.size):
        tokens = [*np.asarray(some.right)[row], *np.asarray(some.wrong)[row]]
        np.testing.assert_array_equal(found[row], logits[row, 0, tokens])


def test_other_answers_to_the_same_prompts():
    some = contrast()
    changed = some.replace_answers(np.full((4, 1), 3), np.full((4, 1), 7))
    assert_same(changed.tokens, some.tokens)
    assert changed.right.tolist() == [[3]] * 4


@pytest.mark.parametrize(("rows", "slots", "parts"), [(64, 64, 4), (2, 600, 1), (2, 1024, 2)])
def test_slices_divide_the_rows_and_are_not_too_small(rows, slots, parts):
    assert slices_of(rows, slots) == parts
