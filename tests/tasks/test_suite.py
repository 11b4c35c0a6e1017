"""Laws of the twenty tasks, with Python's own parser as the judge of what is right."""

import ast
import random
import re

import pytest

from circuitjax.tasks import suite, words
from circuitjax.tasks.base import Pair, encode_pairs
from circuitjax.tasks.tokenizer import Tokenizer

SAMPLES = 400

# Tasks in which the other prompt's continuation is no Python at all.
SYNTACTIC = {
    "single_double_quote",
    "with_as",
    "bracket_brace",
    "bracket_counting",
    "fstring_brace",
    "if_ternary",
    "lambda_func",
    "if_equals",
    "while_return_true",
}


def drawn(name: str, count: int = SAMPLES) -> list[Pair]:
    stream = suite.get(name).candidates(random.Random(f"test {name}"))
    return [next(stream) for _ in range(count)]


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def test_names_and_lookup() -> None:
    assert len(suite.names()) == len(suite.TASKS) == 20
    assert all(suite.get(name).name == name for name in suite.names())
    with pytest.raises(ValueError, match="bracket_counting"):
        suite.get("bracket_count")
    with pytest.raises(TypeError):
        suite.TASKS["new"] = suite.get("for_while")  # type: ignore[index]


@pytest.mark.parametrize("name", suite.names())
def test_prompts_go_on_as_python(name: str) -> None:
    for pair in drawn(name):
        assert parses(pair.positive + pair.positive_completion + pair.continuation_positive), pair
        assert parses(pair.negative + pair.negative_completion + pair.continuation_negative), pair


@pytest.mark.parametrize("name", sorted(SYNTACTIC))
def test_the_wrong_completion_is_no_python(name: str) -> None:
    for pair in drawn(name):
        assert not parses(pair.positive + pair.negative_completion + pair.continuation_negative)
        assert not parses(pair.negative + pair.positive_completion + pair.continuation_positive)


@pytest.mark.parametrize("name", suite.names())
def test_pairs_fit_the_tokenizer(tokenizer: Tokenizer, name: str) -> None:
    task, pairs = suite.get(name), drawn(name)
    rows = [row for row in encode_pairs(tokenizer, pairs) if not isinstance(row, str)]
    fit = [row for row in rows if 8 <= len(row.positive) <= task.longest]
    assert task.shortest == 8
    assert task.longest == (55 if name == "class_init" else 39)
    assert len(fit) > SAMPLES / 2
    for row in fit:
        assert len(row.positive) == len(row.negative)
        assert row.positive != row.negative
        # No table of bigrams can tell the two prompts apart.
        assert row.positive[-1] == row.negative[-1]


@pytest.mark.parametrize("name", suite.names())
def test_pairs_differ_in_little(tokenizer: Tokenizer, name: str) -> None:
    rows = [row for row in encode_pairs(tokenizer, drawn(name)) if not isinstance(row, str)]
    differing = [sum(a != b for a, b in zip(*row[:2], strict=True)) for row in rows]
    assert sum(differing) / len(differing) < 6.5


@pytest.mark.parametrize("name", suite.names())
def test_templates_are_several_and_all_are_used(name: str) -> None:
    templates = suite.get(name).templates
    assert 4 <= len(templates) <= 8
    assert {pair.template for pair in drawn(name)} == set(templates)


@pytest.mark.parametrize("name", suite.names())
def test_distinct_pairs_are_many(name: str) -> None:
    """By the birthday law n draws from N equally likely pairs repeat about n^2 / 2N times."""
    count = 3000
    repeats = count - len(set(drawn(name, count)))
    assert repeats < 25  # 45 at N = 100,000


def test_completions_are_fixed_but_where_they_are_names() -> None:
    for name in suite.names():
        answers = {(p.positive_completion, p.negative_completion) for p in drawn(name)}
        if name in ("class_init", "var_swap"):
            assert len(answers) > 50
        elif name == "else_elif":
            assert answers == {("else", "elif"), (" else", " elif")}
        else:
            assert len(answers) == 1


def test_quotes_and_brackets_close_what_is_open() -> None:
    closing = {"'": "'", '"': '"', "[": "]", "{": "}", "(": ")"}
    for name in ("single_double_quote", "bracket_brace", "bracket_counting", "fstring_brace"):
        for pair in drawn(name):
            for prompt, completion in (
                (pair.positive, pair.positive_completion),
                (pair.negative, pair.negative_completion),
            ):
                stack: list[str] = []
                for char in prompt:
                    inside = bool(stack) and stack[-1] in "'\""
                    if stack and char == closing[stack[-1]]:
                        stack.pop()
                    elif char in closing and (not inside or char in "{("):
                        stack.append(char)
                expected = "".join(closing[char] for char in reversed(stack))
                assert expected.startswith(completion.strip("\n")), pair
                if completion.endswith("\n"):
                    assert expected == completion.strip("\n")


def test_a_variable_is_used_as_what_it_began_as() -> None:
    for name in ("set_or_string", "set_or_string_fixedvarname"):
        for pair in drawn(name):
            variable = re.findall(r"\w+", pair.positive)[-1]
            for prompt, kind in ((pair.positive, "set"), (pair.negative, "str")):
                assert re.findall(rf"\b{variable} = (\w+)\(", prompt) == [kind]
            assert name != "set_or_string_fixedvarname" or variable == "current"


def test_a_constructor_assigns_the_parameter_of_that_name() -> None:
    for pair in drawn("class_init"):
        for prompt, completion in (
            (pair.positive, pair.positive_completion),
            (pair.negative, pair.negative_completion),
        ):
            found = re.search(r"__init__\(self, (.*)\):", prompt)
            attribute = re.search(r"self\.(\w+) =$", prompt)
            assert found is not None
            assert attribute is not None
            assert completion == f" {attribute[1]}"
            assert attribute[1] in found[1]


def test_branches_follow_the_last_header_at_their_depth() -> None:
    for pair in drawn("else_elif"):
        for prompt, completion in (
            (pair.positive, pair.positive_completion),
            (pair.negative, pair.negative_completion),
        ):
            depth = len(prompt) - len(prompt.rstrip(" ")) + completion.startswith(" ")
            headers = re.findall(rf"^ {{{depth}}}(if|elif) ", prompt, re.MULTILINE)
            assert completion.strip() == {"elif": "else", "if": "elif"}[headers[-1]]


def test_words_are_plain() -> None:
    for group in words.__all__:
        listed = getattr(words, group)
        assert len(set(listed)) == len(listed)
        assert all(re.fullmatch("[A-Z]?[a-z]+", word) for word in listed)
    assert set(words.COMMON) <= set(words.NAMES)
