"""What a binary task is: pairs of prompts, each with the completion that is right for it.

A pair holds two prompts of equal length in tokens that differ in as few tokens as possible. Each
has one right completion, a single token; the other prompt's completion is its wrong one. A model
does the task if, after each prompt, it prefers the right completion to the wrong.

Axis letters: `M` pairs, `T` positions. An axis of length 2 is (positive, negative).
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from circuitjax.core.files import cut
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["Encoded", "Pair", "Sampler", "Task", "encode_pair", "encode_pairs", "stack"]


class Pair(NamedTuple):
    """Two prompts as texts, and how each goes on.

    Attributes:
      positive: The first prompt.
      negative: The second prompt.
      positive_completion: The text of the token that continues `positive`.
      negative_completion: The text of the token that continues `negative`.
      continuation_positive: A text that may follow `positive + positive_completion`.
      continuation_negative: A text that may follow `negative + negative_completion`.
      template: The name of the template that made the pair.
    """

    positive: str
    negative: str
    positive_completion: str
    negative_completion: str
    continuation_positive: str = ""
    continuation_negative: str = ""
    template: str = ""


Sampler = Callable[[random.Random], Pair]


@dataclasses.dataclass(frozen=True)
class Task:
    """A source of pairs: templates to sample from, or a fixed pool of pairs.

    Attributes:
      name: The task's name.
      description: One sentence on what decides the answer.
      samplers: One function per template; the function's name is the template's id.
      pool: The pairs of a task that has no templates.
      shortest: The least number of tokens in a prompt, BOS not counted.
      longest: The greatest number of tokens in a prompt, BOS not counted; None is no limit.
    """

    name: str
    description: str
    samplers: tuple[Sampler, ...] = ()
    pool: tuple[Pair, ...] = ()
    shortest: int = 1
    longest: int | None = None

    def __post_init__(self) -> None:
        if bool(self.samplers) == bool(self.pool):
            raise ValueError(f"task {self.name!r} needs either samplers or a pool of pairs")
        if len(set(self.templates)) < len(self.templates):
            raise ValueError(f"task {self.name!r} has two templates of one name: rename one")

    @property
    def templates(self) -> tuple[str, ...]:
        """The ids of the task's templates."""
        if self.pool:
            return tuple(dict.fromkeys(pair.template for pair in self.pool))
        return tuple(sampler.__name__ for sampler in self.samplers)

    def sample(self, rng: random.Random) -> Pair:
        """Returns one pair, unchecked against any tokenizer."""
        return next(self.candidates(rng))

    def candidates(
        self, rng: random.Random, exclude_templates: Sequence[str] = ()
    ) -> Iterator[Pair]:
        """Yields pairs: without end from templates, each pair once in random order from a pool.

        Args:
          rng: The source of all randomness.
          exclude_templates: Ids of templates to leave out.

        Raises:
          ValueError: If an id is not one of the task's templates, or none is left.
        """
        unknown = sorted(set(exclude_templates) - set(self.templates))
        if unknown:
            raise ValueError(f"task {self.name!r} has no template {unknown[0]!r}: {self.templates}")
        if self.pool:
            pool = [pair for pair in self.pool if pair.template not in exclude_templates]
            rng.shuffle(pool)
            yield from pool
            return
        samplers = [s for s in self.samplers if s.__name__ not in exclude_templates]
        if not samplers:
            raise ValueError(f"task {self.name!r} has no template left: exclude fewer")
        while True:
            sampler = samplers[int(rng.random() * len(samplers))]
            yield sampler(rng)._replace(template=sampler.__name__)


class Encoded(NamedTuple):
    """Pairs as token ids, ready for a model.

    Attributes:
      tokens: int32 `[M, 2, T]`, BOS first, padded on the right with BOS.
      last: int32 `[M, 2]`, the position of each prompt's last token.
      answers: int32 `[M, 2]`, the completion token of the positive and of the negative prompt. Both
        belong to both prompts: the right one of the positive is `answers[:, 0]`, its wrong one
        `answers[:, 1]`, and the other way round for the negative.
    """

    tokens: np.ndarray
    last: np.ndarray
    answers: np.ndarray

    def padded(self, length: int) -> "Encoded":
        """Returns the same pairs padded to `length` positions; raises ValueError if too short."""
        missing = length - self.tokens.shape[2]
        if missing < 0:
            raise ValueError(
                f"cannot pad {self.tokens.shape[2]} positions to {length}: take a greater length"
            )
        bos = int(self.tokens[0, 0, 0])
        tokens = np.pad(self.tokens, ((0, 0), (0, 0), (0, missing)), constant_values=bos)
        return self._replace(tokens=tokens)


class Row(NamedTuple):
    """One checked pair as token ids, without BOS."""

    positive: list[int]
    negative: list[int]
    answers: tuple[int, int]


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[Row | str]:
    """Encodes and checks many pairs at once.

    Args:
      tokenizer: The tokenizer of the model that will read the pairs.
      pairs: Any number of pairs.

    Returns:
      For each pair its token ids, or one line that says what is wrong with it: prompts of different
      length, a completion that is not the single token the tokenizer makes at that place, or one
      completion for both prompts.
    """
    texts: list[str] = []
    for pair in pairs:
        texts.append(pair.positive)
        texts.append(pair.negative)
        texts.append(pair.positive + pair.positive_completion + pair.continuation_positive)
        texts.append(pair.negative + pair.negative_completion + pair.continuation_negative)
    ids = tokenizer.encode_batch(texts)
    rows: list[Row | str] = []
    for index, pair in enumerate(pairs):
        positive, negative, positive_full, negative_full = ids[4 * index : 4 * index + 4]
        right = tokenizer.token_id(pair.positive_completion)
        wrong = tokenizer.token_id(pair.negative_completion)
        if right is None:
            rows.append(tokenizer.why_not_one(pair.positive_completion))
        elif wrong is None:
            rows.append(tokenizer.why_not_one(pair.negative_completion))
        elif right == wrong:
            rows.append(f"both completions are {cut(pair.positive_completion)}")
        elif not positive or not negative:
            rows.append("a prompt is empty")
        elif len(positive) != len(negative):
            rows.append(
                f"the positive prompt has {len(positive)} tokens, the negative {len(negative)}"
            )
        elif positive_full[: len(positive) + 1] != [*positive, right]:
            rows.append(f"{cut(pair.positive_completion)} is not the token made after the positive")
        elif negative_full[: len(negative) + 1] != [*negative, wrong]:
            rows.append(f"{cut(pair.negative_completion)} is not the token made after the negative")
        else:
            rows.append(Row(positive, negative, (right, wrong)))
    return rows


def encode_pair(tokenizer: Tokenizer, pair: Pair) -> Encoded:
    """Encodes one pair, `M = 1`; raises ValueError if it breaks a rule of `encode_pairs`."""
    (row,) = encode_pairs(tokenizer, [pair])
    if isinstance(row, str):
        raise ValueError(f"bad pair {cut(pair.positive)}, {cut(pair.negative)}: {row}")
    return stack([row], tokenizer.bos_id)


def stack(rows: Sequence[Row], bos_id: int) -> Encoded:
    """Puts rows into arrays, BOS first, padded on the right to the longest prompt."""
    length = 1 + max(len(row.positive) for row in rows)
    tokens = np.full((len(rows), 2, length), bos_id, np.int32)
    for index, row in enumerate(rows):
        tokens[index, 0, 1 : len(row.positive) + 1] = row.positive
        tokens[index, 1, 1 : len(row.negative) + 1] = row.negative
    last = np.array([(len(row.positive), len(row.negative)) for row in rows], np.int32)
    return Encoded(tokens, last, np.array([row.answers for row in rows], np.int32))
