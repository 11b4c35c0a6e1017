"""Observations of a study as an append-only file of JSON lines, whole rounds at a time.

Every line is a sealed record (see `core/records.py`); those of earlier versions have no hash.

A round's lines are written in one call and flushed to the disk. What a killed process left of a round is
dropped when the file is read: the round is done again from its last checkpoint, with the same result.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from circuitjax.core.files import cut, parse_json
from circuitjax.core.records import HASH, Fields, seal, unsealed

_FIELDS = (
    *("id", "round", "origin", "params", "seed", "failed", "output", "cost", "edges", "nodes"),
    *("loss_validation", "seconds_training_round", "seconds_selection_round"),
)

__all__ = ["append_round", "read_rounds"]


def append_round(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Adds a round's observations and waits until they are on the disk."""
    text = "".join(json.dumps(seal(row), allow_nan=False) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_rounds(path: pathlib.Path, size: int, *, mend: bool = True) -> list[list[dict[str, Any]]]:
    """Whole rounds of `size` observations each.

    Args:
      path: of the file; there may be none yet.
      size: observations of a round.
      mend: take a cut round at the end off the file. False: leave the file alone, which may be
        another process's.

    Raises:
      ValueError: a broken line that is not the last, one that is no observation, or lines out of order.
    """
    if not path.exists():
        return []
    raw = path.read_bytes()
    lines = raw.split(b"\n")[:-1]  # a line that was not ended was not written
    rows = []
    for number, line in enumerate(lines):
        try:
            row = parse_json(line.decode("utf-8"), "it")
            _check(row, number)
            row = unsealed(row, "it")
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number + 1} is no observation ({error}): put the file back as it was, "
                "or start the study anew"
            ) from None
        rows.append(row)
    whole = len(rows) - len(rows) % size
    kept = sum(len(line) + 1 for line in lines[:whole])
    if mend and kept < len(raw):
        with path.open("r+b") as file:
            file.truncate(kept)
            file.flush()
            os.fsync(file.fileno())
    return [rows[start : start + size] for start in range(0, whole, size)]


def _check(row: Any, number: int) -> None:
    """Raises ValueError for what is no observation, or not the one with this number."""
    if not isinstance(row, dict):
        raise ValueError("it is no object")
    fields = Fields(row, f"observation {number}")
    fields.only(*_FIELDS, HASH)
    if fields.whole("id", 0) != number:
        raise ValueError(f"its id is {cut(row['id'])}, {number} comes next")
    for name in ("round", "seed", "edges", "nodes"):
        fields.whole(name, 0)
    params = fields.object("params")
    for name in params.to_dict():
        params.number(name)
    for name in ("cost", "seconds_training_round", "seconds_selection_round"):
        fields.number(name, 0)
    fields.text("origin")
    if not fields.truth("failed"):
        fields.number("output")
