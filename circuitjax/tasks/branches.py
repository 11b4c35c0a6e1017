"""Tasks on conditions: chains of branches, conditional expressions, and comparisons."""

import random

from circuitjax.tasks import words
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.context import (
    condition,
    distinct,
    function,
    lines,
    number,
    pick,
    statement,
)

__all__ = ["ELSE_ELIF", "IF_EQUALS", "IF_TERNARY"]


def _branches(rng: random.Random, before: str, indent: str, bodies: int = 1) -> Pair:
    """Two branches, the second a branch of the first or a condition of its own."""
    inner = indent + "    "
    first = "".join(statement(rng, inner) for _ in range(bodies))
    start = f"{before}{indent}if {condition(rng)}:\n{first}"
    rest = f" {condition(rng)}:\n{statement(rng, inner)}{indent[:-1]}"
    gap = " " if indent else ""
    body = f"{inner}pass\n"
    return Pair(
        f"{start}{indent}elif{rest}",
        f"{start}{indent}if{rest}",
        f"{gap}else",
        f"{gap}elif",
        f":\n{body}",
        f" {condition(rng)}:\n{body}",
    )


def branches_at_margin(rng: random.Random) -> Pair:
    return _branches(rng, lines(rng, 0, 3), "")


def branches_in_function(rng: random.Random) -> Pair:
    before, indent = function(rng, 0, 2)
    return _branches(rng, before, indent)


def branches_in_loop(rng: random.Random) -> Pair:
    header = f"for {pick(rng, words.NAMES)} in {pick(rng, words.COLLECTIONS)}:\n"
    return _branches(rng, lines(rng, 0, 2) + header, "    ")


def branches_of_two_lines(rng: random.Random) -> Pair:
    return _branches(rng, lines(rng, 0, 2), "", bodies=2)


def branches_after_others(rng: random.Random) -> Pair:
    other = pick(rng, ("else", f"elif {condition(rng)}"))
    before = f"if {condition(rng)}:\n{statement(rng, '    ')}{other}:\n{statement(rng, '    ')}"
    return _branches(rng, before + statement(rng, ""), "")


ELSE_ELIF = Task(
    "else_elif",
    "A chain that has its elif goes on with else, a lone if goes on with elif.",
    (
        branches_at_margin,
        branches_in_function,
        branches_in_loop,
        branches_of_two_lines,
        branches_after_others,
    ),
    shortest=8,
    longest=39,
)


def _conditional(rng: random.Random, names: tuple[str, ...], positive: str, negative: str) -> Pair:
    """`positive if flag` against `negative` with `if flag` on the next line."""
    flag = pick(rng, words.FLAGS)
    before, indent = function(rng, 0, 3, parameters=(*names, flag))
    return Pair(
        f"{before}{indent}{positive} if {flag}",
        f"{before}{indent}{negative}\n{indent}if {flag}",
        " else",
        ":\n",
        f" {names[0]}\n",
        f"{indent}    pass\n",
    )


def of_sum(rng: random.Random) -> Pair:
    a, b, c = distinct(rng, 3)
    sign = pick(rng, ("+", "-", "*"))
    return _conditional(rng, (b, c), f"{a} = {b} {sign} {c}", f"{a} = {b}")


def of_added(rng: random.Random) -> Pair:
    a, b, c = distinct(rng, 3)
    sign = pick(rng, ("+", "-", "*"))
    return _conditional(rng, (b, c), f"{a} += {b} {sign} {c}", f"{a} += {b}")


def of_attribute_sum(rng: random.Random) -> Pair:
    a, b, c = distinct(rng, 3)
    target = f"{a}.{pick(rng, words.ATTRIBUTES)}"
    return _conditional(rng, (b, c), f"{target} = {b} + {c}", f"{target} = {b}")


def of_call_or_return(rng: random.Random) -> Pair:
    verb, (a, b) = pick(rng, words.FUNCTIONS), distinct(rng, 2)
    return _conditional(rng, (a, b), f"return {verb}({a}, {b})", f"{verb}({a}, {b})")


def of_method_or_return(rng: random.Random) -> Pair:
    verb, (a, b) = pick(rng, words.FUNCTIONS), distinct(rng, 2)
    return _conditional(rng, (a, b), f"return {a}.{verb}({b})", f"{a}.{verb}({b})")


IF_TERNARY = Task(
    "if_ternary",
    "An if after an expression needs an else, an if that begins a statement a colon.",
    (of_sum, of_added, of_attribute_sum, of_call_or_return, of_method_or_return),
    shortest=8,
    longest=39,
)


def _equals(rng: random.Random, header: str, body: str, name: str) -> Pair:
    """A name after `if` at the margin, or at the beginning of the block's next line."""
    before = f"{lines(rng, 0, 3)}{header}{body}"
    value = number(rng) if rng.random() < 0.5 else pick(rng, words.NAMES)
    return Pair(
        f"{before}if {name}",
        f"{before}    {name}",
        " ==",
        " =",
        f" {value}:\n    pass\n",
        f" {value}\n",
    )


def after_for(rng: random.Random) -> Pair:
    a, b = distinct(rng, 2)
    header = f"for {a} in {pick(rng, words.COLLECTIONS)}:\n"
    return _equals(rng, header, statement(rng, "    "), b)


def after_if(rng: random.Random) -> Pair:
    header = f"if {condition(rng)}:\n"
    return _equals(rng, header, statement(rng, "    "), pick(rng, words.NAMES))


def after_while(rng: random.Random) -> Pair:
    a, b = distinct(rng, 2)
    return _equals(rng, f"while {a} < {number(rng)}:\n", statement(rng, "    "), b)


def after_with(rng: random.Random) -> Pair:
    a, b, c = distinct(rng, 3)
    return _equals(rng, f"with open({a}) as {b}:\n", statement(rng, "    "), c)


def after_def(rng: random.Random) -> Pair:
    a, b = distinct(rng, 2)
    header = f"def {pick(rng, words.FUNCTIONS)}({a}):\n"
    return _equals(rng, header, statement(rng, "    ") + statement(rng, "    "), b)


IF_EQUALS = Task(
    "if_equals",
    "A name after if is compared, a name that begins a line is assigned.",
    (after_for, after_if, after_while, after_with, after_def),
    shortest=8,
    longest=39,
)
