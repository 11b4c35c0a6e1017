"""Tasks: pairs of Python prompts that go on differently, and English prompts with corrupted ones."""

from circuitjax.tasks.jsonl import load as load_jsonl
from circuitjax.tasks.named import find_task as get
from circuitjax.tasks.suite import TASKS, names

__all__ = ["TASKS", "get", "load_jsonl", "names"]
