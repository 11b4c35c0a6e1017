"""The English tasks mean what they say, on a byte-level tokenizer that knows their words."""

import itertools
import random
import re
from collections.abc import Iterator

import numpy as np
import pytest
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Rust

from circuitjax.tasks import english
from circuitjax.tasks.contrast import Example, draw_encoded, draw_examples
from circuitjax.tasks.english import greater_than, ioi, pronouns, vocabulary, words
from circuitjax.tasks.splits import SPLITS
from circuitjax.tasks.tokenizer import BOS, Tokenizer

LISTS = (words.NAMES, words.PLACES, words.OBJECTS, words.PERIODS, words.PEOPLE, words.ADJECTIVES)
TEMPLATES = (ioi.TEMPLATES, pronouns.TEMPLATES, greater_than.TEMPLATES)
PLAIN = [text for templates in TEMPLATES for text in templates.values()]


def byte_level(digits: int | None, known: list[str]) -> Tokenizer:
    """A tokenizer of whole words with a space before them; of numbers cut from the left.

    Args:
      digits: Digits in a group of a number; None makes every digit and letter a token of its own.
      known: The words that are one token each, with their spaces.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust = Rust(models.BPE(vocab={c: i for i, c in enumerate(sorted(alphabet))}, merges=[]))
    cut = Regex(rf" ?\p{{L}}+| ?\d{{1,{digits or 1}}}|[^\p{{L}}\d]")
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(cut, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    if digits:
        numbers = [f"{space}{n:0{digits}d}" for n in range(10**digits) for space in ("", " ")]
        trainer = trainers.BpeTrainer(
            vocab_size=60_000, show_progress=False, initial_alphabet=alphabet
        )
        rust.train_from_iterator(known + numbers, trainer)
    rust.add_special_tokens([BOS])
    return Tokenizer.from_json(rust.to_str())


def known_words(split: tuple[str, ...] = ()) -> list[str]:
    every = [f" {word}" for word in itertools.chain(*LISTS, ("she", "he")) if word not in split]
    return every + PLAIN


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_level(2, known_words())


@pytest.fixture(scope="module")
def of_bytes() -> Tokenizer:
    return byte_level(None, [])


@pytest.fixture(scope="module")
def drawn(tokenizer: Tokenizer) -> dict[str, tuple[Example, ...]]:
    return {
        name: draw_examples(english.get(name), tokenizer, "train", 200, 0)
        for name in english.names()
    }


def stream(name: str, tokenizer: Tokenizer, seed: int = 0) -> Iterator[Example]:
    return english.get(name).candidates(tokenizer, random.Random(seed))


def test_the_suite_is_fixed() -> None:
    assert english.names() == ("ioi", "greater_than", "pronouns")
    metrics = [english.get(name).metric for name in english.names()]
    assert metrics == ["logit_difference", "probability_difference", "logit_difference"]
    with pytest.raises(ValueError, match="no English task 'pronoun': did you mean pronouns"):
        english.get("pronoun")
    with pytest.raises(TypeError):
        english.TASKS["more"] = english.get("ioi")  # type: ignore[index]


def test_word_lists_are_long_and_clean() -> None:
    for held in LISTS:
        assert len(held) == len(set(held))
        assert all(re.fullmatch(r"[A-Za-z]+( [a-z]+)?", word) for word in held)
    assert not set(words.FEMALE) & set(words.MALE)
    assert min(len(words.FEMALE), len(words.MALE), len(words.PLACES), len(words.OBJECTS)) >= 100
    assert len(words.PERIODS) >= 60
    assert len(ioi.TEMPLATES) >= 15
    assert len(greater_than.TEMPLATES) >= 5
    assert len(pronouns.TEMPLATES) >= 6
    # these stand after "a"
    assert not [word for word in (*words.OBJECTS, *words.ADJECTIVES) if word[0] in "aeiou"]


def test_every_prompt_is_plain_english_text(drawn: dict[str, tuple[Example, ...]]) -> None:
    for example in itertools.chain(*drawn.values()):
        for text in (example.clean, example.corrupted):
            assert re.fullmatch(r"[A-Z][A-Za-z0-9,.' ]*[a-z0-9t]", text)
            assert "  " not in text


def test_ioi_names_two_people_and_one_of_them_again(drawn: dict[str, tuple[Example, ...]]) -> None:
    orders = {"abba": 0, "baba": 0}
    for example in drawn["ioi"]:
        named = [word for word in re.findall(r"\w+", example.clean) if word in words.NAMES]
        receiver, giver = example.right[0].strip(), example.wrong[0].strip()
        order = example.template.split("_")[0]
        orders[order] += 1
        first = [receiver, giver] if order == "abba" else [giver, receiver]
        assert named == [*first, giver]
        others = [word for word in re.findall(r"\w+", example.corrupted) if word in words.NAMES]
        assert len({*others, receiver, giver}) == 5
        frames = [re.sub("|".join(named), "@", example.clean)]
        frames.append(re.sub("|".join(others), "@", example.corrupted))
        assert frames[0] == frames[1]
    assert min(orders.values()) > 60


def test_greater_than_years(drawn: dict[str, tuple[Example, ...]]) -> None:
    for example in drawn["greater_than"]:
        century, start = re.findall(r"(\d\d)(\d\d)\b", example.clean)[0]
        assert example.clean.endswith(f" {century}")
        assert example.corrupted == example.clean.replace(century + start, century + "01")
        assert all(int(year) > int(start) for year in example.right)
        assert all(int(year) <= int(start) for year in example.wrong)
        assert sorted(example.right + example.wrong) == [f"{year:02d}" for year in range(100)]


@pytest.mark.parametrize(
    ("name", "places"), [("ioi", 3), ("greater_than", 1), ("pronouns", 1)], ids=english.names()
)
def test_prompts_differ_in_as_few_tokens_as_they_can(
    tokenizer: Tokenizer, name: str, places: int
) -> None:
    encoded = draw_encoded(english.get(name), tokenizer, "validation", 50, 0)
    different = (encoded.tokens[:, 0] != encoded.tokens[:, 1]).sum(axis=1)
    np.testing.assert_array_equal(different, places)


def test_pronouns_follow_the_name(drawn: dict[str, tuple[Example, ...]]) -> None:
    seen = set()
    for example in drawn["pronouns"]:
        clean, corrupted = example.clean.split(), example.corrupted.split()
        (pair,) = [
            (a.strip(","), b.strip(",")) for a, b in zip(clean, corrupted, strict=True) if a != b
        ]
        own, other = (words.FEMALE, words.MALE)[:: 1 if example.right == (" she",) else -1]
        assert pair[0] in own
        assert pair[1] in other
        assert {*example.right, *example.wrong} == {" she", " he"}
        seen.add(example.right)
    assert len(seen) == 2


@pytest.mark.parametrize("name", english.names())
def test_every_template_can_be_encoded(tokenizer: Tokenizer, name: str) -> None:
    task = english.get(name)
    assert task.fit is not None
    ids = {sampler.__name__ for sampler in task.fit(tokenizer)}
    per_order = {"ioi": 2, "greater_than": 1, "pronouns": 1}[name]
    templates = dict(zip(("ioi", "pronouns", "greater_than"), TEMPLATES, strict=True))[name]
    assert len(ids) == per_order * len(templates)
    examples = draw_examples(task, tokenizer, "train", 12 * len(ids), 1)
    assert {example.template for example in examples} == ids


@pytest.mark.parametrize("name", english.names())
def test_splits_share_no_text(tokenizer: Tokenizer, name: str) -> None:
    held = []
    for split in SPLITS:
        examples = draw_examples(english.get(name), tokenizer, split, 60, 0)
        held.append({text for e in examples for text in (e.clean, e.corrupted)})
    assert all(not a & b for a, b in itertools.combinations(held, 2))


@pytest.mark.parametrize("name", english.names())
def test_there_are_a_hundred_thousand_examples(tokenizer: Tokenizer, name: str) -> None:
    """Counted: so many different clean prompts among the first draws."""
    wanted, most = 100_000, 250_000
    seen: set[str] = set()
    for example in itertools.islice(stream(name, tokenizer), most):
        seen.add(example.clean)
        if len(seen) == wanted:
            break
    assert len(seen) == wanted


def test_the_least_vocabularies_still_give_a_hundred_thousand() -> None:
    n = ioi.LEAST_NAMES
    assert 2 * len(ioi.TEMPLATES) * n * (n - 1) * len(words.PLACES) * len(words.OBJECTS) > 10**8
    kinds = len(words.ADJECTIVES) * len(words.PEOPLE)
    assert len(pronouns.TEMPLATES) * kinds * 2 * pronouns.LEAST_NAMES > 10**6
    of_one_year = len(greater_than.TEMPLATES) * len(words.PERIODS)
    assert of_one_year * greater_than.LEAST_YEARS > 10**5


def test_names_that_are_split_are_not_used() -> None:
    keep = words.NAMES[::7]
    dropped = tuple(word for word in words.NAMES if word not in keep)
    tokenizer = byte_level(2, known_words(dropped))
    counts = vocabulary.token_counts(tokenizer, words.NAMES)
    kept = {name for name, count in counts.items() if count == 1}
    assert set(keep) <= kept < set(words.NAMES)
    named = {
        word
        for example in itertools.islice(stream("ioi", tokenizer), 2_000)
        for word in re.findall(r"\w+", example.clean + " " + example.corrupted)
        if word in words.NAMES
    }
    assert named == kept
    # in the other task they are used, with a partner of as many tokens
    several = 0
    for example in itertools.islice(stream("pronouns", tokenizer), 500):
        lengths = [len(tokenizer.encode(text)) for text in (example.clean, example.corrupted)]
        assert lengths[0] == lengths[1]
        several += any(
            counts.get(word.strip(",")) != 1
            for word in example.clean.split()
            if word.strip(",") in words.NAMES
        )
    assert several > 50


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ioi", "only 0 of 298 first names one token each, at least 20"),
        ("greater_than", "only 0 of 1100 years two tokens of two digits, at least 200"),
        ("pronouns", "only 0 of 2 pronouns one token each"),
    ],
)
def test_a_tokenizer_without_the_words_is_refused(
    of_bytes: Tokenizer, name: str, match: str
) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        draw_examples(english.get(name), of_bytes, "train", 10, 0)
    assert "\n" not in str(caught.value)


def test_years_that_are_one_token_are_refused() -> None:
    tokenizer = byte_level(4, known_words())
    with pytest.raises(ValueError, match="only 0 of 1100 years"):
        draw_examples(english.get("greater_than"), tokenizer, "train", 10, 0)
