"""Tasks from files: one JSON object per line, each a pair of prompts and their completions.

A line looks like

    {"positive": "x = [a, b", "negative": "x = {a, b", "positive_completion": "]\\n",
     "negative_completion": "}\\n"}

with the same rules as the built-in tasks: prompts of equal length in tokens, completions that are
the single token the tokenizer makes there. `continuation_positive`, `continuation_negative` and
`template` may be given too. The splits are those of the built-in tasks, see `splits`.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from circuitjax.tasks.base import Pair, Task, encode_pairs
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["load", "parse"]

_NEEDED = Pair._fields[:4]
_SHOWN = 5


def _read(line: str) -> Pair | str:
    """Returns the pair on a line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})"
    if not isinstance(row, dict):
        return "not a JSON object"
    for key in _NEEDED:
        if key not in row:
            return f"{key!r} is missing"
        if row[key] == "":
            return f"{key!r} is empty"
    for key, value in row.items():
        if key not in Pair._fields:
            return f"{key!r} is none of {', '.join(Pair._fields)}"
        if not isinstance(value, str):
            return f"{key!r} must be a string, not {json.dumps(value)[:40]}"
    pair = Pair(**row)
    if pair.positive == pair.negative:
        return "both prompts are the same"
    return pair


def parse(lines: Iterable[str], tokenizer: Tokenizer, name: str) -> Task:
    """Makes a task of lines of JSON; blank lines are passed over.

    Args:
      lines: The lines of a JSONL file.
      tokenizer: The tokenizer of the model that will do the task.
      name: The task's name.

    Returns:
      A task with a pool, one pair per line.

    Raises:
      ValueError: If any line is bad: the count of bad lines, and the first ones with number and
        reason. Also if there is no pair at all.
    """
    pairs: list[Pair] = []
    numbers: list[int] = []
    first_at: dict[Pair, int] = {}
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        pair = _read(line)
        if isinstance(pair, str):
            bad.append((number, pair))
        elif pair in first_at:
            bad.append((number, f"repeats line {first_at[pair]}"))
        else:
            first_at[pair] = number
            pairs.append(pair)
            numbers.append(number)
    for number, row in zip(numbers, encode_pairs(tokenizer, pairs), strict=True):
        if isinstance(row, str):
            bad.append((number, row))
    if bad:
        bad.sort()
        shown = "; ".join(f"line {number}: {reason}" for number, reason in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        count = "1 bad line" if len(bad) == 1 else f"{len(bad)} bad lines"
        raise ValueError(f"task {name!r} has {count}: {shown}{more}")
    if not pairs:
        raise ValueError(f"task {name!r} has no pairs: give at least one line")
    return Task(name, f"{len(pairs)} given pairs", pool=tuple(pairs))


def load(path: str | os.PathLike[str], tokenizer: Tokenizer, *, name: str | None = None) -> Task:
    """Reads a task from a JSONL file, see `parse`; by default the file's stem is its name."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the task {str(path)!r}: {error}") from None
    return parse(text.split("\n"), tokenizer, name or path.stem)
