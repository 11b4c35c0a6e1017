"""Tasks on strings: which quote closes one, and which bracket closes inside an f-string."""

import random

from circuitjax.tasks import words
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.context import distinct, frame, function, number, phrase, pick

__all__ = ["FSTRING_BRACE", "SINGLE_DOUBLE_QUOTE"]


def _quotes(text: str) -> Pair:
    """Opens the string at `@` with either quote."""
    return Pair(text.replace("@", "'"), text.replace("@", '"'), "')\n", '")\n')


def printed(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    return _quotes(f"{before}{indent}print(@{phrase(rng, 2)}")


def called(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    return _quotes(f"{before}{indent}{pick(rng, words.FUNCTIONS)}(@{phrase(rng)}")


def method(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    name = pick(rng, words.NAMES)
    return _quotes(f"{before}{indent}{name}.{pick(rng, words.FUNCTIONS)}(@{phrase(rng)}")


def assigned(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    name = pick(rng, words.NAMES)
    return _quotes(f"{before}{indent}{name} = {pick(rng, words.FUNCTIONS)}(@{phrase(rng)}")


def raised(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    error = pick(rng, ("ValueError", "TypeError", "KeyError", "RuntimeError"))
    return _quotes(f"{before}{indent}raise {error}(@{phrase(rng, 2)}")


def returned(rng: random.Random) -> Pair:
    before, indent = function(rng, 0, 3)
    return _quotes(f"{before}{indent}return {pick(rng, words.FUNCTIONS)}(@{phrase(rng)}")


def second_argument(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    call = f"{pick(rng, words.FUNCTIONS)}({pick(rng, words.NAMES)}, @{phrase(rng)}"
    return _quotes(f"{before}{indent}{call}")


def after_closed_string(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    closed = pick(rng, ("'", '"'))
    call = f"{pick(rng, words.FUNCTIONS)}({closed}{phrase(rng, 1, 2)}{closed}, @{phrase(rng, 1, 3)}"
    return _quotes(f"{before}{indent}{call}")


SINGLE_DOUBLE_QUOTE = Task(
    "single_double_quote",
    "The quote that opened a string in a call closes it, with the call.",
    (
        printed,
        called,
        method,
        assigned,
        raised,
        returned,
        second_argument,
        after_closed_string,
    ),
    shortest=8,
    longest=39,
)


def _braces(rng: random.Random, head: str, tail: str) -> Pair:
    """Opens the bracket at the end of the text so far: `head "... {name` or `head "... (name`."""
    quote = pick(rng, ('"', '"', "'"))
    start = f"{head}f{quote}{phrase(rng, 1, 3)}"
    kind = rng.random()
    if kind < 0.25:
        start += f" {{{pick(rng, words.NAMES)}}} {phrase(rng, 1, 2)}"
    elif kind < 0.4:
        start += f" ({phrase(rng, 1, 1)}) {phrase(rng, 1, 1)}"
    name = pick(rng, words.NAMES)
    if rng.random() < 0.2:
        name += f".{pick(rng, words.ATTRIBUTES)}"
    rest = f" {phrase(rng, 1, 1)}{quote}{tail}\n"
    return Pair(f"{start} {{{name}", f"{start} ({name}", "}", ")", rest, rest)


def printed_format(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    return _braces(rng, f"{before}{indent}print(", ")")


def assigned_format(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1)
    return _braces(rng, f"{before}{indent}{pick(rng, words.NAMES)} = ", "")


def raised_format(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    error = pick(rng, ("ValueError", "TypeError", "KeyError", "RuntimeError"))
    return _braces(rng, f"{before}{indent}raise {error}(", ")")


def returned_format(rng: random.Random) -> Pair:
    before, indent = function(rng, 0, 3)
    return _braces(rng, f"{before}{indent}return ", "")


def method_format(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    name, verb = pick(rng, words.NAMES), pick(rng, words.FUNCTIONS)
    return _braces(rng, f"{before}{indent}{name}.{verb}(", ")")


def later_argument_format(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    (first,) = distinct(rng, 1)
    given = first if rng.random() < 0.7 else number(rng)
    return _braces(rng, f"{before}{indent}{pick(rng, words.FUNCTIONS)}({given}, ", ")")


FSTRING_BRACE = Task(
    "fstring_brace",
    "In an f-string a name after a brace is closed by a brace, one after a parenthesis by that.",
    (
        printed_format,
        assigned_format,
        raised_format,
        returned_format,
        method_format,
        later_argument_format,
    ),
    shortest=8,
    longest=39,
)
