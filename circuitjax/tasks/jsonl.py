"""Tasks from files: one JSON object per line, each a pair of prompts or a contrast of two.

A line of a binary task holds two prompts, each with its completion:

    {"positive": "x = [a, b", "negative": "x = {a, b", "positive_completion": "]\\n",
     "negative_completion": "}\\n"}

`continuation_positive` and `continuation_negative` may be given too. A line of a contrast task holds a
clean and a corrupted prompt, and lists of what is right and what is wrong after the clean one:

    {"clean": "from 1743 to 17", "corrupted": "from 1701 to 17", "right": ["44", "45"],
     "wrong": ["42"]}

Both may name a `template`. All lines of a file are of one kind. The rules are those of the built-in
tasks: prompts of equal length in tokens, completions that are the single token the tokenizer makes
there. The splits are those of the built-in tasks, see `splits`.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from circuitjax.core.files import cut, read_text
from circuitjax.tasks.base import Pair, Task, encode_pairs
from circuitjax.tasks.contrast import ContrastTask, Example, flaws
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["load", "parse"]

_NEEDED: dict[type, tuple[str, ...]] = {Pair: Pair._fields[:4], Example: Example._fields[:4]}
_LISTS = ("right", "wrong")
_SHOWN = 5


def _kind(row: dict[str, Any]) -> type:
    """What a line is: one with any field that only contrasts have is a contrast."""
    own = set(Example._fields) - set(Pair._fields)
    return Example if own & set(row) else Pair


def _read(line: str) -> Pair | Example | str:
    """Returns the pair or the example on a line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except RecursionError:
        return "not JSON that is read: it is nested too deep"
    except ValueError as error:
        return f"not JSON ({str(error)[:100]})"
    if not isinstance(row, dict):
        return "not a JSON object"
    kind = _kind(row)
    for key in _NEEDED[kind]:
        if key not in row:
            return f"{key!r} is missing"
        if row[key] == "":
            return f"{key!r} is empty"
        if row[key] == []:
            return f"the list {key!r} is empty: give at least one completion"
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    for key, value in row.items():
        if key not in fields:
            return f"{cut(key)} is none of {', '.join(fields)}"
        if kind is Example and key in _LISTS:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                return f"{key!r} must be a list of strings, not {json.dumps(value)[:40]}"
            row[key] = tuple(value)
        elif not isinstance(value, str):
            return f"{key!r} must be a string, not {json.dumps(value)[:40]}"
    found: Pair | Example = kind(**row)
    if found[0] == found[1]:
        return "both prompts are the same"
    return found


def _wrong_pairs(tokenizer: Tokenizer, pairs: Sequence[Any]) -> list[str | None]:
    return [row if isinstance(row, str) else None for row in encode_pairs(tokenizer, pairs)]


_CHECKS: dict[type, Callable[[Tokenizer, Sequence[Any]], list[str | None]]] = {
    Pair: _wrong_pairs,
    Example: flaws,
}


def parse(lines: Iterable[str], tokenizer: Tokenizer, name: str) -> Task | ContrastTask:
    """Makes a task of lines of JSON; blank lines are passed over.

    Args:
      lines: The lines of a JSONL file.
      tokenizer: The tokenizer of the model that will do the task.
      name: The task's name.

    Returns:
      A task with a pool, one pair per line; a contrast task if the lines are contrasts.

    Raises:
      ValueError: If any line is bad: the count of bad lines, and the first ones with number and
        reason. Also if there is no line at all, or lines are of both kinds.
    """
    items: list[Pair | Example] = []
    numbers: list[int] = []
    first_at: dict[Any, int] = {}
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item = _read(line)
        if isinstance(item, str):
            bad.append((number, item))
        elif item in first_at:
            bad.append((number, f"repeats line {first_at[item]}"))
        elif items and type(item) is not type(items[0]):
            bad.append((number, f"is of another kind than line {numbers[0]}"))
        else:
            first_at[item] = number
            items.append(item)
            numbers.append(number)
    kind = type(items[0]) if items else Pair
    for number, flaw in zip(numbers, _CHECKS[kind](tokenizer, items), strict=True):
        if flaw is not None:
            bad.append((number, flaw))
    if bad:
        raise ValueError(f"task {name!r} has {_told(bad)}")
    if not items:
        raise ValueError(f"task {name!r} has no pairs: give at least one line")
    if kind is Example:
        return ContrastTask(name, f"{len(items)} given examples", pool=tuple(items))  # type: ignore
    return Task(name, f"{len(items)} given pairs", pool=tuple(items))  # type: ignore[arg-type]


def load(
    path: str | os.PathLike[str], tokenizer: Tokenizer, *, name: str | None = None
) -> Task | ContrastTask:
    """Reads a task from a JSONL file, see `parse`; by default the file's stem is its name."""
    path = Path(path)
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"cannot read the task {str(path)!r}: {error}") from None
    return parse(text.split("\n"), tokenizer, name or path.stem)


def _told(bad: Sequence[tuple[int, str]]) -> str:
    """The count of bad lines, and the first reasons, each with the first line that it is true of."""
    lines: dict[str, list[int]] = {}
    for number, reason in sorted(bad):
        lines.setdefault(reason, []).append(number)
    shown = []
    for reason, numbers in list(lines.items())[:_SHOWN]:
        others = f" (and {len(numbers) - 1} others)" if len(numbers) > 1 else ""
        shown.append(f"line {numbers[0]}{others}: {reason}")
    left = sum(map(len, list(lines.values())[_SHOWN:]))
    more = f"; and {left} more" if left else ""
    count = "1 bad line" if len(bad) == 1 else f"{len(bad)} bad lines"
    return f"{count}: {'; '.join(shown)}{more}"
