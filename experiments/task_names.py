"""Tasks as the binaries name them: a built-in one of either kind, or a .jsonl file."""

import difflib

from circuitjax.model.record import Model
from circuitjax.tasks import jsonl, suite
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.english import suite as english
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import load_model

__all__ = ["find_task", "load_task", "task_for"]


def find_task(name: str) -> Task | ContrastTask:
    """A built-in task by name: one of the 20 Python tasks, or an English one.

    Raises:
      ValueError: no such task, with the nearest names.
    """
    if name in english.names():
        return english.get(name)
    if name not in suite.TASKS:
        known = (*suite.names(), *english.names())
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise ValueError(f"there is no task {name!r}: did you mean {' or '.join(near)}?")
    return suite.get(name)


def task_for(name: str, model: Model) -> Task | ContrastTask:
    """A task by name, or of a .jsonl file that the model's tokenizer can read; ValueError if not."""
    if name.endswith(".jsonl"):
        return jsonl.load(name, Tokenizer.from_json(model.tokenizer_json))
    return find_task(name)


def load_task(name: str | None, model: str) -> tuple[Model, Task | ContrastTask]:
    """A model and a task; an unknown built-in task is refused before the model is loaded.

    Args:
      name: of a built-in task, or a path that ends in .jsonl.
      model: a built-in model, or the path of a model directory.

    Raises:
      ValueError: no name, no such task or model, a broken file.
    """
    if name is None:
        raise ValueError("--task is missing: name one of --list_tasks, or a .jsonl file")
    if not name.endswith(".jsonl"):
        find_task(name)
    loaded = load_model(model)
    return loaded, task_for(name, loaded)
