"""The whole of one split of a task: every item, or as many distinct ones as are asked for.

    pool        given items: those of the split
    templates   every text that they can make (`derivations.py`), where these are few enough; else items
                drawn as those of the split's sets are, none twice, which begin with these sets

An item is a pair, or an example of a contrast task. It belongs to the split if all its prompts do, and
if the tokenizer keeps the rules for it (`encode_usable`).
"""

import dataclasses
import functools
import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from circuitjax.tasks import contrast, splits
from circuitjax.tasks.base import Encoded, Task, stack
from circuitjax.tasks.contrast import ContrastTask, EncodedExamples
from circuitjax.tasks.derivations import Unlisted, derivations, estimate
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["Domain", "whole_split"]

_DERIVATIONS = 10**7  # that are followed, at most
_BLOCK = 2048  # items that are encoded at a time


@dataclasses.dataclass(frozen=True)
class Domain:
    """Items of one split.

    Attributes:
      exact: whether these are all there are.
      how: in words, how they were got.
      derivations: ways in which the templates make an item of any split; estimated where it is too many
        to count; None for a pool, and where it is unknown.
      blocks: encoded items, block by block; to be run through once.
    """

    exact: bool
    how: str
    derivations: float | None
    blocks: Iterator[Encoded | EncodedExamples]


def whole_split(
    task: Task | ContrastTask,
    tokenizer: Tokenizer,
    split: str,
    most: int,
    sample: int | None = None,
    *,
    seed: int = 0,
) -> Domain:
    """Every item of a split where it has at most so many, else so many of them.

    Args:
      task: of either kind.
      tokenizer: that encodes them.
      split: one of `splits.SPLITS`.
      most: items.
      sample: items that are drawn where there are more; None: `most`.
      seed: of the draw, where not all are taken; with the task's name and the split it decides it.

    Raises:
      ValueError: an unknown split, fewer than one item, or a split without any.
    """
    if split not in splits.SPLITS:
        raise ValueError(f"there is no split {split!r}: take one of {', '.join(splits.SPLITS)}")
    drawn = most if sample is None else sample
    if min(most, drawn) < 1:
        raise ValueError(f"cannot take {min(most, drawn)} items: ask for at least 1")
    source = _Source(task, tokenizer, split)
    count: float | None = None
    if task.pool:
        items: list[Any] | None = source.of_pool()
        how = "all that are given"
    else:
        try:
            count = estimate(source.make)
            items = None
            if count <= _DERIVATIONS:
                items, count = source.every(most, count)
            how = "all that the templates can make"
            reason = (
                f"the templates can make about 10^{math.log10(max(count, 1)):.0f} of all splits"
            )
        except Unlisted as error:
            items, reason = None, f"the templates cannot be followed: {error}"
    if items is not None and len(items) <= most:
        return Domain(True, how, count, source.encoded(iter(items), most))
    rng = random.Random(f"{task.name}/{split}/{seed}")
    if task.pool:
        rng.shuffle(items or [])
        how = f"drawn from {len(items or [])} that are given"
        return Domain(False, how, None, source.encoded(iter(items or []), drawn))
    how = f"drawn as the task draws, none twice: {reason}"
    if count is not None and not math.isfinite(count):
        count = None
    return Domain(False, how, count, source.encoded(source.drawn(rng), drawn))


class _Source:
    """What differs between tasks of pairs and tasks of examples."""

    def __init__(self, task: Task | ContrastTask, tokenizer: Tokenizer, split: str) -> None:
        self._task, self._tokenizer, self._split = task, tokenizer, split
        self.texts: Callable[[Any], tuple[str, str]]
        self.candidates: Callable[[random.Random], Iterator[Any]]
        self._by: Callable[[str], str] = splits.split_of
        if isinstance(task, Task):
            self.texts, self.candidates = splits.both_prompts, task.candidates
            self._by = splits.splitter(task) if not task.pool else splits.split_of
            self._once: Callable[[Any], Sequence[str]] = splits.both_prompts
        else:
            self.texts = contrast.both_prompts
            self.candidates = functools.partial(task.candidates, tokenizer)
            self._once = lambda example: example[:1]

    def make(self, rng: random.Random) -> Any:
        """One item, of any split."""
        return next(self.candidates(rng))

    def of_pool(self) -> list[Any]:
        """The given items of the split."""
        places = splits.split_pool(self._task.pool, self.texts)
        return [item for item in dict.fromkeys(self._task.pool) if places[item] == self._split]

    def every(self, most: int, about: float) -> tuple[list[Any] | None, float]:
        """All items of the split, or None if there are more; and how many derivations there are."""
        seen: set[bytes] = set()
        found: list[Any] = []
        number = 0
        for number, item in enumerate(derivations(self.make), 1):
            if number > _DERIVATIONS or len(found) > most:
                return None, max(about, number)
            if all(self._by(text) == self._split for text in self.texts(item)):
                key = hashlib.blake2b(repr(tuple(item)).encode(), digest_size=16).digest()
                if key not in seen:
                    seen.add(key)
                    found.append(item)
        return found, float(number)

    def drawn(self, rng: random.Random) -> Iterator[Any]:
        """Items of the split as they are drawn for its sets; ends when hardly any is new."""
        items = self.candidates(rng)
        return splits.in_split(self._split, items, self.texts, self._once, self._by)

    def encoded(self, items: Iterator[Any], most: int) -> Iterator[Encoded | EncodedExamples]:
        """Blocks of the items that can be encoded, so many in all."""
        left = most
        while left > 0 and (block := list(itertools.islice(items, _BLOCK))):
            found = self._encode(block)
            if found is not None:
                found = type(found)(*(part[:left] for part in found))  # type: ignore[arg-type]
                left -= len(found.tokens)
                yield found

    def _encode(self, block: list[Any]) -> Encoded | EncodedExamples | None:
        if not isinstance(self._task, Task):
            return contrast.encode_usable(self._tokenizer, block)
        found = splits.encode_usable(self._task, self._tokenizer, block)
        rows = [row for row in found if not isinstance(row, str)]
        return stack(rows, self._tokenizer.bos_id) if rows else None
