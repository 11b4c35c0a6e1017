"""Tasks asked as a chat: each prompt is a user's message, and the answer begins the reply.

A model that was tuned on conversations reads raw text by default. Framed, a prompt stands between the
tokens that its conversations had around a user's message, without a message of the system before it:

    chatml   Qwen, SmolLM2 and others        llama3   Llama 3
    inst     Llama 2, Mistral                gemma    Gemma 2 and 3
    zephyr   TinyLlama and others

Models carry templates that are programs (of jinja); none is ever run: the form is told by the tokens
that its template names, as llama.cpp does.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.contrast import ContrastTask, Example

__all__ = ["FRAMES", "Frame", "form_of", "framed"]

_Item = TypeVar("_Item", bound=Pair | Example)
_AnyTask = TypeVar("_AnyTask", bound=Task | ContrastTask)


class Frame(NamedTuple):
    """What stands around a user's message, up to where the reply begins."""

    before: str
    after: str


FRAMES: Mapping[str, Frame] = MappingProxyType(
    {
        "chatml": Frame("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        "llama3": Frame(
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        "gemma": Frame("<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
        "zephyr": Frame("<|user|>\n", "</s>\n<|assistant|>\n"),
        "inst": Frame("[INST] ", " [/INST]"),
    }
)
_MARKS = {
    "chatml": "<|im_start|>",
    "llama3": "<|start_header_id|>",
    "gemma": "<start_of_turn>",
    "zephyr": "<|assistant|>",
    "inst": "[INST]",
}


def form_of(template: Any) -> str | None:
    """The form of a model's chat template, a key of `FRAMES`; None where it is none of these.

    Args:
      template: the text; or a list of {"name", "template"}, of which the one named default counts.
    """
    if isinstance(template, list):
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        return None
    return next((form for form, mark in _MARKS.items() if mark in template), None)


def framed(task: _AnyTask, form: str) -> _AnyTask:
    """The same task, its prompts framed; named `<task>+<form>`.

    Completions begin a line there, unless the frame ends within one: they lose their leading space.

    Raises:
      ValueError: an unknown form.
    """
    if form not in FRAMES:
        raise ValueError(f"there is no chat form {form!r}: choose one of {', '.join(FRAMES)}")
    put = functools.partial(_framed, FRAMES[form])

    def wrapped(sampler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(sampler)
        def sample(*given: Any) -> Any:
            return put(sampler(*given))

        return sample

    changes: dict[str, Any] = {
        "name": f"{task.name}+{form}",
        "samplers": tuple(wrapped(sampler) for sampler in task.samplers),
        "pool": tuple(put(item) for item in task.pool),
    }
    if isinstance(task, Task):
        changes["longest"] = None  # the frame is not the task's
    elif task.fit is not None:
        fit = task.fit
        changes["fit"] = lambda tokenizer: tuple(wrapped(sampler) for sampler in fit(tokenizer))
    return dataclasses.replace(task, **changes)


def _framed(frame: Frame, item: _Item) -> _Item:
    def prompt(text: str) -> str:
        return frame.before + text + frame.after

    def reply(text: str) -> str:
        return text.lstrip(" ") if frame.after.endswith("\n") else text

    if isinstance(item, Pair):
        return item._replace(
            positive=prompt(item.positive),
            negative=prompt(item.negative),
            positive_completion=reply(item.positive_completion),
            negative_completion=reply(item.negative_completion),
        )
    return item._replace(
        clean=prompt(item.clean),
        corrupted=prompt(item.corrupted),
        right=tuple(reply(text) for text in item.right),
        wrong=tuple(reply(text) for text in item.wrong),
    )
