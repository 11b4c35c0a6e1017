"""Tasks on what a variable was: its type, its parameter, its partner in a swap, its first value."""

import random

from circuitjax.tasks import words
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.context import condition, distinct, frame, function, lines, number, pick

__all__ = ["CLASS_INIT", "SET_OR_STRING", "SET_OR_STRING_FIXEDVARNAME", "VAR_IF", "VAR_SWAP"]


def _typed(rng: random.Random, name: str, kind: int) -> Pair:
    """Initialises `name` as a set or a string, then comes to it again after other lines."""
    before, indent = frame(rng, 0, 3, avoid=(name,))
    options = [word for word in words.NAMES if word != name]
    item, other, value = distinct(rng, 3, options)
    items = pick(rng, [word for word in words.COLLECTIONS if word != name])
    loop = f"{indent}for {item} in {items}:\n"
    inner = f"{indent}    "
    given = items if kind == 2 else ""
    start, middle = f"{indent}{name} = @({given})\n", ""
    if kind == 0 or kind == 2:
        middle = loop
    elif kind == 1:
        middle = loop + f"{inner}if {condition(rng)}:\n".replace(name, item)
        inner += "    "
    elif kind == 3:
        start += f"{indent}{other} = {pick(rng, ('set', 'str', 'int', 'dict'))}()\n"
        middle = loop
    elif kind == 4:
        middle = lines(rng, 1, 2, indent, avoid=(name,))
        inner = indent
    elif kind == 5:
        middle = f"{indent}while {item} < {number(rng)}:\n"
        middle += lines(rng, 1, 1, inner, avoid=(name,))
    text = f"{before}{start}{middle}{inner}{name}"
    return Pair(
        text.replace("@", "set"),
        text.replace("@", "str"),
        ".add",
        " +=",
        f"({value})\n",
        f" {value}\n",
    )


def _pool(rng: random.Random) -> str:
    return pick(rng, words.NAMES if rng.random() < 0.6 else words.COLLECTIONS)


def in_loop(rng: random.Random) -> Pair:
    return _typed(rng, _pool(rng), 0)


def in_filtered_loop(rng: random.Random) -> Pair:
    return _typed(rng, _pool(rng), 1)


def converted(rng: random.Random) -> Pair:
    return _typed(rng, _pool(rng), 2)


def beside_another(rng: random.Random) -> Pair:
    return _typed(rng, _pool(rng), 3)


def after_statements(rng: random.Random) -> Pair:
    return _typed(rng, _pool(rng), 4)


def in_while(rng: random.Random) -> Pair:
    return _typed(rng, _pool(rng), 5)


SET_OR_STRING = Task(
    "set_or_string",
    "A variable that began as a set is added to, one that began as a string is extended with +=.",
    (in_loop, in_filtered_loop, converted, beside_another, after_statements, in_while),
    shortest=8,
    longest=39,
)


def current_in_loop(rng: random.Random) -> Pair:
    return _typed(rng, "current", 0)


def current_in_filtered_loop(rng: random.Random) -> Pair:
    return _typed(rng, "current", 1)


def current_converted(rng: random.Random) -> Pair:
    return _typed(rng, "current", 2)


def current_beside_another(rng: random.Random) -> Pair:
    return _typed(rng, "current", 3)


def current_after_statements(rng: random.Random) -> Pair:
    return _typed(rng, "current", 4)


def current_in_while(rng: random.Random) -> Pair:
    return _typed(rng, "current", 5)


SET_OR_STRING_FIXEDVARNAME = Task(
    "set_or_string_fixedvarname",
    "As set_or_string, the variable always being `current`.",
    (
        current_in_loop,
        current_in_filtered_loop,
        current_converted,
        current_beside_another,
        current_after_statements,
        current_in_while,
    ),
    shortest=8,
    longest=39,
)


# With a dot before it a name is one token where it is common so, else two. The names that decide a
# pair are both of one kind, or the prompts would differ in length.
_DOTTED: tuple[str, ...] = (
    "value",
    "count",
    "name",
    "data",
    "index",
    "path",
    "text",
    "key",
    "size",
    "start",
    "time",
    "config",
    "error",
)
_UNDOTTED: tuple[str, ...] = tuple(name for name in words.COMMON if name not in _DOTTED)


def _init(rng: random.Random, count: int, done: int, extra: str = "") -> Pair:
    """A constructor of `count` parameters, `done` of them assigned already."""
    left = distinct(rng, 2, _DOTTED if rng.random() < 0.3 else _UNDOTTED)
    others = distinct(rng, count - 2, [name for name in words.COMMON if name not in left])
    names = others[:done] + rng.sample(others[done:] + left, count - done)
    before = lines(rng, 0, 3)
    base = f"({pick(rng, words.CLASSES)})" if rng.random() < 0.2 else ""
    header = f"class {pick(rng, words.CLASSES)}{base}:\n"
    header += f"    def __init__(self, {', '.join(names)}{extra}):\n"
    header += "".join(f"        self.{name} = {name}\n" for name in names[:done])
    return Pair(
        f"{before}{header}        self.{left[0]} =",
        f"{before}{header}        self.{left[1]} =",
        f" {left[0]}",
        f" {left[1]}",
        "\n",
        "\n",
    )


def first_of_two(rng: random.Random) -> Pair:
    return _init(rng, 2, 0)


def first_of_three(rng: random.Random) -> Pair:
    return _init(rng, 3, 0)


def second_of_three(rng: random.Random) -> Pair:
    return _init(rng, 3, 1)


def second_of_four(rng: random.Random) -> Pair:
    return _init(rng, 4, 1)


def third_of_four(rng: random.Random) -> Pair:
    return _init(rng, 4, 2)


def with_default(rng: random.Random) -> Pair:
    return _init(rng, 3, int(rng.random() * 2), f", debug={pick(rng, ('None', 'True', 'False'))}")


CLASS_INIT = Task(
    "class_init",
    "In a constructor an attribute is set to the parameter of the same name.",
    (first_of_two, first_of_three, second_of_three, second_of_four, third_of_four, with_default),
    shortest=8,
    longest=55,
)


def _swap(before: str, indent: str, a: str, b: str, rest: str = "\n") -> Pair:
    return Pair(
        f"{before}{indent}{a}, {b} = {b},",
        f"{before}{indent}{b}, {a} = {a},",
        f" {a}",
        f" {b}",
        rest,
        rest,
    )


def plain_swap(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0)
    a, b = distinct(rng, 2, words.COMMON)
    return _swap(before, indent, a, b)


def assigned_before(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 2)
    a, b = distinct(rng, 2, words.COMMON)
    before += f"{indent}{a} = {number(rng)}\n{indent}{b} = {number(rng)}\n"
    return _swap(before, indent, a, b)


def in_comparison(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 3)
    a, b = distinct(rng, 2, words.COMMON)
    first, second = rng.sample((a, b), 2)
    before += f"{indent}if {first} {pick(rng, ('<', '>'))} {second}:\n"
    return _swap(before, indent + "    ", a, b)


def of_parameters(rng: random.Random) -> Pair:
    a, b = distinct(rng, 2, words.COMMON)
    before, indent = function(rng, 0, 3, parameters=(a, b))
    return _swap(before, indent, a, b)


def in_while_loop(rng: random.Random) -> Pair:
    before, indent = frame(rng, 0, 3)
    a, b = distinct(rng, 2, words.COMMON)
    before += f"{indent}while {pick(rng, (a, b))}:\n"
    return _swap(before, indent + "    ", a, b)


VAR_SWAP = Task(
    "var_swap",
    "In a swap of two variables the right side names them in the other order.",
    (plain_swap, assigned_before, in_comparison, of_parameters, in_while_loop),
    shortest=8,
    longest=39,
)


def _flag(rng: random.Random, text: str, indent: str) -> Pair:
    """Puts True or False at `@` in the positive, None in the negative."""
    return Pair(
        text.replace("@", pick(rng, ("True", "False"))),
        text.replace("@", "None"),
        ":\n",
        " is",
        f"{indent}    pass\n",
        f" None:\n{indent}    pass\n",
    )


def _flag_name(rng: random.Random) -> str:
    return pick(rng, words.FLAGS if rng.random() < 0.5 else words.NAMES)


def at_once(rng: random.Random) -> Pair:
    name = _flag_name(rng)
    before, indent = frame(rng, 0, 3, avoid=(name,))
    return _flag(rng, f"{before}{indent}{name} = @\n{indent}if {name}", indent)


def after_some_lines(rng: random.Random) -> Pair:
    name = _flag_name(rng)
    before, indent = frame(rng, 0, 2, avoid=(name,))
    between = lines(rng, 1, 3, indent, avoid=(name,))
    return _flag(rng, f"{before}{indent}{name} = @\n{between}{indent}if {name}", indent)


def after_loop(rng: random.Random) -> Pair:
    name = _flag_name(rng)
    before, indent = frame(rng, 0, 2, avoid=(name,))
    item, items = pick(rng, words.NAMES), pick(rng, words.COLLECTIONS)
    loop = f"{indent}for {item} in {items}:\n{lines(rng, 1, 2, indent + '    ', avoid=(name,))}"
    return _flag(rng, f"{before}{indent}{name} = @\n{loop}{indent}if {name}", indent)


def inside_loop(rng: random.Random) -> Pair:
    name = _flag_name(rng)
    before, indent = frame(rng, 0, 2, avoid=(name,))
    item, items = pick(rng, words.NAMES), pick(rng, words.COLLECTIONS)
    loop = f"{indent}for {item} in {items}:\n{lines(rng, 0, 1, indent + '    ', avoid=(name,))}"
    text = f"{before}{indent}{name} = @\n{loop}{indent}    if {name}"
    return _flag(rng, text, indent + "    ")


def default_parameter(rng: random.Random) -> Pair:
    name = _flag_name(rng)
    other = pick(rng, [word for word in words.NAMES if word != name])
    before = lines(rng, 0, 2, avoid=(name,))
    header = f"def {pick(rng, words.FUNCTIONS)}({other}, {name}=@):\n"
    inside = lines(rng, 0, 2, "    ", avoid=(name,))
    return _flag(rng, f"{before}{header}{inside}    if {name}", "    ")


def beside_other_flag(rng: random.Random) -> Pair:
    name = _flag_name(rng)
    other = pick(rng, [word for word in words.FLAGS if word != name])
    before, indent = frame(rng, 0, 2, avoid=(name, other))
    two = [f"{indent}{name} = @\n", f"{indent}{other} = {pick(rng, ('True', 'None'))}\n"]
    rng.shuffle(two)
    return _flag(rng, f"{before}{''.join(two)}{indent}if {name}", indent)


VAR_IF = Task(
    "var_if",
    "A variable that began as a truth value is tested as it is, one that began as None with is.",
    (
        at_once,
        after_some_lines,
        after_loop,
        inside_loop,
        default_parameter,
        beside_other_flag,
    ),
    shortest=8,
    longest=39,
)
