"""Built-in tasks by name, for whichever method."""

import difflib

from circuitjax.tasks import suite
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.english import suite as english

__all__ = ["find_task"]


def find_task(name: str, method: str = "nodes") -> Task | ContrastTask:
    """A built-in task by name: one of the 20 Python tasks or, for edges, an English one.

    Raises:
      ValueError: no such task, with the nearest names.
    """
    if name in english.names():
        if method != "edges":
            raise ValueError(
                f"task {name!r} has clean and corrupted prompts, no pairs: use --method=edges"
            )
        return english.get(name)
    if method == "edges" and name not in suite.TASKS:
        known = (*suite.names(), *english.names())
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise ValueError(f"there is no task {name!r}: did you mean {' or '.join(near)}?")
    return suite.get(name)
