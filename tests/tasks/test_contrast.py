"""Laws of clean and corrupted prompts: aligned, checked by the tokenizer, apart between splits."""

import itertools
import random
from typing import Any

import numpy as np
import pytest

from circuitjax.tasks import splits, suite
from circuitjax.tasks.base import Pair, Task, encode_pair
from circuitjax.tasks.contrast import (
    ContrastTask,
    EncodedExamples,
    Example,
    draw_encoded,
    draw_examples,
    encode_examples,
    from_pairs,
)
from circuitjax.tasks.templates import template_names, templates_of
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.tasks.words import COMMON

GOOD = Example("x = [a, b", "x = {a, b", ("]\n", "]"), ("}\n",))


def listed(rng: random.Random) -> Example:
    name, *items = rng.sample(COMMON, 3)
    inside = ", ".join(items)
    return Example(f"{name} = [{inside}", f"{name} = {{{inside}", ("]\n", "]"), ("}\n",))


def renamed(rng: random.Random) -> Example:
    """The two prompts have different names, so they may fall into different splits."""
    name, other, item = rng.sample(COMMON, 3)
    return Example(f"{name} = [{item}", f"{other} = ({item}", ("]\n",), (")\n", "}\n"))


MADE = ContrastTask("made", "d", (listed, renamed))


def texts(examples: tuple[Example, ...]) -> set[str]:
    return {text for example in examples for text in (example.clean, example.corrupted)}


def same(one: EncodedExamples, other: EncodedExamples) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_arrays_are_the_texts(tokenizer: Tokenizer) -> None:
    short = Example("f(1", "f[1", (")",), ("]", "}", "]\n"))
    examples = [GOOD, short]
    encoded = encode_examples(tokenizer, examples)
    longest = max(len(tokenizer.encode(example.clean)) for example in examples)
    assert encoded.tokens.shape == (2, 2, longest + 1)
    assert all(part.dtype == np.int32 for part in encoded[:4])
    for index, example in enumerate(examples):
        for side, text in enumerate((example.clean, example.corrupted)):
            row = encoded.tokens[index, side]
            length = encoded.last[index] + 1
            assert row[:length].tolist() == [tokenizer.bos_id, *tokenizer.encode(text)]
            assert (row[length:] == tokenizer.bos_id).all()
        for held, given in ((encoded.right, example.right), (encoded.wrong, example.wrong)):
            ids = [token for text in given for token in tokenizer.encode(text)]
            assert held[index].tolist() == ids + [-1] * (held.shape[1] - len(given))
    assert encoded.right.shape == (2, 2)
    assert encoded.wrong.shape == (2, 3)


def test_examples_of_no_template_are_not_given_another_ones_name() -> None:
    pool = (GOOD._replace(template="a"), GOOD._replace(clean="x", template=""))
    every = templates_of(ContrastTask("some", "d", pool=pool))
    assert every == ("a",)
    assert template_names(every, np.array([0, -1])) == ["a", ""]


def test_padding_keeps_what_is_there(tokenizer: Tokenizer) -> None:
    encoded = encode_examples(tokenizer, [GOOD])
    wide = encoded.padded(20, 5, 4)
    assert [part.shape for part in wide[:4]] == [(1, 2, 20), (1,), (1, 5), (1, 4)]
    assert wide.templates == encoded.templates == (GOOD.template,)
    length = encoded.tokens.shape[-1]
    assert np.array_equal(wide.tokens[..., :length], encoded.tokens)
    assert (wide.tokens[..., length:] == tokenizer.bos_id).all()
    assert np.array_equal(wide.right[:, :2], encoded.right)
    assert (wide.right[:, 2:] == -1).all()
    assert (wide.wrong[:, 1:] == -1).all()
    assert same(encoded.padded(length), encoded)
    with pytest.raises(ValueError, match="cannot pad 2 right completions to 1"):
        encoded.padded(length, right=1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"corrupted": "x = [a, b, c"}, r"clean prompt has 6 tokens, the corrupted 8"),
        ({"right": ("] never one token",)}, r"'\] never one token' is not one token"),
        ({"right": ("]\n", "}\n")}, r"'}\\n' is both right and wrong"),
        ({"right": ("]\n", "]\n")}, "a right completion is given twice"),
        ({"right": ()}, "there is no right completion"),
        ({"wrong": ()}, "there is no wrong completion"),
        ({"wrong": "}"}, r"the text '}', not a tuple"),
        ({"clean": ""}, "a prompt is empty"),
        ({"corrupted": ""}, "a prompt is empty"),
        ({"corrupted": GOOD.clean}, "both prompts are the same"),
        # "(" and ")" merge into one token
        (
            {"clean": "f(", "corrupted": "f[", "right": (")",), "wrong": ("x",)},
            "not the token made",
        ),
    ],
)
def test_bad_examples_are_refused_in_one_line(
    tokenizer: Tokenizer, changes: dict[str, Any], match: str
) -> None:
    example = GOOD._replace(**changes)
    with pytest.raises(ValueError, match=f"^bad example 1, .*{match}") as caught:
        encode_examples(tokenizer, [GOOD, example])
    assert "\n" not in str(caught.value)


def test_no_examples_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no examples"):
        encode_examples(tokenizer, [])


@pytest.mark.parametrize("name", suite.names())
def test_every_pair_of_the_suite_gives_two_examples(tokenizer: Tokenizer, name: str) -> None:
    pairs = splits.draw_pairs(suite.get(name), tokenizer, "validation", 40, 0)
    examples = from_pairs(pairs)
    encoded = encode_examples(tokenizer, examples)
    assert len(examples) == 2 * len(pairs)
    for index, pair in enumerate(pairs):
        alone = encode_pair(tokenizer, pair)
        length = alone.tokens.shape[-1]
        for side in (0, 1):
            row = 2 * index + side
            assert encoded.last[row] == alone.last[0, side]
            found = encoded.tokens[row, :, :length]
            assert np.array_equal(found, alone.tokens[0, :: 1 - 2 * side])
            assert encoded.right[row].tolist() == [alone.answers[0, side]]
            assert encoded.wrong[row].tolist() == [alone.answers[0, 1 - side]]
            assert examples[row].template == pair.template


@pytest.mark.parametrize("task", [MADE, suite.get("for_while")], ids=["made", "for_while"])
def test_splits_share_no_text_whatever_the_seeds(
    tokenizer: Tokenizer, task: ContrastTask | Task
) -> None:
    held = [
        texts(draw_examples(task, tokenizer, split, 120, 3 * number))
        | texts(draw_examples(task, tokenizer, split, 50, 7))
        for number, split in enumerate(splits.SPLITS)
    ]
    assert all(not a & b for a, b in itertools.combinations(held, 2))
    for split, some in zip(splits.SPLITS, held, strict=True):
        assert {splits.split_of(text) for text in some} == {split}


@pytest.mark.parametrize("task", [MADE, suite.get("for_while")], ids=["made", "for_while"])
def test_draws_repeat_and_differ_by_seed_and_grow_at_the_end(
    tokenizer: Tokenizer, task: ContrastTask | Task
) -> None:
    one = draw_examples(task, tokenizer, "train", 81, 5)
    assert len(one) == len({example.clean for example in one}) == 81
    assert one == draw_examples(task, tokenizer, "train", 81, 5)
    assert one != draw_examples(task, tokenizer, "train", 81, 6)
    assert one[:30] == draw_examples(task, tokenizer, "train", 30, 5)
    encoded = draw_encoded(task, tokenizer, "train", 81, 5)
    assert same(encoded, encode_examples(tokenizer, one))


def test_every_template_occurs_by_its_name(tokenizer: Tokenizer) -> None:
    examples = draw_examples(MADE, tokenizer, "test", 100, 0)
    assert {example.template for example in examples} == {"listed", "renamed"}


def test_all_of_a_pool(tokenizer: Tokenizer) -> None:
    pool = tuple(Pair(f"{a} = [1, 2", f"{a} = {{1, 2", "]\n", "}\n") for a in COMMON)
    task = Task("pool", "d", pool=pool)
    drawn = [draw_examples(task, tokenizer, split, None, 0) for split in splits.SPLITS]
    found = [example for some in drawn for example in some]
    assert sorted(found) == sorted(from_pairs(pool))


def few(rng: random.Random) -> Example:
    return listed(random.Random(int(rng.random() * 30)))


def broken(rng: random.Random) -> Example:
    return listed(rng)._replace(right=("] never one token",))


def test_a_task_that_runs_dry_says_so(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"'small' gave \d+ test examples of 100 asked for"):
        draw_examples(ContrastTask("small", "d", (few,)), tokenizer, "test", 100, 0)
    with pytest.raises(ValueError, match=r"gave 0 train examples .* not one token"):
        draw_examples(ContrastTask("bad", "d", (broken,)), tokenizer, "train", 10, 0)


def test_bad_arguments_are_refused(tokenizer: Tokenizer) -> None:
    for task in (MADE, suite.get("for_while")):
        with pytest.raises(ValueError, match="no split 'dev'"):
            draw_examples(task, tokenizer, "dev", 10, 0)
        with pytest.raises(ValueError, match="cannot draw 0 examples"):
            draw_examples(task, tokenizer, "test", 0, 0)
        with pytest.raises(ValueError, match="has no end"):
            draw_examples(task, tokenizer, "test", None, 0)
    with pytest.raises(ValueError, match="needs samplers, a function `fit`, or a pool"):
        ContrastTask("t", "d")
    with pytest.raises(ValueError, match="needs samplers, a function `fit`, or a pool"):
        ContrastTask("t", "d", (listed,), fit=lambda tokenizer: (listed,))
    with pytest.raises(ValueError, match="two templates of one name"):
        ContrastTask("t", "d", (listed, listed))
    with pytest.raises(ValueError, match="no metric 'loss'"):
        ContrastTask("t", "d", (listed,), metric="loss")
