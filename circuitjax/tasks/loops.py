"""Tasks on loops: what their headers need, and where their bodies stand."""

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
    pick,
    statement,
)

__all__ = ["ENUMERATE_RANGE", "FOR_WHILE", "INDENT_FOR", "WHILE_RETURN_TRUE"]


def _loop(rng: random.Random, before: str, indent: str, name: str) -> Pair:
    body = f"{indent}    pass\n"
    return Pair(
        f"{before}{indent}for {name}",
        f"{before}{indent}while {name}",
        " in",
        " <",
        f" {pick(rng, words.COLLECTIONS)}:\n{body}",
        f" {pick(rng, words.NAMES)}:\n{body}",
    )


def loop_after_lines(rng: random.Random) -> Pair:
    before, indent = frame(rng, 1, 4)
    return _loop(rng, before, indent, pick(rng, words.NAMES))


def loop_after_start(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 3)
    name = pick(rng, words.NAMES)
    return _loop(rng, f"{before}{indent}{name} = {number(rng)}\n", indent, name)


def loop_in_function(rng: random.Random) -> Pair:
    name = pick(rng, words.NAMES)
    before, indent = function(rng, 0, 3, parameters=(name,) if rng.random() < 0.5 else ())
    return _loop(rng, before, indent, name)


def loop_in_loop(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 2)
    first, second = distinct(rng, 2)
    header = pick(rng, ("for {} in {}:\n", "while {} < {}:\n"))
    outer = header.format(first, pick(rng, words.COLLECTIONS))
    return _loop(rng, f"{before}{indent}{outer}", indent + "    ", second)


def loop_after_loop(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 2)
    first, second = distinct(rng, 2)
    header = pick(rng, ("for {} in {}:\n", "while {} < {}:\n"))
    closed = indent + header.format(first, pick(rng, words.NAMES)) + statement(rng, indent + "    ")
    return _loop(rng, f"{before}{closed}", indent, second)


FOR_WHILE = Task(
    "for_while",
    "The name after for is followed by in, the name after while by a comparison.",
    (loop_after_lines, loop_after_start, loop_in_function, loop_in_loop, loop_after_loop),
    shortest=8,
    longest=39,
)


def _header(rng: random.Random, before: str, inner: str) -> Pair:
    """A for loop at either of two indentations that both fit after a block at eight spaces."""
    name = pick(rng, words.NAMES)
    kind = rng.random()
    if kind < 0.5:
        loop = f"for {name} in {pick(rng, words.COLLECTIONS)}:\n"
    elif kind < 0.75:
        loop = f"for {name} in range({pick(rng, words.NAMES)}):\n"
    else:
        loop = f"for {name} in {pick(rng, words.NAMES)}.{pick(rng, words.ATTRIBUTES)}:\n"
    text = f"{before}{inner}{statement(rng, ' ' * 8)}"
    rest = " pass\n"
    return Pair(f"{text}    {loop}", f"{text}        {loop}", " " * 7, " " * 11, rest, rest)


def _def(rng: random.Random) -> str:
    a, b = distinct(rng, 2)
    return f"{lines(rng, 0, 2)}def {pick(rng, words.FUNCTIONS)}({a}, {b}):\n"


def after_inner_if(rng: random.Random) -> Pair:
    return _header(rng, _def(rng), f"    if {condition(rng)}:\n")


def after_inner_for(rng: random.Random) -> Pair:
    name = pick(rng, words.NAMES)
    return _header(rng, _def(rng), f"    for {name} in {pick(rng, words.COLLECTIONS)}:\n")


def after_inner_while(rng: random.Random) -> Pair:
    return _header(rng, _def(rng), f"    while {pick(rng, words.NAMES)} < {number(rng)}:\n")


def after_inner_with(rng: random.Random) -> Pair:
    a, b = distinct(rng, 2)
    return _header(rng, _def(rng), f"    with open({a}) as {b}:\n")


def in_outer_loop(rng: random.Random) -> Pair:
    outer = f"for {pick(rng, words.NAMES)} in {pick(rng, words.COLLECTIONS)}:\n"
    return _header(rng, lines(rng, 0, 2) + outer, f"    if {condition(rng)}:\n")


INDENT_FOR = Task(
    "indent_for",
    "The body of a for loop stands one step further in than its header.",
    (after_inner_if, after_inner_for, after_inner_while, after_inner_with, in_outer_loop),
    shortest=8,
    longest=39,
)


def _counted(rng: random.Random, start: tuple[str, str], indent: str, names: list[str]) -> Pair:
    """Two loop variables after the first start, one after the second, longer by two tokens."""
    index, item = names
    body = f":\n{indent}    pass\n"
    return Pair(
        f"{start[0]}{indent}for {index}, {item} in",
        f"{start[1]}{indent}for {index} in",
        " enumerate",
        " range",
        f"({pick(rng, words.COLLECTIONS)}){body}",
        f"({item}){body}",
    )


_INDICES: tuple[str, ...] = ("i", "j", "k", "index", "count", "number", "row", "line", "step")


def _index_item(rng: random.Random) -> list[str]:
    index = pick(rng, _INDICES)
    return [index, pick(rng, [word for word in words.NAMES if word != index])]


def after_assignment(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 3)
    names = _index_item(rng)
    line = f"{before}{indent}{pick(rng, words.NAMES)} = {pick(rng, words.NAMES)}"
    sign = pick(rng, ("+", "-", "*"))
    return _counted(rng, (f"{line}\n", f"{line} {sign} {names[1]}\n"), indent, names)


def after_plain_call(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 3)
    names = _index_item(rng)
    line = f"{before}{indent}{pick(rng, words.FUNCTIONS)}({pick(rng, words.NAMES)}"
    return _counted(rng, (f"{line})\n", f"{line}, {names[1]})\n"), indent, names)


def after_result(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 3)
    names = _index_item(rng)
    call = f"{pick(rng, words.FUNCTIONS)}({pick(rng, words.NAMES)}"
    line = f"{before}{indent}{pick(rng, words.NAMES)} = {call}"
    return _counted(rng, (f"{line})\n", f"{line}, {names[1]})\n"), indent, names)


def after_signature(rng: random.Random) -> Pair:
    names = _index_item(rng)
    first = pick(rng, [word for word in words.COLLECTIONS if word not in names])
    line = f"{lines(rng, 0, 3)}def {pick(rng, words.FUNCTIONS)}({first}"
    return _counted(rng, (f"{line}):\n", f"{line}, {names[1]}):\n"), "    ", names)


def after_return(rng: random.Random) -> Pair:
    names = _index_item(rng)
    before, indent = function(rng, 0, 2)
    line = f"{before}{indent}return {pick(rng, words.NAMES)}"
    sign = pick(rng, ("+", "-", "*"))
    return _counted(rng, (f"{line}\n", f"{line} {sign} {names[1]}\n"), "", names)


ENUMERATE_RANGE = Task(
    "enumerate_range",
    "Two loop variables, the first an index, take enumerate; an index alone takes range.",
    (after_assignment, after_plain_call, after_result, after_signature, after_return),
    shortest=8,
    longest=39,
)


def _forever(before: str, indent: str) -> Pair:
    return Pair(
        f"{before}{indent}while True",
        f"{before}{indent}return True",
        ":\n",
        "\n",
        f"{indent}    pass\n",
        "",
    )


def at_first_line(rng: random.Random) -> Pair:
    before = lines(rng, 0, 3)
    start, indent = function(rng, 0, 0)
    return _forever(before + start, indent)


def after_lines(rng: random.Random) -> Pair:
    return _forever(*function(rng, 1, 4))


def in_if(rng: random.Random) -> Pair:
    before, indent = function(rng, 0, 3)
    return _forever(f"{before}{indent}if {condition(rng)}:\n", indent + "    ")


def in_else(rng: random.Random) -> Pair:
    before, indent = function(rng, 0, 2)
    inner = indent + "    "
    body = f"{indent}if {condition(rng)}:\n{statement(rng, inner)}{indent}else:\n"
    return _forever(before + body, inner)


def in_for(rng: random.Random) -> Pair:
    before, indent = function(rng, 0, 2)
    loop = f"for {pick(rng, words.NAMES)} in {pick(rng, words.COLLECTIONS)}:\n"
    inner = indent + "    "
    return _forever(f"{before}{indent}{loop}{inner}if {condition(rng)}:\n", inner + "    ")


WHILE_RETURN_TRUE = Task(
    "while_return_true",
    "After while True comes a colon, after return True the end of the line.",
    (at_first_line, after_lines, in_if, in_else, in_for),
    shortest=8,
    longest=39,
)
