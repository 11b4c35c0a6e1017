"""The built-in English tasks, with clean and corrupted prompts."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.english.greater_than import GREATER_THAN
from circuitjax.tasks.english.ioi import IOI
from circuitjax.tasks.english.pronouns import PRONOUNS

__all__ = ["TASKS", "get", "names"]

TASKS: Mapping[str, ContrastTask] = MappingProxyType(
    {task.name: task for task in (IOI, GREATER_THAN, PRONOUNS)}
)


def names() -> tuple[str, ...]:
    """Returns the names of the English tasks, in order."""
    return tuple(TASKS)


def get(name: str) -> ContrastTask:
    """Returns the English task of that name; raises ValueError with the nearest names if none."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=3, cutoff=0.4) or list(TASKS)
        raise ValueError(f"there is no English task {name!r}: did you mean {' or '.join(near)}?")
    return TASKS[name]
