"""Rows of tokens that nodes are shown on, where no corpus is at hand."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from circuitjax.gated.examples import Examples
from circuitjax.model.record import Model
from circuitjax.pretrain import idioms
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import BUILT_IN

__all__ = ["Contexts", "idiom_contexts", "prompt_contexts"]

_ROWS, _LENGTH = 128, 128  # at most
_SEED = 7  # of no corpus that a built-in model was trained on


class Contexts(NamedTuple):
    """What contexts are cut from.

    Attributes:
      rows: int `[R, T]`, right-padded.
      lengths: int `[R]`, real tokens of each.
      source: where they are from, in a few words for people.
    """

    rows: np.ndarray
    lengths: np.ndarray
    source: str


def idiom_contexts(model: Model) -> Contexts | None:
    """Rows made as three quarters of the built-in models' pretraining text were; None for others."""
    if model.name not in BUILT_IN or not model.tokenizer_json:
        return None
    tokenizer = Tokenizer.from_json(model.tokenizer_json)
    length = min(_LENGTH, model.config.context_length)
    rows = []
    tokens = _stream(tokenizer)
    for _ in range(_ROWS):
        rows.append([tokenizer.bos_id, *(next(tokens) for _ in range(length - 1))])
    return Contexts(
        np.array(rows, np.int32),
        np.full(_ROWS, length),
        "generated Python, the larger part of the pretraining mix",
    )


def _stream(tokenizer: Tokenizer) -> Iterator[int]:
    start, count = 0, 64
    while True:
        for tokens in tokenizer.encode_batch(list(idioms.documents(_SEED, count, start))):
            yield from (tokenizer.bos_id, *tokens)
        start += count


def prompt_contexts(examples: Examples) -> Contexts:
    """The task's own prompts, for a model whose pretraining text is not at hand."""
    some = examples.first(_ROWS // 2).as_pairs()
    lengths = np.asarray(some.positions)[:, -1] + 1
    return Contexts(
        np.asarray(some.tokens)[:, 0], lengths, "the task's training prompts (no text was given)"
    )
