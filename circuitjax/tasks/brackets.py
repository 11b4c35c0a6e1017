"""Tasks on brackets: which kind is open, and how many."""

import random

from circuitjax.tasks import words
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.context import distinct, frame, function, number, phrase, pick

__all__ = ["BRACKET_BRACE", "BRACKET_COUNTING"]


def _open(text: str) -> Pair:
    """Opens the literal at `@` with either bracket."""
    return Pair(text.replace("@", "["), text.replace("@", "{"), "]\n", "}\n")


def _elements(rng: random.Random) -> str:
    """Two to five elements of one kind; the last ends in a word or a number."""
    count = 2 + int(rng.random() * 4)
    kind = rng.random()
    if kind < 0.5:
        parts = distinct(rng, count)
    elif kind < 0.75:
        parts = [number(rng) for _ in range(count)]
    else:
        parts = [pick(rng, words.NAMES) for _ in range(count)]
        other = rng.random()
        if other < 0.35:
            parts[-2] = f"{pick(rng, words.FUNCTIONS)}({parts[-2]})"
        elif other < 0.6:
            parts[-2] = f"{pick(rng, words.COLLECTIONS)}[{number(rng)}]"
        elif other < 0.8:
            parts[-2] = f'"{phrase(rng, 1, 1)}"'
        else:
            parts[-1] = f"{parts[-1]} + {pick(rng, words.NAMES)}"
    return ", ".join(parts)


def assigned_literal(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    return _open(f"{before}{indent}{pick(rng, words.NAMES)} = @{_elements(rng)}")


def returned_literal(rng: random.Random) -> Pair:
    before, indent = function(rng, 0, 3)
    return _open(f"{before}{indent}return @{_elements(rng)}")


def attribute_literal(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    target = f"{pick(rng, words.NAMES)}.{pick(rng, words.ATTRIBUTES)}"
    return _open(f"{before}{indent}{target} = @{_elements(rng)}")


def membership(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    return _open(f"{before}{indent}assert {pick(rng, words.NAMES)} in @{_elements(rng)}")


def second_literal(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    first, second = distinct(rng, 2)
    one, other = ("[", "]") if rng.random() < 0.5 else ("{", "}")
    closed = f"{indent}{first} = {one}{_elements(rng)}{other}\n"
    return _open(f"{before}{closed}{indent}{second} = @{_elements(rng)}")


def alternative(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    first, second = distinct(rng, 2)
    return _open(f"{before}{indent}{first} = {second} or @{_elements(rng)}")


BRACKET_BRACE = Task(
    "bracket_brace",
    "A literal opened with a bracket is closed with one, one opened with a brace likewise.",
    (
        assigned_literal,
        returned_literal,
        attribute_literal,
        membership,
        second_literal,
        alternative,
    ),
    shortest=8,
    longest=39,
)


def _depth(positive: str, negative: str) -> Pair:
    return Pair(positive, negative, "]]\n", "]\n")


def _start(rng: random.Random) -> str:
    """Everything before the outer bracket."""
    kind = rng.random()
    if kind < 0.2:
        before, indent = function(rng, 0, 3)
        return f"{before}{indent}return "
    before, indent = frame(rng, 0)
    name = pick(rng, words.NAMES)
    if kind < 0.35:
        name += f".{pick(rng, words.ATTRIBUTES)}"
    return f"{before}{indent}{name} = "


def _items(rng: random.Random, count: int) -> list[str]:
    if rng.random() < 0.3:
        return [number(rng) for _ in range(count)]
    return distinct(rng, count)


def inner_last(rng: random.Random) -> Pair:
    start, (a, b, *rest) = _start(rng), _items(rng, 3 + int(rng.random() * 3))
    tail = ", ".join(rest)
    return _depth(f"{start}[{a}, [{b}, {tail}", f"{start}[{a}, [{b}], {tail}")


def inner_first(rng: random.Random) -> Pair:
    start, (a, *rest) = _start(rng), _items(rng, 2 + int(rng.random() * 3))
    tail = ", ".join(rest)
    return _depth(f"{start}[[{a}, {tail}", f"{start}[[{a}], {tail}")


def inner_longer(rng: random.Random) -> Pair:
    start, (a, b, *rest) = _start(rng), _items(rng, 3 + int(rng.random() * 2))
    tail = ", ".join(rest)
    return _depth(f"{start}[[{a}, {b}, {tail}", f"{start}[[{a}, {b}], {tail}")


def after_closed_list(rng: random.Random) -> Pair:
    start, (a, b, c, *rest) = _start(rng), _items(rng, 4 + int(rng.random() * 2))
    tail = ", ".join(rest)
    return _depth(f"{start}[[{a}, {b}], [{c}, {tail}", f"{start}[[{a}, {b}], [{c}], {tail}")


def after_closed_tuple(rng: random.Random) -> Pair:
    start, (a, b, c, *rest) = _start(rng), _items(rng, 4 + int(rng.random() * 2))
    tail = ", ".join(rest)
    return _depth(f"{start}[({a}, {b}), [{c}, {tail}", f"{start}[({a}, {b}), [{c}], {tail}")


def after_call(rng: random.Random) -> Pair:
    start, (a, b, *rest) = _start(rng), _items(rng, 3 + int(rng.random() * 2))
    call, tail = f"{pick(rng, words.FUNCTIONS)}({a})", ", ".join(rest)
    return _depth(f"{start}[{call}, [{b}, {tail}", f"{start}[{call}, [{b}], {tail}")


BRACKET_COUNTING = Task(
    "bracket_counting",
    "Two open brackets are closed with two, one open bracket with one.",
    (
        inner_last,
        inner_first,
        inner_longer,
        after_closed_list,
        after_closed_tuple,
        after_call,
    ),
    shortest=8,
    longest=39,
)
