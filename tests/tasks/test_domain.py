"""The whole of a split: as many as can be counted by hand, none twice; samples begin with the sets."""

import itertools

import numpy as np
import pytest

from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.contrast import ContrastTask, Example
from circuitjax.tasks.domain import whole_split
from circuitjax.tasks.splits import SPLITS, draw, splitter
from circuitjax.tasks.tokenizer import Tokenizer
from tests.prune.planted import LETTERS, TASK, tokenizer_json

TOKENIZER = Tokenizer.from_json(tokenizer_json())


def tokens_of(domain):
    """Prompts as tuples of tokens, the corrupted ones or negatives beside them."""
    found = [block.tokens.reshape(len(block.tokens), -1) for block in domain.blocks]
    return [tuple(map(int, row)) for block in found for row in block]


def by_hand(split):
    place = splitter(TASK)
    texts = ("".join(letters) for letters in itertools.product(LETTERS, repeat=3))
    both = [(f"A-{text}", f"B-{text}") for text in texts]
    return [pair for pair in both if all(place(text) == split for text in pair)]


def test_every_pair_of_every_split_is_there_once():
    for split in SPLITS:
        domain = whole_split(TASK, TOKENIZER, split, 10_000)
        rows = tokens_of(domain)
        assert domain.exact
        assert domain.derivations == len(LETTERS) ** 3
        assert len(set(rows)) == len(rows) == len(by_hand(split))


def doubled(rng) -> Pair:
    """Makes each of two pairs in two ways."""
    letter = rng.choice("aabb")
    return Pair(f"A-{letter}", f"B-{letter}", "x", "y")


def test_what_is_made_in_two_ways_counts_once():
    task = Task("doubled", "", samplers=(doubled,))
    counts = []
    for split in SPLITS:
        try:
            counts.append(len(tokens_of(whole_split(task, TOKENIZER, split, 100))))
        except ValueError:
            counts.append(0)
    assert sum(counts) <= 2


def test_of_more_a_sample_that_begins_with_the_set():
    domain = whole_split(TASK, TOKENIZER, "test", 100, seed=3)
    rows = tokens_of(domain)
    assert not domain.exact
    assert "none twice" in domain.how
    assert len(rows) == len(set(rows)) == 100
    first = draw(TASK, TOKENIZER, "test", 40, 3).tokens.reshape(40, -1)
    assert rows[:40] == [tuple(map(int, row)) for row in first]
    fewer = whole_split(TASK, TOKENIZER, "test", 100, 30, seed=3)
    assert tokens_of(fewer) == rows[:30]
    assert whole_split(TASK, TOKENIZER, "test", 10_000, 30).exact


def test_a_pool_is_all_that_is_given_of_the_split():
    pairs = tuple(Pair(f"A-{t}", f"B-{t}", "x", "y") for t in LETTERS)
    pool = Task("pool", "", pool=(*pairs, pairs[0]))
    rows = {split: tokens_of(whole_split(pool, TOKENIZER, split, 1000)) for split in SPLITS}
    assert sum(len(one) for one in rows.values()) == len(set(itertools.chain(*rows.values()))) == 16
    short = whole_split(pool, TOKENIZER, "train", 4, seed=1)
    assert not short.exact
    assert len(tokens_of(short)) == 4
    assert f"drawn from {len(rows['train'])}" in short.how


def first_letter(rng) -> Example:
    letter = rng.choice(LETTERS[:4])
    return Example(f"A-{letter}{letter}", f"B-{letter}{letter}", ("x",), ("y",))


def blurred(rng) -> Pair:
    return Pair(f"A-{'abcdefgh'[int(rng.gauss(4, 1)) % 8]}", "B-a", "x", "y")


def test_examples_are_counted_by_themselves_and_what_cannot_be_followed_is_drawn():
    task = ContrastTask("contrast", "", samplers=(first_letter,))
    counts = []
    for split in SPLITS:
        domain = whole_split(task, TOKENIZER, split, 50)
        assert domain.exact
        counts.append(sum(len(block.tokens) for block in domain.blocks))
    assert sum(counts) == 4
    unlisted = whole_split(Task("blurred", "", samplers=(blurred,)), TOKENIZER, "train", 50)
    assert not unlisted.exact
    assert "cannot be followed: random bits" in unlisted.how or "draw" in unlisted.how
    assert unlisted.derivations is None


def test_blocks_hold_pairs_as_arrays():
    (block,) = whole_split(TASK, TOKENIZER, "test", 20).blocks
    assert block.tokens.shape[:2] == (20, 2)
    assert np.all(block.answers[:, 0] != block.answers[:, 1])


@pytest.mark.parametrize(
    ("split", "most", "message"),
    [("dev", 5, "there is no split 'dev'"), ("test", 0, "cannot take 0 items")],
)
def test_bad_input_is_one_line(split, most, message):
    with pytest.raises(ValueError, match=message):
        whole_split(TASK, TOKENIZER, split, most)
