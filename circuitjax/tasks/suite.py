"""The built-in suite: twenty binary tasks on Python code, in the order of the paper's table.

Reference: Gao et al. 2025, "Weight-sparse transformers have interpretable circuits".
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from circuitjax.tasks.base import Task
from circuitjax.tasks.brackets import BRACKET_BRACE, BRACKET_COUNTING
from circuitjax.tasks.branches import ELSE_ELIF, IF_EQUALS, IF_TERNARY
from circuitjax.tasks.calls import FINAL_KWARG, LAMBDA_FUNC
from circuitjax.tasks.files import WITH_AS, WITH_OPEN
from circuitjax.tasks.loops import ENUMERATE_RANGE, FOR_WHILE, INDENT_FOR, WHILE_RETURN_TRUE
from circuitjax.tasks.quotes import FSTRING_BRACE, SINGLE_DOUBLE_QUOTE
from circuitjax.tasks.variables import (
    CLASS_INIT,
    SET_OR_STRING,
    SET_OR_STRING_FIXEDVARNAME,
    VAR_IF,
    VAR_SWAP,
)

__all__ = ["TASKS", "get", "names"]

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            SINGLE_DOUBLE_QUOTE,
            FINAL_KWARG,
            SET_OR_STRING,
            SET_OR_STRING_FIXEDVARNAME,
            CLASS_INIT,
            WITH_AS,
            BRACKET_BRACE,
            WITH_OPEN,
            BRACKET_COUNTING,
            FOR_WHILE,
            ELSE_ELIF,
            FSTRING_BRACE,
            IF_TERNARY,
            VAR_SWAP,
            INDENT_FOR,
            LAMBDA_FUNC,
            IF_EQUALS,
            ENUMERATE_RANGE,
            VAR_IF,
            WHILE_RETURN_TRUE,
        )
    }
)


def names() -> tuple[str, ...]:
    """Returns the names of the built-in tasks, in order."""
    return tuple(TASKS)


def get(name: str) -> Task:
    """Returns the built-in task of that name; raises ValueError with the nearest names if none."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=3, cutoff=0.4) or list(TASKS)
        raise ValueError(f"there is no task {name!r}: did you mean {' or '.join(near)}?")
    return TASKS[name]
