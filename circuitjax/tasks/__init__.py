"""Binary tasks on Python code: pairs of prompts that differ in little and go on differently."""

from circuitjax.tasks.jsonl import load as load_jsonl
from circuitjax.tasks.suite import TASKS, get, names

__all__ = ["TASKS", "get", "load_jsonl", "names"]
