"""Laws of pairs: what is refused, and what the arrays hold."""

import random

import numpy as np
import pytest

from circuitjax.tasks.base import Pair, Task, encode_pair, encode_pairs, stack
from circuitjax.tasks.tokenizer import Tokenizer

GOOD = Pair("count = [total, name", "count = {total, name", "]\n", "}\n")


def test_one_pair_as_arrays(tokenizer: Tokenizer) -> None:
    encoded = encode_pair(tokenizer, GOOD)
    positive, negative = tokenizer.encode(GOOD.positive), tokenizer.encode(GOOD.negative)
    np.testing.assert_array_equal(
        encoded.tokens, [[[tokenizer.bos_id, *positive], [tokenizer.bos_id, *negative]]]
    )
    np.testing.assert_array_equal(encoded.last, [[len(positive), len(negative)]])
    assert encoded.answers.tolist() == [[tokenizer.token_id("]\n"), tokenizer.token_id("}\n")]]
    assert {array.dtype for array in encoded} == {np.dtype(np.int32)}


def test_short_prompts_are_padded_on_the_right(tokenizer: Tokenizer) -> None:
    longer = Pair("count = [1, 2, 3, 4", "count = {1, 2, 3, 4", "]\n", "}\n")
    rows = [row for row in encode_pairs(tokenizer, [GOOD, longer]) if not isinstance(row, str)]
    encoded = stack(rows, tokenizer.bos_id)
    assert encoded.tokens.shape == (2, 2, 1 + len(rows[1].positive))
    end = encoded.last[0, 0] + 1
    assert (encoded.tokens[0, :, end:] == tokenizer.bos_id).all()
    wide = encoded.padded(40)
    assert wide.tokens.shape == (2, 2, 40)
    np.testing.assert_array_equal(wide.tokens[:, :, : encoded.tokens.shape[2]], encoded.tokens)
    assert (wide.tokens[:, :, encoded.tokens.shape[2] :] == tokenizer.bos_id).all()
    with pytest.raises(ValueError, match="greater length"):
        wide.padded(39)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (GOOD._replace(negative="count = {total, name, 1"), "tokens, the negative"),
        (GOOD._replace(positive_completion="] not one\n"), "not one token"),
        (GOOD._replace(negative_completion="} not one\n"), "not one token"),
        (GOOD._replace(negative_completion="]\n"), "both completions"),
        (GOOD._replace(positive_completion="]", continuation_positive="\n"), "not the token made"),
        (GOOD._replace(negative_completion="}", continuation_negative="\n"), "not the token made"),
        (GOOD._replace(positive="", negative=""), "empty"),
    ],
)
def test_bad_pairs_are_refused(tokenizer: Tokenizer, pair: Pair, reason: str) -> None:
    (row,) = encode_pairs(tokenizer, [pair])
    assert isinstance(row, str)
    with pytest.raises(ValueError, match=reason):
        encode_pair(tokenizer, pair)


def test_a_prompt_whose_end_merges_with_the_completion_is_refused(tokenizer: Tokenizer) -> None:
    pair = Pair("count = [total, nam", "count = {total, nam", "e", "]")
    assert tokenizer.encode("count = [total, name") != [
        *tokenizer.encode("count = [total, nam"),
        tokenizer.token_id("e"),
    ]
    with pytest.raises(ValueError, match="not the token made after the positive"):
        encode_pair(tokenizer, pair)


def even(rng: random.Random) -> Pair:
    return GOOD


def odd(rng: random.Random) -> Pair:
    return GOOD


def test_templates_can_be_left_out() -> None:
    task = Task("t", "d", (even, odd))
    stream = task.candidates(random.Random(0), ("odd",))
    assert {next(stream).template for _ in range(50)} == {"even"}
    assert {task.sample(random.Random(seed)).template for seed in range(50)} == {"even", "odd"}
    with pytest.raises(ValueError, match="no template 'other'"):
        next(task.candidates(random.Random(0), ("other",)))
    with pytest.raises(ValueError, match="no template left"):
        next(task.candidates(random.Random(0), ("even", "odd")))


def test_a_task_has_templates_or_a_pool() -> None:
    with pytest.raises(ValueError, match="either"):
        Task("t", "d")
    with pytest.raises(ValueError, match="either"):
        Task("t", "d", (even,), pool=(GOOD,))
    with pytest.raises(ValueError, match="one name"):
        Task("t", "d", (even, even))
