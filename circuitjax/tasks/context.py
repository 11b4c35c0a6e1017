"""Ordinary lines of Python to stand before the part of a prompt that decides the answer.

A frame is such a text together with the indentation at which the next line may stand: at the
margin, in a function, in a method, or in a block. All randomness comes from the
generator handed in.
"""

import random
from collections.abc import Callable, Sequence

from circuitjax.tasks import words

__all__ = [
    "condition",
    "distinct",
    "frame",
    "function",
    "lines",
    "number",
    "phrase",
    "pick",
    "statement",
]


def pick(rng: random.Random, options: Sequence[str]) -> str:
    """Returns one of `options`."""
    return options[int(rng.random() * len(options))]


def distinct(rng: random.Random, count: int, options: Sequence[str] = words.NAMES) -> list[str]:
    """Returns `count` different ones of `options`."""
    return rng.sample(options, count)


def number(rng: random.Random) -> str:
    """Returns a number from 0 to 99 as text, small ones more often."""
    return str(int(rng.random() * (10 if rng.random() < 0.6 else 100)))


def phrase(rng: random.Random, low: int = 1, high: int = 4) -> str:
    """Returns `low` to `high` words for the inside of a string."""
    count = low + int(rng.random() * (high - low + 1))
    return " ".join(pick(rng, words.STRINGS) for _ in range(count))


def condition(rng: random.Random) -> str:
    """Returns a short condition."""
    kind = int(rng.random() * 6)
    first, second = pick(rng, words.NAMES), pick(rng, words.NAMES)
    if kind == 0:
        return pick(rng, words.FLAGS)
    if kind == 1:
        return f"not {pick(rng, words.FLAGS)}"
    if kind == 2:
        return f"{first} {pick(rng, ('<', '>', '==', '!='))} {second}"
    if kind == 3:
        return f"{first} in {pick(rng, words.COLLECTIONS)}"
    if kind == 4:
        return f"{first} {pick(rng, ('<', '>', '=='))} {number(rng)}"
    return first


def statement(rng: random.Random, indent: str) -> str:
    """Returns one plain statement on a line of its own, at the indentation given."""
    a, b = distinct(rng, 2)
    kind = int(rng.random() * 5)
    if kind == 0:
        return f"{indent}{pick(rng, words.FUNCTIONS)}({a})\n"
    if kind == 1:
        return f"{indent}{a} = {number(rng)}\n"
    if kind == 2:
        return f"{indent}{a} = {b}\n"
    if kind == 3:
        return f"{indent}print({a})\n"
    return f"{indent}{a} = {pick(rng, words.FUNCTIONS)}({b})\n"


_Line = Callable[[random.Random, str, str, str], str]

# Each makes one statement of three names: a, b, c.
_STATEMENTS: tuple[_Line, ...] = (
    lambda r, a, b, c: f"{a} = {number(r)}",
    lambda r, a, b, c: f"{a} = {number(r)}",
    lambda r, a, b, c: f"{a} = {b}",
    lambda r, a, b, c: f"{a} = {b} + {c}",
    lambda r, a, b, c: f"{a} = {b} * {number(r)}",
    lambda r, a, b, c: f"{a} = {b} - {c}",
    lambda r, a, b, c: f"{a} += {number(r)}",
    lambda r, a, b, c: f"{a} -= {b}",
    lambda r, a, b, c: f"{a} = {pick(r, words.FUNCTIONS)}({b})",
    lambda r, a, b, c: f"{a} = {pick(r, words.FUNCTIONS)}({b}, {c})",
    lambda r, a, b, c: f"{pick(r, words.FUNCTIONS)}({a})",
    lambda r, a, b, c: f"{pick(r, words.FUNCTIONS)}({a}, {b})",
    lambda r, a, b, c: f"{a}.{pick(r, words.FUNCTIONS)}({b})",
    lambda r, a, b, c: f"{a} = {b}.{pick(r, words.ATTRIBUTES)}",
    lambda r, a, b, c: f"{a}.{pick(r, words.ATTRIBUTES)} = {b}",
    lambda r, a, b, c: f'{a} = "{phrase(r, 1, 2)}"',
    lambda r, a, b, c: f"{a} = '{phrase(r, 1, 2)}'",
    lambda r, a, b, c: f"{a} = [{b}, {c}]",
    lambda r, a, b, c: f"{a} = ({b}, {c})",
    lambda r, a, b, c: f"{a} = {{{b}, {c}}}",
    lambda r, a, b, c: f"{a} = []",
    lambda r, a, b, c: f"{a} = {{}}",
    lambda r, a, b, c: f"{a} = {pick(r, words.COLLECTIONS)}[{b}]",
    lambda r, a, b, c: f"{a} = {pick(r, words.COLLECTIONS)}[{number(r)}]",
    lambda r, a, b, c: f"{a} = len({pick(r, words.COLLECTIONS)})",
    lambda r, a, b, c: f"{pick(r, words.COLLECTIONS)}.append({a})",
    lambda r, a, b, c: f"print({a})",
    lambda r, a, b, c: f'print("{phrase(r, 1, 2)}", {a})',
    lambda r, a, b, c: f"print('{phrase(r, 1, 2)}')",
    lambda r, a, b, c: f"{a} = {pick(r, words.CLASSES)}({b})",
    lambda r, a, b, c: f"{a} = {pick(r, words.CLASSES)}({b}={c})",
    lambda r, a, b, c: f"{a} = not {pick(r, words.FLAGS)}",
    lambda r, a, b, c: f"{a} = max({b}, {c})",
    lambda r, a, b, c: f"{a}, {b} = {pick(r, words.FUNCTIONS)}({c})",
    lambda r, a, b, c: f"assert {a} > {number(r)}",
    lambda r, a, b, c: f"del {a}",
)

_HEADERS: tuple[_Line, ...] = (
    lambda r, a, b, c: f"if {condition(r)}:",
    lambda r, a, b, c: f"for {a} in {pick(r, words.COLLECTIONS)}:",
    lambda r, a, b, c: f"for {a} in range({number(r)}):",
    lambda r, a, b, c: f"while {a} < {b}:",
    lambda r, a, b, c: f"with {pick(r, words.FUNCTIONS)}({a}) as {b}:",
)


def _line(rng: random.Random, kinds: tuple[_Line, ...], avoid: Sequence[str]) -> str:
    while True:
        a, b, c = (pick(rng, words.NAMES) for _ in range(3))
        line = kinds[int(rng.random() * len(kinds))](rng, a, b, c)
        if not any(word in line for word in avoid):
            return line


def lines(
    rng: random.Random, low: int = 0, high: int = 4, indent: str = "", avoid: Sequence[str] = ()
) -> str:
    """Returns `low` to `high` lines of simple statements and two-line blocks.

    Args:
      rng: The source of all randomness.
      low: The least number of lines.
      high: The greatest number of lines.
      indent: The indentation of every line.
      avoid: Texts that must not occur.
    """
    left = low + int(rng.random() * (high - low + 1))
    text = ""
    while left > 0:
        if left > 1 and rng.random() < 0.15:
            text += f"{indent}{_line(rng, _HEADERS, avoid)}\n    "
            left -= 1
        elif left > 1 and rng.random() < 0.05:
            text += f"{indent}# {phrase(rng, 2, 3)}\n"
            left -= 1
            continue
        text += f"{indent}{_line(rng, _STATEMENTS, avoid)}\n"
        left -= 1
    return text


def function(
    rng: random.Random,
    low: int = 0,
    high: int = 3,
    avoid: Sequence[str] = (),
    parameters: Sequence[str] = (),
) -> tuple[str, str]:
    """Returns the beginning of a function or method, `low` to `high` lines in and around it.

    Args:
      rng: The source of all randomness.
      low: The least number of lines beside the headers.
      high: The greatest number of lines beside the headers.
      avoid: Texts that must not occur in those lines.
      parameters: Names that must be parameters.

    Returns:
      The text, and the indentation of the function's body.
    """
    total = low + int(rng.random() * (high - low + 1))
    outside = int(rng.random() * (total + 1))
    free = [name for name in distinct(rng, 2) if name not in parameters and name not in avoid]
    names = [*parameters, *free]
    if len(parameters) > 1:
        rng.shuffle(names)
    name = pick(rng, words.FUNCTIONS)
    before = lines(rng, outside, outside, avoid=avoid)
    if rng.random() < 0.25:
        before += f"class {pick(rng, words.CLASSES)}:\n"
        header = f"    def {name}(self{''.join(', ' + n for n in names)}):\n"
        indent = " " * 8
    else:
        header = f"def {name}({', '.join(names)}):\n"
        indent = " " * 4
    inside = total - outside
    return before + header + lines(rng, inside, inside, indent, avoid), indent


def frame(
    rng: random.Random, low: int = 1, high: int = 4, avoid: Sequence[str] = ()
) -> tuple[str, str]:
    """Returns lines to begin with and the indentation of the line that may follow.

    Half the frames stand at the margin, the others in a function or in a block; `low` to `high`
    lines besides headers. `avoid` names texts that must not occur in the lines.
    """
    kind = rng.random()
    if kind < 0.5:
        return lines(rng, low, high, avoid=avoid), ""
    if kind < 0.8:
        return function(rng, max(low - 1, 0), high - 1, avoid)
    before = lines(rng, max(low - 1, 0), high - 1, avoid=avoid)
    return before + _line(rng, _HEADERS, avoid) + "\n", "    "
