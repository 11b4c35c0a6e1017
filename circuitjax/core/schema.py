"""Frozen dataclasses as JSON: the schema of one, and one back from its dictionary.

    schema = json_schema(Report)             a JSON schema (draft 2020-12), from the annotations
    report = from_json(Report, fields, "report.json")
    report = read_record(Report, path, "circuitjax-report-3")   a sealed one, from its file

Annotations are of str, int, float, bool, None, Any, Literal, unions, list, tuple, dict with text keys,
and further dataclasses. `records.check_types` checks one level; `from_json` goes through all of them.
A field that an older format lacks has a default, which stands in for it in such a record alone.
"""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from circuitjax.core.files import cut
from circuitjax.core.records import HASH, check_types, open_sealed

__all__ = ["from_json", "json_schema", "read_record"]

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_Record = TypeVar("_Record")


def json_schema(cls: type) -> dict[str, Any]:
    """The schema of a dataclass; every field is required and no other is allowed."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_object(cls)}


def _object(cls: type) -> dict[str, Any]:
    kinds = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    return {
        "title": cls.__name__,
        "type": "object",
        "properties": {name: _of(kinds[name]) for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _of(kind: Any) -> dict[str, Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is None:
        kind = type(None)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind)
    if isinstance(kind, type) and kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(one) for one in inner]}
    if origin is list or (origin is tuple and inner[-1] is Ellipsis):
        return {"type": "array", "items": _of(inner[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_of(one) for one in inner], "items": False}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of(inner[1])}
    return {}


def from_json(
    cls: type[_Record], fields: Mapping[str, Any], where: str, *, older: bool = False
) -> _Record:
    """A dataclass from what `dataclasses.asdict` and JSON made of it.

    Args:
      cls: of the record.
      fields: as read.
      where: what messages call them.
      older: fields that have a default may be missing.

    Raises:
      ValueError: a field that is missing, unknown or of another type: one line that names it.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"{where} is {type(fields).__name__}; it must be an object")
    assert dataclasses.is_dataclass(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    spared = {field.name for field in dataclasses.fields(cls) if older and _has_default(field)}
    lacking, unknown = names - spared - set(fields), set(fields) - names
    for what, wrong in (("lacks", lacking), ("has the unknown", unknown)):
        if wrong:
            raise ValueError(f"{where} {what} field {cut(min(wrong))}")
    check_types(cls, fields, where)
    kinds = typing.get_type_hints(cls)
    known = [name for name in names if name in fields]
    return cls(**{n: _back(kinds[n], fields[n], f"{where}: {n}", older) for n in known})


def _has_default(field: Any) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def read_record(
    cls: type[_Record], path: str | os.PathLike[str], form: str, older: Sequence[str] = ()
) -> _Record:
    """A dataclass from the sealed JSON file that holds its fields, its `format` among them.

    Args:
      cls: of the record.
      path: the file.
      form: its format, with the version.
      older: formats that lack fields which have a default by now; sealed as well.

    Raises:
      ValueError: none there, one that was changed, or of another version: one line.
    """
    found = open_sealed(path, form, older=older)
    if not found.sealed:
        raise ValueError(f"{os.fspath(path)} is damaged: it lacks the field {HASH!r}")
    fields = found.to_dict()
    fields.pop(HASH)
    return from_json(cls, fields, os.fspath(path), older=fields["format"] in older)


def _back(kind: Any, value: Any, where: str, older: bool) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_json(kind, value, where, older=older)
    if origin in (typing.Union, types.UnionType):
        kinds = [one for one in inner if one is not type(None)]
        return value if value is None or len(kinds) > 1 else _back(kinds[0], value, where, older)
    if origin in (list, tuple) and inner and isinstance(value, list | tuple):
        each = inner if origin is tuple and inner[-1] is not Ellipsis else [inner[0]] * len(value)
        return origin(_back(k, item, where, older) for k, item in zip(each, value, strict=True))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {k: _back(inner[1], item, f"{where}: {k}", older) for k, item in value.items()}
    return value
