"""Laws of the splits: no shared text, no repeats, repeatable, in the shares that are stated."""

import random
import time

import numpy as np
import pytest
import tokenizers

from circuitjax.tasks import jsonl, splits, suite
from circuitjax.tasks.base import Encoded, Pair, Task, encode_pairs
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.tasks.words import COMMON


def texts(pairs: tuple[Pair, ...]) -> set[str]:
    return {text for pair in pairs for text in (pair.positive, pair.negative)}


@pytest.mark.parametrize("name", suite.names())
def test_splits_share_no_text_whatever_the_seeds(tokenizer: Tokenizer, name: str) -> None:
    task = suite.get(name)
    drawn = {
        split: texts(splits.draw_pairs(task, tokenizer, split, 150, 3 * number))
        | texts(splits.draw_pairs(task, tokenizer, split, 60, 7))
        for number, split in enumerate(splits.SPLITS)
    }
    for split, held in drawn.items():
        assert all(splits.split_of(text) == split for text in held)
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["validation"] & drawn["test"]


def test_shares_of_random_texts() -> None:
    rng = random.Random(1)
    counts = dict.fromkeys(splits.SPLITS, 0)
    for number in range(20_000):
        counts[splits.split_of(f"word{number} = {rng.random()}")] += 1
    for split, share in zip(splits.SPLITS, splits.SHARES, strict=True):
        deviation = (20_000 * share * (1 - share)) ** 0.5
        assert abs(counts[split] - 20_000 * share) < 5 * deviation


def test_a_split_depends_on_the_names_alone() -> None:
    first = "def run(value):\n    total = [value, 1"
    second = "run = lambda total: {value}\nwhile True"
    assert splits.split_of(first) == splits.split_of(second)


def same(one: Encoded, other: Encoded) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_draws_repeat_and_differ_by_seed_and_grow_at_the_end(tokenizer: Tokenizer) -> None:
    task = suite.get("for_while")
    one = splits.draw(task, tokenizer, "train", 100, 5)
    assert same(one, splits.draw(task, tokenizer, "train", 100, 5))
    assert not same(one, splits.draw(task, tokenizer, "train", 100, 6))
    short = splits.draw_pairs(task, tokenizer, "train", 30, 5)
    assert short == splits.draw_pairs(task, tokenizer, "train", 100, 5)[:30]


def test_arrays_are_the_texts(tokenizer: Tokenizer) -> None:
    task = suite.get("class_init")
    encoded = splits.draw(task, tokenizer, "validation", 50, 0)
    pairs = splits.draw_pairs(task, tokenizer, "validation", 50, 0)
    for index, pair in enumerate(pairs):
        for side, text in enumerate((pair.positive, pair.negative)):
            row = encoded.tokens[index, side, : encoded.last[index, side] + 1].tolist()
            assert row == [tokenizer.bos_id, *tokenizer.encode(text)]
            completion = (pair.positive_completion, pair.negative_completion)[side]
            assert encoded.answers[index, side] == tokenizer.token_id(completion)


def test_no_text_occurs_twice_in_a_draw(tokenizer: Tokenizer) -> None:
    for name in suite.names():
        pairs = splits.draw_pairs(suite.get(name), tokenizer, "test", 200, 1)
        assert len(texts(pairs)) == 400


def test_a_held_out_template_does_not_occur(tokenizer: Tokenizer) -> None:
    task = suite.get("with_as")
    pairs = splits.draw_pairs(task, tokenizer, "train", 200, 0, exclude_templates=["opened"])
    assert {pair.template for pair in pairs} == set(task.templates) - {"opened"}


def test_a_large_draw_is_quick(tokenizer: Tokenizer) -> None:
    start = time.process_time()
    encoded = splits.draw(suite.get("else_elif"), tokenizer, "test", 4096, 0)
    assert encoded.tokens.shape[:2] == (4096, 2)
    assert time.process_time() - start < 20  # a second or two on an idle core


def few(rng: random.Random) -> Pair:
    name = COMMON[int(rng.random() * len(COMMON))]
    return Pair(f"{name} = [1, 2", f"{name} = {{1, 2", "]\n", "}\n")


def never(rng: random.Random) -> Pair:
    return few(rng)._replace(positive_completion="] never one token")


def test_a_task_that_runs_dry_says_so(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="test pairs of 100 asked for"):
        splits.draw(Task("small", "d", (few,)), tokenizer, "test", 100, 0)
    with pytest.raises(ValueError, match=r"gave 0 train pairs .* not one token"):
        splits.draw(Task("bad", "d", (never,)), tokenizer, "train", 10, 0)


def test_bad_arguments_are_refused(tokenizer: Tokenizer) -> None:
    task = suite.get("for_while")
    with pytest.raises(ValueError, match="no split 'dev'"):
        splits.draw(task, tokenizer, "dev", 10, 0)
    with pytest.raises(ValueError, match="at least 1"):
        splits.draw(task, tokenizer, "test", 0, 0)
    with pytest.raises(ValueError, match="give a size"):
        splits.draw(task, tokenizer, "test", None, 0)


def test_a_pool_is_split_by_groups_that_share_a_prompt(tokenizer: Tokenizer) -> None:
    lines = [
        f'{{"positive": "{a} = [{b}, {c}", "negative": "{a} = {{{b}, 1", '
        f'"positive_completion": "]\\n", "negative_completion": "}}\\n"}}'
        for a in COMMON[:20]
        for b in COMMON[20:28]
        for c in "123"
    ]
    task = jsonl.parse([line for line in lines if ", 1" in line], tokenizer, "pool")
    drawn = {s: splits.draw_pairs(task, tokenizer, s, None, 0) for s in splits.SPLITS}
    assert sum(map(len, drawn.values())) == len(task.pool) == 480
    assert set().union(*drawn.values()) == set(task.pool)
    held = [texts(pairs) for pairs in drawn.values()]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    other = splits.draw_pairs(task, tokenizer, "train", None, 1)
    assert other != drawn["train"]
    assert set(other) == set(drawn["train"])


@pytest.mark.parametrize("first", ["values = [{}, {}", "[{}, {}", "x.y[{} + {}"])
def test_a_pool_whose_names_are_always_the_same_is_split_by_its_text(
    tokenizer: Tokenizer, first: str
) -> None:
    """361 pairs of two numbers each: by names all of them fell into one split."""
    pairs = [
        Pair(*(first.replace("[", mark).format(a, b) for mark in "[("), "]\n", ")\n")
        for a in range(1, 20)
        for b in range(1, 20)
    ]
    task = Task("pairs", "constant names", pool=tuple(pairs))
    drawn = {s: texts(splits.draw_pairs(task, tokenizer, s, None, 0)) for s in splits.SPLITS}
    sizes = {split: len(held) / 2 for split, held in drawn.items()}
    if first.startswith("values"):
        assert sizes == {"train": 253, "validation": 54, "test": 54}
    assert min(sizes.values()) > 40
    assert len(set().union(*drawn.values())) == 2 * 361


def test_a_small_pool_gives_every_split_a_pair() -> None:
    for count in range(3, 30):
        pool = tuple(Pair(f"x{i}", f"y{i}", "a", "b") for i in range(10**6, 10**6 + count))
        assert set(splits.split_pool(pool, splits.both_prompts).values()) == set(splits.SPLITS)


def constant(rng: random.Random) -> Pair:
    inner = ", ".join(str(rng.randrange(1, 100)) for _ in range(3))
    return Pair(f"values = [{inner}", f"values = ({inner}", "]\n", ")\n")


def test_templates_whose_names_are_always_the_same_are_split_by_their_text(
    tokenizer: Tokenizer,
) -> None:
    task = Task("constant", "names never change", (constant,))
    drawn = [texts(splits.draw_pairs(task, tokenizer, s, 80, 0)) for s in splits.SPLITS]
    assert not drawn[0] & drawn[1]
    assert not drawn[0] & drawn[2]
    assert not drawn[1] & drawn[2]


@pytest.mark.parametrize("name", suite.names())
def test_names_split_every_built_in_task(name: str) -> None:
    assert splits.splitter(suite.get(name)) is splits.split_of


def test_what_was_checked_once_is_drawn_without_encoding_again(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    pool = tuple({constant(rng): None for _ in range(3000)})
    encode_pairs(tokenizer, pool)
    task, seen = Task("many", "lines", pool=pool), []

    class Counting:
        def encode_batch_fast(self, texts, **_):
            seen.extend(texts)

        def __getattr__(self, name):
            return getattr(tokenizers.Tokenizer.from_str(tokenizer.json), name)

    monkeypatch.setitem(vars(tokenizer), "_rust", Counting())
    for split in splits.SPLITS:
        splits.draw(task, tokenizer, split, None, 0)
    assert seen == []
