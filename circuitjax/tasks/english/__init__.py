"""English tasks: clean and corrupted prompts for models that read ordinary text."""

from circuitjax.tasks.english.suite import TASKS, get, names

__all__ = ["TASKS", "get", "names"]
