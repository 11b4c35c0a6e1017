"""A chat's frame: told by a template's tokens, put around every prompt, and part of a task's name."""

import dataclasses
import random

import pytest

from circuitjax import tasks
from circuitjax.model.record import Model
from circuitjax.tasks import english
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.chat import FRAMES, form_of, framed
from circuitjax.tasks.contrast import ContrastTask, Example
from circuitjax.tasks.named import find_task, parts
from circuitjax.tasks.splits import draw_pairs
from experiments.task_names import is_file, load_task, task_for
from tests.prune.planted import jsonl_of_pairs, planted_model

# The beginnings of templates as models carry them.
CHATML = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>'}}"
)
INST = "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (CHATML, "chatml"),
        (INST, "inst"),
        ("{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>' }}", "llama3"),
        ("{{ '<start_of_turn>' + role + '\n' }}", "gemma"),
        ("{% if m['role'] == 'user' %}{{ '<|user|>' }}{% else %}{{ '<|assistant|>' }}", "zephyr"),
        ([{"name": "tool", "template": INST}, {"name": "default", "template": CHATML}], "chatml"),
        ("{{ m['content'] }}", None),
        ([{"name": "tool", "template": INST}], None),
        (None, None),
        (7, None),
    ],
)
def test_the_form_is_told_by_the_tokens_of_a_template(template, form):
    assert form_of(template) == form


@pytest.mark.parametrize("form", FRAMES)
def test_prompts_of_a_pool_stand_in_the_frame(form):
    pair = Pair("a x", "b x", " one", " two", template="t")
    example = Example("a x", "b x", (" one", " 1"), (" two",), "t")
    before, after = FRAMES[form]
    lead = "" if after.endswith("\n") else " "
    (found,) = framed(Task("mine", "", pool=(pair,), longest=3), form).pool
    assert found == Pair(
        f"{before}a x{after}", f"{before}b x{after}", f"{lead}one", f"{lead}two", template="t"
    )
    (found,) = framed(ContrastTask("mine", "", pool=(example,)), form).pool
    assert found.clean == f"{before}a x{after}"
    assert found.corrupted == f"{before}b x{after}"
    assert (found.right, found.wrong) == ((f"{lead}one", f"{lead}1"), (f"{lead}two",))


def test_templates_are_framed_when_they_are_drawn(tokenizer):
    plain, chat = (
        find_task(name) for name in ("single_double_quote", "single_double_quote+chatml")
    )
    assert chat.name == "single_double_quote+chatml"
    assert chat.templates == plain.templates
    for one, other in zip(plain.samplers, chat.samplers, strict=True):
        raw, put = one(random.Random(3)), other(random.Random(3))
        assert put.positive == "<|im_start|>user\n" + raw.positive + FRAMES["chatml"].after
        assert put.positive_completion == raw.positive_completion
    drawn = draw_pairs(chat, tokenizer, "train", 4, 0)
    assert all(FRAMES["chatml"].after in pair.positive for pair in drawn)


def test_tasks_that_fit_their_words_to_a_tokenizer_are_framed_too(tokenizer):
    plain = english.get("greater_than")
    fit = dataclasses.replace(plain, fit=lambda tokenizer: plain.samplers or (_sample,))
    chat = framed(fit, "inst")
    (sampler,) = chat.fit(tokenizer)
    assert sampler.__name__ == "_sample"
    assert sampler(random.Random(0)).clean == "[INST] a [/INST]"


def _sample(rng):
    return Example("a", "b", (" c",), (" d",))


def test_names_say_the_form():
    assert parts("ioi+chatml") == ("ioi", "chatml")
    assert parts("ioi+other") == ("ioi+other", None)
    assert parts("+chatml") == ("+chatml", None)
    assert is_file("a/b.jsonl+llama3")
    assert is_file("a/b.jsonl")
    assert not is_file("ioi+llama3")
    with pytest.raises(ValueError, match="no task 'ioi\\+other': did you mean ioi"):
        find_task("ioi+other")
    with pytest.raises(ValueError, match="no chat form 'x': choose one of chatml, "):
        framed(tasks.get("for_while"), "x")


def test_a_model_says_its_form_and_a_file_is_framed(tmp_path):
    planted_model().save(tmp_path / "silent")
    (tmp_path / "mine.jsonl").write_text(jsonl_of_pairs())
    with pytest.raises(ValueError, match=r"no chat template of a known form: .* of chatml, llama3"):
        load_task("ioi", str(tmp_path / "silent"), chat=True)
    own = dataclasses.replace(planted_model(), provenance={"chat_form": "inst"})
    own.save(tmp_path / "talks")
    model, task = load_task("ioi", str(tmp_path / "talks"), chat=True)
    assert isinstance(model, Model)
    assert task.name == "ioi+inst"
    file = task_for(f"{tmp_path}/mine.jsonl+zephyr", model)
    assert file.name == "mine+zephyr"
    assert file.pool[0].positive.startswith("<|user|>\n")
