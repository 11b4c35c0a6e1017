"""Built-in tasks by name, of either kind, and framed as a chat: `ioi`, `ioi+chatml`."""

import difflib

from circuitjax.core.files import cut
from circuitjax.tasks import suite
from circuitjax.tasks.base import Task
from circuitjax.tasks.chat import FRAMES, framed
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.english import suite as english

__all__ = ["find_task", "parts"]


def parts(name: str) -> tuple[str, str | None]:
    """A task's own name, and the chat form that its prompts are framed by, a key of `chat.FRAMES`."""
    base, _, form = name.rpartition("+")
    return (base, form) if base and form in FRAMES else (name, None)


def find_task(name: str) -> Task | ContrastTask:
    """A built-in task: one of the 20 Python tasks, or an English one; `+<form>` frames it.

    Raises:
      ValueError: no such task, with the nearest names.
    """
    base, form = parts(name)
    if form is not None:
        return framed(find_task(base), form)
    if name in english.names():
        return english.get(name)
    if name not in suite.TASKS:
        known = (*suite.names(), *english.names())
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}?" if near else "prune --list_tasks names all"
        raise ValueError(f"there is no task {cut(name)}: {meant}")
    return suite.get(name)
