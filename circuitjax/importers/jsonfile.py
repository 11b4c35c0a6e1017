"""Reading a foreign JSON file: what every importer does first."""

import json
import pathlib
from typing import Any

__all__ = ["read_object", "read_text"]


def read_text(path: pathlib.Path) -> str:
    """The text of a UTF-8 file; raises ValueError, naming the file, if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object a file holds; raises ValueError, naming the file, if it holds none."""
    try:
        value = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}; it must be an object")
    return value
