"""Clean and corrupted prompts, aligned token by token.

An example is a clean prompt, what is right and what is wrong to follow it, and a corrupted prompt
of the same length in which nothing says so. Where a circuit is cut from the clean run, it carries
what the corrupted run has at the same position. Right and wrong are sets of completions of one
token each: after "from 1743 to 17" every later year is right.

Axis letters: `M` examples, `T` positions, `R` right completions, `R'` wrong ones. An axis of length
2 is (clean, corrupted).
"""

import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from circuitjax.core.files import cut
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.splits import SPLITS, draw_pairs, gather, in_split, split_pool, too_few
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = [
    "METRICS",
    "ContrastTask",
    "EncodedExamples",
    "Example",
    "ExampleSampler",
    "both_prompts",
    "draw_encoded",
    "draw_examples",
    "encode_examples",
    "encode_usable",
    "flaws",
    "from_pairs",
]

#: The metrics that a task may be usually reported in.
METRICS: tuple[str, ...] = ("logit_difference", "probability_difference")

_PAD = -1
# Examples checked at a time: each one makes as many texts as it has completions.
_BLOCK = 128


class Example(NamedTuple):
    """Two prompts as texts, and what may follow the clean one.

    Attributes:
      clean: The prompt that decides the answer.
      corrupted: A prompt of as many tokens that does not, or that decides another one.
      right: The texts of the tokens that are right after `clean`.
      wrong: The texts of the tokens that are wrong after `clean`.
      template: The name of the template that made the example.
    """

    clean: str
    corrupted: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    template: str = ""


ExampleSampler = Callable[[random.Random], Example]


@dataclasses.dataclass(frozen=True)
class ContrastTask:
    """A source of examples: templates to sample from.

    Attributes:
      name: The task's name.
      description: One sentence on what decides the answer.
      samplers: One function per template; the function's name is the template's id.
      metric: The metric the task is usually reported in, one of `METRICS`.
      fit: Makes the samplers for one tokenizer, where a task's words must be single tokens;
        instead of `samplers`. Raises ValueError if the tokenizer leaves too few words.
      pool: The examples of a task that has no templates.
    """

    name: str
    description: str
    samplers: tuple[ExampleSampler, ...] = ()
    metric: str = METRICS[0]
    fit: Callable[[Tokenizer], tuple[ExampleSampler, ...]] | None = None
    pool: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.samplers) + (self.fit is not None) + bool(self.pool) != 1:
            raise ValueError(f"task {self.name!r} needs samplers, a function `fit`, or a pool")
        if self.metric not in METRICS:
            raise ValueError(
                f"task {self.name!r} has no metric {self.metric!r}: take {' or '.join(METRICS)}"
            )
        ids = [sampler.__name__ for sampler in self.samplers]
        if len(set(ids)) < len(ids):
            raise ValueError(f"task {self.name!r} has two templates of one name: rename one")

    @property
    def corrupts(self) -> bool:
        """Whether its examples have corrupted prompts that differ from the clean ones."""
        return not self.pool or all(example.clean != example.corrupted for example in self.pool)

    def candidates(
        self, tokenizer: Tokenizer, rng: random.Random, exclude_templates: Sequence[str] = ()
    ) -> Iterator[Example]:
        """Yields examples, not yet encoded: without end from templates, each of a pool once.

        Args:
          tokenizer: The tokenizer of the model that will read them.
          rng: The source of all randomness.
          exclude_templates: Ids of templates to leave out.

        Raises:
          ValueError: If the tokenizer leaves the task too few words, or no template is left.
        """
        if self.pool:
            pool = [one for one in self.pool if one.template not in exclude_templates]
            rng.shuffle(pool)
            yield from pool
            return
        samplers = self.fit(tokenizer) if self.fit else self.samplers
        samplers = tuple(s for s in samplers if s.__name__ not in exclude_templates)
        if not samplers:
            raise ValueError(f"task {self.name!r} has no template left: exclude fewer")
        while True:
            sampler = samplers[int(rng.random() * len(samplers))]
            yield sampler(rng)._replace(template=sampler.__name__)


class EncodedExamples(NamedTuple):
    """Examples as token ids, ready for a model.

    Attributes:
      tokens: int32 `[M, 2, T]`, BOS first, padded on the right with BOS.
      last: int32 `[M]`, the position of the last token of both prompts.
      right: int32 `[M, R]`, the right completions, padded on the right with -1.
      wrong: int32 `[M, R']`, the wrong completions, padded on the right with -1.
      templates: the name of each example's template, M of them where they are known.
    """

    tokens: np.ndarray
    last: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    templates: tuple[str, ...] = ()

    def padded(
        self, length: int, right: int | None = None, wrong: int | None = None
    ) -> "EncodedExamples":
        """Returns the same examples, wider, so that several sets share their shapes.

        Args:
          length: The number T of positions.
          right: The number R of right completions; None leaves it.
          wrong: The number R' of wrong completions; None leaves it.

        Raises:
          ValueError: If one of them is less than what is held.
        """
        return EncodedExamples(
            _widened(self.tokens, length, int(self.tokens[0, 0, 0]), "positions"),
            self.last,
            _widened(self.right, right, _PAD, "right completions"),
            _widened(self.wrong, wrong, _PAD, "wrong completions"),
            self.templates,
        )


def _widened(array: np.ndarray, width: int | None, fill: int, what: str) -> np.ndarray:
    missing = 0 if width is None else width - array.shape[-1]
    if missing < 0:
        raise ValueError(f"cannot pad {array.shape[-1]} {what} to {width}: take a greater number")
    before = [(0, 0)] * (array.ndim - 1)
    return np.pad(array, (*before, (0, missing)), constant_values=fill)


class _Row(NamedTuple):
    """One checked example as token ids, without BOS."""

    clean: list[int]
    corrupted: list[int]
    right: list[int]
    wrong: list[int]
    template: str


def _flaw(example: Example) -> str | None:
    """Says what is wrong with an example as texts."""
    if not example.clean or not example.corrupted:
        return "a prompt is empty"
    if example.clean == example.corrupted:
        return "both prompts are the same"
    for side, completions in (("right", example.right), ("wrong", example.wrong)):
        if isinstance(completions, str):
            return f"the {side} completions are the text {cut(completions)}, not a tuple of texts"
        if not completions:
            return f"there is no {side} completion"
        if len(set(completions)) < len(completions):
            return f"a {side} completion is given twice"
    both = [text for text in example.right if text in example.wrong]
    return f"the completion {cut(both[0])} is both right and wrong" if both else None


def _row(tokenizer: Tokenizer, example: Example, ids: dict[str, list[int]]) -> _Row | str:
    """Puts one example together from the token ids of its texts, or says what is wrong."""
    clean, corrupted = ids[example.clean], ids[example.corrupted]
    if not clean or not corrupted:
        return "a prompt has no tokens"
    if len(clean) != len(corrupted):
        return f"the clean prompt has {len(clean)} tokens, the corrupted {len(corrupted)}"
    if clean == corrupted:
        return "both prompts are the same tokens"
    tokens: list[int] = []
    for completion in (*example.right, *example.wrong):
        token = tokenizer.token_id(completion)
        if token is None:
            return tokenizer.why_not_one(completion)
        if ids[example.clean + completion] != [*clean, token]:
            return f"{cut(completion)} is not the token made after the clean prompt"
        tokens.append(token)
    right, wrong = tokens[: len(example.right)], tokens[len(example.right) :]
    return _Row(clean, corrupted, right, wrong, example.template)


def _rows(tokenizer: Tokenizer, examples: Sequence[Example]) -> list[_Row | str]:
    """Encodes and checks many examples: for each its token ids or what is wrong with it."""
    rows: list[_Row | str] = []
    for start in range(0, len(examples), _BLOCK):
        block = examples[start : start + _BLOCK]
        flaws = [_flaw(example) for example in block]
        texts: dict[str, None] = {}
        for example, flaw in zip(block, flaws, strict=True):
            if flaw is None:
                texts.update(dict.fromkeys((example.clean, example.corrupted)))
                completions = (*example.right, *example.wrong)
                texts.update(dict.fromkeys(example.clean + text for text in completions))
        ids = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))
        for example, flaw in zip(block, flaws, strict=True):
            rows.append(_row(tokenizer, example, ids) if flaw is None else flaw)
    return rows


def _padded(lists: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    array = np.full((len(lists), max(map(len, lists))), fill, np.int32)
    for index, row in enumerate(lists):
        array[index, : len(row)] = row
    return array


def _stack(rows: Sequence[_Row], bos_id: int) -> EncodedExamples:
    prompts = [[bos_id, *prompt] for row in rows for prompt in (row.clean, row.corrupted)]
    tokens = _padded(prompts, bos_id)
    return EncodedExamples(
        tokens.reshape(len(rows), 2, tokens.shape[-1]),
        np.array([len(row.clean) for row in rows], np.int32),
        _padded([row.right for row in rows], _PAD),
        _padded([row.wrong for row in rows], _PAD),
        tuple(row.template for row in rows),
    )


def encode_examples(tokenizer: Tokenizer, examples: Sequence[Example]) -> EncodedExamples:
    """Encodes and checks examples.

    Args:
      tokenizer: The tokenizer of the model that will read the examples.
      examples: At least one example.

    Returns:
      The examples in their order, padded to the longest prompt among them.

    Raises:
      ValueError: If there is none, or if one has an empty prompt, prompts that do not differ or
        differ in length, no right or no wrong completion, one that is both, or one that is not the
        single token that the tokenizer makes after the clean prompt. Names the first bad example.
    """
    if not examples:
        raise ValueError("there are no examples to encode: give at least one")
    good: list[_Row] = []
    for index, row in enumerate(_rows(tokenizer, examples)):
        if isinstance(row, str):
            shown = f"{cut(examples[index].clean)}, {cut(examples[index].corrupted)}"
            raise ValueError(f"bad example {index}, {shown}: {row}")
        good.append(row)
    return _stack(good, tokenizer.bos_id)


def encode_usable(tokenizer: Tokenizer, examples: Sequence[Example]) -> EncodedExamples | None:
    """Encodes those that break no rule of `encode_examples`; None if there is none."""
    rows = [row for row in _rows(tokenizer, examples) if not isinstance(row, str)]
    return _stack(rows, tokenizer.bos_id) if rows else None


def flaws(tokenizer: Tokenizer, examples: Sequence[Example]) -> list[str | None]:
    """For each example what is wrong with it, see `encode_examples`; None where nothing is."""
    return [row if isinstance(row, str) else None for row in _rows(tokenizer, examples)]


def from_pairs(pairs: Iterable[Pair]) -> list[Example]:
    """Makes two examples of every pair: each of its prompts is clean once, corrupted once.

    The right completion is the clean prompt's own, the wrong one is the other prompt's.
    """
    examples = []
    for pair in pairs:
        positive, negative = (pair.positive_completion,), (pair.negative_completion,)
        examples += [
            Example(pair.positive, pair.negative, positive, negative, pair.template),
            Example(pair.negative, pair.positive, negative, positive, pair.template),
        ]
    return examples


def both_prompts(example: Example) -> tuple[str, str]:
    """The texts of an example that must all fall in one split."""
    return example.clean, example.corrupted


def _drawn(
    task: ContrastTask | Task,
    tokenizer: Tokenizer,
    split: str,
    count: int | None,
    seed: int,
    exclude_templates: Sequence[str] = (),
) -> tuple[list[Example], list[_Row]]:
    if count is not None and count < 1:
        raise ValueError(f"cannot draw {count} examples: the count must be at least 1")
    stream: Iterator[Example]
    if isinstance(task, Task):
        size = None if count is None else (count + 1) // 2
        examples = from_pairs(draw_pairs(task, tokenizer, split, size, seed, exclude_templates))
        stream, wanted = iter(examples), len(examples) if count is None else count
    else:
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}: take one of {', '.join(SPLITS)}")
        if count is None and not task.pool:
            raise ValueError(f"task {task.name!r} has no end of examples: give a count")
        rng = random.Random(f"{task.name}/{split}/{seed}")
        candidates = task.candidates(tokenizer, rng, exclude_templates)
        if task.pool:
            splits = split_pool(task.pool, both_prompts)
            stream = (example for example in candidates if splits[example] == split)
        else:
            stream = in_split(split, candidates, both_prompts, lambda e: e[:1])
        wanted = len(task.pool) if count is None else count
    taken, rows, looked, reason = gather(stream, wanted, lambda block: _rows(tokenizer, block))
    if not taken or (len(taken) < wanted and count is not None):
        raise ValueError(too_few(task.name, "examples", split, len(taken), count, looked, reason))
    return taken, rows


def draw_examples(
    task: ContrastTask | Task,
    tokenizer: Tokenizer,
    split: str,
    count: int | None,
    seed: int,
    exclude_templates: Sequence[str] = (),
) -> tuple[Example, ...]:
    """Draws examples of one split as texts; each of them can be encoded.

    Args:
      task: A task of examples, or a binary task, of whose pairs `from_pairs` makes examples.
      tokenizer: The tokenizer of the model that will read them.
      split: "train", "validation" or "test". No clean or corrupted prompt of one split occurs in
        another, whatever the seeds and counts.
      count: The number M of examples; None takes all of a task that has a pool.
      seed: With the task's name and the split it decides the draw; a longer draw begins with the
        shorter one of the same seed.
      exclude_templates: Ids of templates to leave out.

    Returns:
      The examples; no clean prompt occurs twice.

    Raises:
      ValueError: If the split is unknown, the tokenizer leaves the task too few words, or the task
        cannot give that many examples.
    """
    return tuple(_drawn(task, tokenizer, split, count, seed, exclude_templates)[0])


def draw_encoded(
    task: ContrastTask | Task,
    tokenizer: Tokenizer,
    split: str,
    count: int | None,
    seed: int,
    exclude_templates: Sequence[str] = (),
) -> EncodedExamples:
    """Draws the examples of `draw_examples` as token ids, encoding each text once."""
    rows = _drawn(task, tokenizer, split, count, seed, exclude_templates)[1]
    return _stack(rows, tokenizer.bos_id)
