"""Records: JSON files whose every field is covered by a hash, and read with strict types.

    record_hash = sha256(canonical JSON of all fields but record_hash itself)

Canonical JSON has sorted keys, no blanks, ASCII only, and the shortest text of each number, so it does
not depend on how the file is laid out. To write and to read one:

    write_json(path, seal({"format": "circuitjax-model-2", "name": name, ...}))
    record = open_sealed(path, "circuitjax-model-2", older=("circuitjax-model-1",))
    name, layers = record.text("name"), record.object("config").whole("num_layers", 1, 9999)

A format ends in the number of its version. Formats in `older` were written before records had a
hash: they are read without one, and `record.sealed` is False then. A version above ours is refused.
"""

import dataclasses
import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from circuitjax.core.files import MOST_BYTES, cut, read_object

__all__ = [
    "HASH",
    "Fields",
    "canonical",
    "check_types",
    "is_number",
    "open_sealed",
    "opened",
    "record_hash",
    "seal",
    "unsealed",
]

#: The field that holds the hash.
HASH = "record_hash"
_LARGEST = 3.4028234e38  # of float32, in which everything is worked out


def canonical(value: Any) -> bytes:
    """The one JSON text of a value; equal values have equal texts, whatever the order of keys.

    Raises:
      ValueError: numbers that are not finite, or something JSON has no form for.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"this is no JSON value: {error}") from None
    return text.encode("ascii")


def record_hash(record: Mapping[str, Any]) -> str:
    """sha256, in hexadecimal, over all fields of a record but its `record_hash`."""
    return hashlib.sha256(canonical({k: v for k, v in record.items() if k != HASH})).hexdigest()


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it comes back from JSON (tuples as lists), with its `record_hash` as last field."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(record), allow_nan=False))
    plain.pop(HASH, None)
    return {**plain, HASH: record_hash(plain)}


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a finite float32 holds; true and 10**40 are none."""
    return type(value) in (int, float) and abs(value) <= _LARGEST  # not of NaN


def unsealed(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A record's fields without its hash, which is checked; lines of earlier versions have none.

    Raises:
      ValueError: a hash that is not the fields': one line.
    """
    if HASH in record and record[HASH] != record_hash(record):
        raise ValueError(f"{where} was changed after it was written")
    return {name: value for name, value in record.items() if name != HASH}


class Fields:
    """The fields of a JSON object, each read as one type; whatever does not fit is one line.

    Attributes:
      where: what messages call the object: a file, or a file and a field.
      sealed: whether a record's hash was there (and was right).
    """

    def __init__(self, fields: Mapping[str, Any], where: str, *, sealed: bool = False) -> None:
        self._fields, self.where, self.sealed = fields, where, sealed

    def __getitem__(self, name: str) -> Any:
        if name not in self._fields:
            raise ValueError(f"{self.where} lacks the field {name!r}")
        return self._fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def get(self, name: str, otherwise: Any = None) -> Any:
        """The field, unchecked, or something else where it is missing."""
        return self._fields.get(name, otherwise)

    def to_dict(self) -> dict[str, Any]:
        """All fields, unchecked."""
        return dict(self._fields)

    def bad(self, name: str, wanted: str) -> ValueError:
        """The error for a field that holds something else than it must."""
        return ValueError(f"{self.where}: {name} is {cut(self[name])}; it must be {wanted}")

    def only(self, *names: str) -> None:
        """Refuses any field but these."""
        unknown = sorted(set(self._fields) - set(names))
        if unknown:
            raise ValueError(f"{self.where} has the unknown field {cut(unknown[0])}")

    def text(self, name: str) -> str:
        """A string."""
        if type(self[name]) is not str:
            raise self.bad(name, "text")
        return str(self[name])

    def one_of(self, name: str, *choices: str) -> str:
        """One of these strings."""
        if type(self[name]) is not str or self[name] not in choices:
            raise self.bad(name, " or ".join(choices))
        return str(self[name])

    def truth(self, name: str) -> bool:
        """true or false."""
        if type(self[name]) is not bool:
            raise self.bad(name, "true or false")
        return bool(self[name])

    def whole(self, name: str, lowest: int | None = None, highest: int | None = None) -> int:
        """A whole number (true is none, nor is 1.0) within bounds that both belong to."""
        value = self[name]
        low = -math.inf if lowest is None else lowest
        high = math.inf if highest is None else highest
        if type(value) is not int or not low <= value <= high:
            bounds = "" if lowest is None else f" from {lowest}"
            bounds += "" if highest is None else f" to {highest}"
            raise self.bad(name, f"a whole number{bounds}")
        return int(value)

    def number(self, name: str, lowest: float = -math.inf, highest: float = math.inf) -> float:
        """A finite number within bounds that both belong to."""
        value = self[name]
        if not is_number(value) or not lowest <= value <= highest:
            low = "" if lowest == -math.inf else f" from {lowest}"
            high = "" if highest == math.inf else f" to {highest}"
            raise self.bad(name, f"a finite number{low}{high}")
        return float(value)

    def list(self, name: str) -> "list[Any]":
        """A list of anything."""
        if type(self[name]) is not list:
            raise self.bad(name, "a list")
        return list(self[name])

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        if type(self[name]) is not list or not all(type(item) is str for item in self[name]):
            raise self.bad(name, "a list of texts")
        return tuple(self[name])

    def object(self, name: str) -> "Fields":
        """An object in the object."""
        if type(self[name]) is not dict:
            raise self.bad(name, "an object")
        return Fields(self[name], f"{self.where}: {name}", sealed=self.sealed)


def _version(text: str) -> tuple[str, int]:
    """("circuitjax-model", 2) of "circuitjax-model-2"."""
    for separator in ("-", "."):
        kind, _, number = text.rpartition(separator)
        if kind and number.isascii() and number.isdigit() and len(number) < 9:
            return kind, int(number)
    return text, 0


def open_sealed(
    path: str | os.PathLike[str],
    form: str,
    *,
    older: Sequence[str | None] = (),
    most_bytes: int = MOST_BYTES,
) -> Fields:
    """Reads a record, and checks its format and its hash.

    Args:
      path: the JSON file.
      form: our format, such as "circuitjax-model-2"; such a record must have its hash.
      older: formats that are read without a hash, None for records that name no format. A hash that
        is there is checked all the same.
      most_bytes: a larger file is refused.

    Raises:
      ValueError: no readable JSON object there, another or a newer format, a hash that is missing or
        not the fields': one line that names the file.
    """
    return opened(read_object(path, most_bytes), os.fspath(path), form, older)


def opened(
    fields: Mapping[str, Any], where: str, form: str, older: Sequence[str | None] = ()
) -> Fields:
    """`open_sealed` for a record that was read from elsewhere than a file of its own."""
    found = fields.get("format")
    if found != form and not any(found == one and type(found) is type(one) for one in older):
        kind, version = _version(form)
        if isinstance(found, str) and _version(found)[0] == kind and _version(found)[1] > version:
            raise ValueError(
                f"{where} has the format {cut(found)}, newer than {form!r}, the last that this "
                "circuitjax reads: install a newer one"
            )
        raise ValueError(f"{where}: its format is {cut(found)}, not {form!r}")
    if HASH not in fields:
        if found == form:
            raise ValueError(f"{where} is damaged: it lacks the field {HASH!r}")
        return Fields(fields, where)
    if fields[HASH] != record_hash(fields):
        raise ValueError(
            f"{where} was changed after it was written: its fields are not those of its {HASH}"
        )
    return Fields(fields, where, sealed=True)


def check_types(cls: type, fields: Mapping[str, Any], where: str) -> None:
    """Checks JSON values against the annotations of a dataclass; fields it does not have are left.

    A whole number stands for a float, a list for a tuple; true and false stand for no number.

    Args:
      cls: a dataclass with fields of str, int, float, bool, None, Literal, tuple, list, dict, or
        unions of them. Any other annotation is not checked.
      fields: as read from JSON.
      where: what messages call them.

    Raises:
      ValueError: a value of another type, a number that is not finite, a whole one of more than 64
        bits: one line that names it.
    """
    kinds = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name in fields and not _fits(fields[field.name], kinds[field.name]):
            kind = str(field.type if isinstance(field.type, str) else kinds[field.name])
            kind = kind.removeprefix("<class '").removesuffix("'>").replace("typing.", "")
            kind += " of 64 bits" if kind == "int" and type(fields[field.name]) is int else ""
            raise ValueError(
                f"{where}: {field.name} is {cut(fields[field.name])}; it must be of type {kind}"
            )


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if kind is None or kind is type(None):
        return value is None
    if kind is float:
        return is_number(value)
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind in (bool, str):
        return type(value) is kind
    if kind in (tuple, list) or origin in (tuple, list):
        if type(value) not in (list, tuple):
            return False
        if not inner:
            return True
        if origin is list or inner[-1] is Ellipsis:
            return all(_fits(item, inner[0]) for item in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if kind is dict or origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True
