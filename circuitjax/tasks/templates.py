"""The templates of a task, and which of them a circuit is asked about without having seen them."""

from collections.abc import Iterable, Sequence

from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["held_out_templates", "template_names", "templates_of"]


def templates_of(task: Task | ContrastTask, tokenizer: Tokenizer | None = None) -> tuple[str, ...]:
    """Names of a task's templates; empty where its items name none.

    Args:
      task: of either kind.
      tokenizer: of the model; some tasks make their templates of the words that are single tokens of it.
        None names those that the task has without one.
    """
    if isinstance(task, Task):
        return task.templates
    if task.pool:
        return tuple(dict.fromkeys(one.template for one in task.pool if one.template))
    samplers = task.samplers if task.fit is None or tokenizer is None else task.fit(tokenizer)
    return tuple(sampler.__name__ for sampler in samplers)


def template_names(templates: Sequence[str], numbers: Iterable[int]) -> list[str]:
    """The name of each example's template from its number; "" for one of none, which has -1."""
    return [templates[number] if number >= 0 else "" for number in numbers]


def held_out_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Every third template, from the second on; none where there are fewer than two."""
    return tuple(templates[1::3])
