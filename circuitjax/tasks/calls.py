"""Tasks on calls and signatures: keyword arguments, and a lambda against a def."""

import random

from circuitjax.tasks import words
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.context import (
    condition,
    distinct,
    frame,
    function,
    lines,
    number,
    phrase,
    pick,
)

__all__ = ["FINAL_KWARG", "LAMBDA_FUNC"]


def _call(rng: random.Random) -> str:
    """Everything of a call before its arguments."""
    before, indent = frame(rng, 0)
    kind = rng.random()
    if kind < 0.35:
        return f"{before}{indent}{pick(rng, words.FUNCTIONS)}"
    if kind < 0.6:
        return f"{before}{indent}{pick(rng, words.NAMES)} = {pick(rng, words.FUNCTIONS)}"
    if kind < 0.8:
        return f"{before}{indent}{pick(rng, words.NAMES)} = {pick(rng, words.CLASSES)}"
    return f"{before}{indent}{pick(rng, words.NAMES)}.{pick(rng, words.FUNCTIONS)}"


def _arguments(rng: random.Random, text: str) -> Pair:
    """Puts `=` at `@` in the positive, an operator in the negative."""
    other = text.replace("@", pick(rng, ("+", "-", "*")))
    return Pair(text.replace("@", "="), other, "=", ")\n", f"{number(rng)})\n")


def one_keyword(rng: random.Random) -> Pair:
    a, b = distinct(rng, 2)
    return _arguments(rng, f"{_call(rng)}({a}@{number(rng)}, {b}")


def two_keywords(rng: random.Random) -> Pair:
    a, b, c = distinct(rng, 3)
    return _arguments(rng, f"{_call(rng)}({a}@{number(rng)}, {b}@{number(rng)}, {c}")


def three_keywords(rng: random.Random) -> Pair:
    a, b, c, d = distinct(rng, 4)
    given = f"{a}@{number(rng)}, {b}@{number(rng)}, {c}@{number(rng)}"
    return _arguments(rng, f"{_call(rng)}({given}, {d}")


def after_positional(rng: random.Random) -> Pair:
    a, b, c = distinct(rng, 3)
    return _arguments(rng, f"{_call(rng)}({a}, {b}@{number(rng)}, {c}")


def after_text(rng: random.Random) -> Pair:
    a, b = distinct(rng, 2)
    return _arguments(rng, f'{_call(rng)}("{phrase(rng, 1, 2)}", {a}@{number(rng)}, {b}')


def name_keyword(rng: random.Random) -> Pair:
    a, b, c, d, e = distinct(rng, 5, words.COMMON)
    start = _call(rng)
    positive, negative = f"{start}({a}={b}, {c}={d}, {e}", f"{start}({a}, {b}, {c}, {d}, {e}"
    return Pair(positive, negative, "=", ")\n", f"{number(rng)})\n")


FINAL_KWARG = Task(
    "final_kwarg",
    "After keyword arguments a last name is a keyword too, after positional ones it ends the call.",
    (
        one_keyword,
        two_keywords,
        three_keywords,
        after_positional,
        after_text,
        name_keyword,
    ),
    shortest=8,
    longest=39,
)


# A bracket and the name after it are two tokens for most names, one for the commonest.
_RARER: tuple[str, ...] = tuple(name for name in words.NAMES if name not in words.COMMON)


def _parameters(rng: random.Random, before: str, indent: str, heads: tuple[str, str]) -> Pair:
    """Ends the parameters that follow `heads`: a lambda's, and those of a def with its bracket."""
    first = pick(rng, _RARER if "=" in heads[0] else words.COMMON)
    options = [name for name in words.NAMES if name != first]
    names = ", ".join([first, *distinct(rng, 1 + int(rng.random() * 2), options)])
    start, result = f"{before}{indent}", pick(rng, words.NAMES)
    return Pair(
        f"{start}{heads[0]} {names}",
        f"{start}{heads[1]}({names}",
        ":",
        "):\n",
        f" {result}\n",
        f"{indent}    return {result}\n",
    )


def bound_at_margin(rng: random.Random) -> Pair:
    name = pick(rng, words.COMMON)
    return _parameters(rng, lines(rng, 0, 4), "", (f"{name} = lambda", f"def {name}"))


def bound_in_class(rng: random.Random) -> Pair:
    name = pick(rng, words.FUNCTIONS)
    before = f"{lines(rng, 0, 3)}class {pick(rng, words.CLASSES)}:\n"
    if rng.random() < 0.5:
        before += f"    {pick(rng, words.NAMES)} = {number(rng)}\n"
    return _parameters(rng, before, "    ", (f"{name} = lambda", f"def {name}"))


def bound_in_function(rng: random.Random) -> Pair:
    name = pick(rng, words.FUNCTIONS)
    before, indent = function(rng, 0, 4, avoid=(name,))
    return _parameters(rng, before, indent, (f"{name} = lambda", f"def {name}"))


def bound_in_if(rng: random.Random) -> Pair:
    name = pick(rng, words.FUNCTIONS)
    before = f"{lines(rng, 0, 3)}if {condition(rng)}:\n"
    return _parameters(rng, before, "    ", (f"{name} = lambda", f"def {name}"))


def returned(rng: random.Random) -> Pair:
    name = pick(rng, words.NAMES)
    before, indent = function(rng, 0, 3, avoid=(name,))
    before += f"{indent}{name} = {number(rng)}\n"
    return _parameters(rng, before, indent, ("return lambda", f"def {name}"))


LAMBDA_FUNC = Task(
    "lambda_func",
    "The parameters of a lambda end with a colon, those of a def with a parenthesis first.",
    (bound_at_margin, bound_in_class, bound_in_function, bound_in_if, returned),
    shortest=8,
    longest=39,
)
