"""No prompt of a task stands in the idioms, neither as text nor, where it is long, as a form.

The form of a text is the text with every name, number and string replaced. Short forms cannot be
kept apart: `N, N = N,` is a swap, whoever writes it, and a constructor has one way to begin. So the
law for forms is that few coincide, and none of those that have more than five lines.
"""

import keyword
import re

import pytest

from circuitjax.pretrain import bpe, idioms
from circuitjax.tasks import suite
from circuitjax.tasks.splits import draw_pairs
from circuitjax.tasks.tokenizer import Tokenizer

DOCUMENTS = 2000
PAIRS = 100
_STRING = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_WORD = re.compile(r"[^\W\d]\w*|\d+")


def _form(text: str) -> str:
    text = _STRING.sub("S", text)
    return _WORD.sub(lambda found: found[0] if keyword.iskeyword(found[0]) else "N", text)


@pytest.fixture(scope="module")
def prompts() -> dict[str, list[str]]:
    """200 test prompts of every task."""
    # The tokenizer only decides which pairs are well formed.
    trained = Tokenizer.from_json(bpe.train(idioms.documents(0, 12_000)).to_str())
    found: dict[str, list[str]] = {}
    for name, task in suite.TASKS.items():
        pairs = draw_pairs(task, trained, "test", PAIRS, 0)
        found[name] = [text for pair in pairs for text in (pair.positive, pair.negative)]
    return found


def test_no_prompt_stands_in_an_idiom(prompts: dict[str, list[str]]) -> None:
    written = "\0".join(idioms.documents(0, DOCUMENTS))
    assert not [text for texts in prompts.values() for text in texts if text in written]


def test_few_forms_coincide_and_only_short_ones(prompts: dict[str, list[str]]) -> None:
    forms = "\0".join(map(_form, idioms.documents(0, DOCUMENTS)))
    total = 0
    for name, texts in prompts.items():
        shared = [text for text in texts if _form(text) in forms]
        total += len(shared)
        assert len(shared) < 0.35 * len(texts), name
        assert max((text.count("\n") for text in shared), default=0) <= 5, name
    assert total < 0.12 * sum(map(len, prompts.values()))
