"""Tasks on `with`: what follows the call, and what one does with an open file."""

import random

from circuitjax.tasks import words
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.context import distinct, frame, function, lines, pick

__all__ = ["WITH_AS", "WITH_OPEN"]


def _entered(rng: random.Random, call: str, parameters: tuple[str, ...]) -> Pair:
    """A with statement against a conditional return of the same call."""
    before, indent = function(rng, 0, 4, parameters=parameters)
    name = pick(rng, words.NAMES)
    return Pair(
        f"{before}{indent}with {call}",
        f"{before}{indent}return {call}",
        " as",
        " if",
        f" {name}:\n{indent}    pass\n",
        f" {name} else None\n",
    )


def opened(rng: random.Random) -> Pair:
    (path,) = distinct(rng, 1)
    return _entered(rng, f"open({path})", (path,))


def opened_in_mode(rng: random.Random) -> Pair:
    (path,) = distinct(rng, 1)
    mode = pick(rng, ('"r"', '"w"', "'r'", "'w'", '"rb"', '"wb"', '"a"'))
    return _entered(rng, f"open({path}, {mode})", (path,))


def connected(rng: random.Random) -> Pair:
    first, second = distinct(rng, 2)
    verb = pick(rng, words.FUNCTIONS)
    call = f"{verb}({first})" if rng.random() < 0.5 else f"{verb}({first}, {second})"
    return _entered(rng, call, (first,))


def constructed(rng: random.Random) -> Pair:
    first, second = distinct(rng, 2)
    name = pick(rng, words.CLASSES)
    call = f"{name}({first})" if rng.random() < 0.5 else f"{name}({first}, {second})"
    return _entered(rng, call, (first,))


def method_of_object(rng: random.Random) -> Pair:
    owner, given = distinct(rng, 2)
    argument = given if rng.random() < 0.7 else ""
    return _entered(rng, f"{owner}.{pick(rng, words.FUNCTIONS)}({argument})", (owner, given))


WITH_AS = Task(
    "with_as",
    "A call in a with statement is followed by as, the same call in a return by if.",
    (opened, opened_in_mode, connected, constructed, method_of_object),
    shortest=8,
    longest=39,
)

_HANDLES: tuple[str, ...] = ("f", "file", "handle", "stream", "source", "target", "output", "input")


def _file(rng: random.Random, mode: str, body: str) -> Pair:
    """Opens a file to write or to read; `@` in `body` is the handle."""
    before, indent = frame(rng, 0, 3)
    path, data = distinct(rng, 2)
    handle = pick(rng, [name for name in _HANDLES if name not in (path, data)])
    header = f"{before}{indent}with open({path}, {mode}) as {handle}:\n"
    text = header + "".join(f"{indent}    {line}\n" for line in body.split("\n"))[:-1]
    text = text.replace("@", handle)
    return Pair(
        text.replace("?", "w"),
        text.replace("?", "r"),
        ".write",
        ".read",
        f"({data})\n",
        "()\n",
    )


def _quoted(rng: random.Random) -> str:
    return pick(rng, ('"?"', '"?"', "'?'", '"?b"'))


def statement(rng: random.Random) -> Pair:
    return _file(rng, _quoted(rng), "@")


def named_mode(rng: random.Random) -> Pair:
    return _file(rng, f"mode={_quoted(rng)}", "@")


def kept(rng: random.Random) -> Pair:
    return _file(rng, _quoted(rng), f"{pick(rng, words.NAMES)} = @")


def after_lines(rng: random.Random) -> Pair:
    return _file(rng, _quoted(rng), f"{lines(rng, 1, 2)}@")


def in_condition(rng: random.Random) -> Pair:
    return _file(rng, _quoted(rng), f"if {pick(rng, words.FLAGS)}:\n    @")


WITH_OPEN = Task(
    "with_open",
    "A file opened to write is written, one opened to read is read.",
    (statement, named_mode, kept, after_lines, in_condition),
    shortest=8,
    longest=39,
)
