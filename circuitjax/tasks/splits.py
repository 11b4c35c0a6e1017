"""Train, validation and test sets of a task that share no text, whatever the seeds and sizes.

Each prompt falls into one split by a hash of its names: the set of its words of two letters or more
that are neither keywords nor common built-ins. The two prompts of a pair usually have the same
names, so a pair falls as a whole; a pair whose prompts fall apart is not used. Because the split is
a function of the text, no two draws of different splits can share a prompt.

A pool of given pairs is split in groups: pairs that share a prompt stay together, and the group
goes where its first prompt (in the order of strings) falls. No pair is lost.

Where names do not split (every prompt has the same, so that one split gets all pairs and another none)
the whole text does: by its hash where there is no end of pairs, in a pool by the rank of its hash, so
that every split gets its share.
"""

import functools
import hashlib
import itertools
import keyword
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from circuitjax.tasks.base import Encoded, Pair, Row, Task, encode_pairs, stack
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = [
    "SHARES",
    "SPLITS",
    "both_prompts",
    "draw",
    "draw_pairs",
    "encode_usable",
    "gather",
    "in_split",
    "split_of",
    "split_of_text",
    "split_pool",
    "splitter",
    "too_few",
]

_Item = TypeVar("_Item")
_Row = TypeVar("_Row")

SPLITS: tuple[str, ...] = ("train", "validation", "test")
SHARES: tuple[float, ...] = (0.70, 0.15, 0.15)

_WORD = re.compile(r"[^\W\d]\w+")
_BUILTINS = "set str int float list dict tuple open print range enumerate len self rb wb"
_PASSED_OVER = frozenset([*keyword.kwlist, *_BUILTINS.split()])
# Looking stops when fewer than one candidate in this many is taken, after so many to begin with.
_ATTEMPTS = 50
_GRACE = 2_000
# Prompts of a task that are looked at to see whether names split them.
_PROBES = 200


def _share(text: str) -> float:
    """A number in [0, 1) that follows from the text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def _place(share: float) -> str:
    if share < SHARES[0]:
        return SPLITS[0]
    return SPLITS[1] if share < SHARES[0] + SHARES[1] else SPLITS[2]


def split_of(text: str) -> str:
    """Returns the split that a prompt belongs to: a function of the set of its names alone."""
    return _place(_share(" ".join(sorted(set(_WORD.findall(text)) - _PASSED_OVER)) or text))


def split_of_text(text: str) -> str:
    """Returns the split of a prompt by the whole of it, for tasks whose names are always the same."""
    return _place(_share(text))


@functools.lru_cache(maxsize=64)
def splitter(task: Task) -> Callable[[str], str]:
    """`split_of`, or `split_of_text` where the names in a task's own prompts do not split."""
    candidates = task.candidates(random.Random(f"{task.name}/names"))
    seen = {split_of(pair.positive) for pair in itertools.islice(candidates, _PROBES)}
    return split_of if len(seen) == len(SPLITS) else split_of_text


@functools.lru_cache(maxsize=64)
def split_pool(
    pool: tuple[_Item, ...], texts: Callable[[_Item], tuple[str, str]]
) -> dict[_Item, str]:
    """Splits a pool by groups of items linked by a prompt they share; `texts` are an item's two."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for item in pool:
        first, second = sorted(root(text) for text in texts(item))
        parent[second] = first  # so a root is the first text of its group
    roots = {item: root(texts(item)[0]) for item in pool}
    by_names = {text: split_of(text) for text in set(roots.values())}
    if len(by_names) >= len(SPLITS) > len(set(by_names.values())):
        by_names = _ranked(sorted(by_names, key=_share))
    return {item: by_names[text] for item, text in roots.items()}


def _ranked(texts: Sequence[str]) -> dict[str, str]:
    """The splits' shares of texts in their order, rounded, at least one to each split."""
    count = len(texts)
    last = max(1, round(SHARES[2] * count))
    middle = max(1, round(SHARES[1] * count))
    first = count - middle - last
    places = [SPLITS[0]] * first + [SPLITS[1]] * middle + [SPLITS[2]] * last
    return dict(zip(texts, places, strict=True))


def in_split(
    split: str,
    candidates: Iterator[_Item],
    texts: Callable[[_Item], Sequence[str]],
    once: Callable[[_Item], Sequence[str]],
    by: Callable[[str], str] = split_of,
) -> Iterator[_Item]:
    """Yields the candidates of one split; bounded in how many it looks at in a row.

    Args:
      split: One of `SPLITS`.
      candidates: Any number of items, possibly without end.
      texts: The texts of an item that must all fall in the split.
      once: The texts of an item that no other item yielded may have.
      by: Gives the split of a text: `split_of` or `split_of_text`.
    """
    seen: set[str] = set()
    misses = 0
    for item in candidates:
        misses += 1
        if misses > _GRACE:
            return
        if all(by(text) == split for text in texts(item)) and seen.isdisjoint(once(item)):
            seen.update(once(item))
            misses = 0
            yield item


def gather(
    stream: Iterator[_Item],
    wanted: int,
    encode: Callable[[list[_Item]], Sequence[_Row | str]],
) -> tuple[list[_Item], list[_Row], int, str]:
    """Takes items that can be encoded, block by block, until there are enough or too few pass.

    Args:
      stream: Items of one split.
      wanted: The number of items to return at most.
      encode: Gives for each item of a block its encoded row, or one line on what is wrong with it.

    Returns:
      The items, their rows, the number of items looked at, and why the last refused one was.
    """
    items: list[_Item] = []
    rows: list[_Row] = []
    looked, reason, ended = 0, "", False
    while len(items) < wanted and looked < _GRACE + _ATTEMPTS * len(items) and not ended:
        block = []
        for item in stream:
            block.append(item)
            if len(block) == min(_GRACE, 16 + (wanted - len(items)) * 5 // 4):
                break
        else:
            ended = True
        looked += len(block)
        for item, row in zip(block, encode(block), strict=True):
            if isinstance(row, str):
                reason = row
            elif len(items) < wanted:
                items.append(item)
                rows.append(row)
    return items, rows, looked, reason


def encode_usable(task: Task, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[Row | str]:
    """As `encode_pairs`; what is too short or too long for the task is refused too."""
    longest = task.longest or 10**9
    return [
        row
        if isinstance(row, str) or task.shortest <= len(row.positive) <= longest
        else f"a prompt of {len(row.positive)} tokens"
        for row in encode_pairs(tokenizer, pairs)
    ]


def both_prompts(pair: Pair) -> tuple[str, str]:
    """The texts of a pair that must all fall in one split."""
    return pair.positive, pair.negative


def too_few(
    task: str, items: str, split: str, got: int, wanted: int | None, looked: int, reason: str
) -> str:
    """What is said where a split has fewer items than were asked for; `wanted` None is any at all."""
    last = f"; the last one refused: {reason}" if reason else ""
    if wanted is None:
        found, mend = f"({looked} of the file's {items} fell into this split)", f"give more {items}"
    else:
        found, mend = f"of {wanted} asked for, {looked} looked at", "ask for fewer or give more"
    return f"task {task!r} gave {got} {split} {items} {found}{last}: {mend}"


def _accepted(
    task: Task,
    tokenizer: Tokenizer,
    split: str,
    size: int | None,
    seed: int,
    exclude_templates: Sequence[str],
) -> tuple[list[Pair], list[Row]]:
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: take one of {', '.join(SPLITS)}")
    if size is None and not task.pool:
        raise ValueError(f"task {task.name!r} has no end of pairs: give a size")
    if size is not None and size < 1:
        raise ValueError(f"cannot draw {size} pairs: the size must be at least 1")
    rng = random.Random(f"{task.name}/{split}/{seed}")
    candidates = task.candidates(rng, exclude_templates)
    stream: Iterator[Pair]
    if task.pool:
        splits = split_pool(task.pool, both_prompts)
        stream = (pair for pair in candidates if splits[pair] == split)
    else:
        stream = in_split(split, candidates, both_prompts, both_prompts, splitter(task))
    wanted = len(task.pool) if size is None else size
    encode = functools.partial(encode_usable, task, tokenizer)
    pairs, rows, looked, reason = gather(stream, wanted, encode)
    if (size is None and not pairs) or (size is not None and len(pairs) < size):
        raise ValueError(too_few(task.name, "pairs", split, len(pairs), size, looked, reason))
    return pairs, rows


def draw_pairs(
    task: Task,
    tokenizer: Tokenizer,
    split: str,
    size: int | None,
    seed: int,
    exclude_templates: Sequence[str] = (),
) -> tuple[Pair, ...]:
    """Draws pairs as texts: the same ones, in the same order, as `draw`."""
    return tuple(_accepted(task, tokenizer, split, size, seed, exclude_templates)[0])


def draw(
    task: Task,
    tokenizer: Tokenizer,
    split: str,
    size: int | None,
    seed: int,
    exclude_templates: Sequence[str] = (),
) -> Encoded:
    """Draws pairs of one split as token ids.

    Args:
      task: The task to draw from.
      tokenizer: The tokenizer of the model that will read the pairs.
      split: "train", "validation" or "test".
      size: The number M of pairs; None takes all of a task that has a pool.
      seed: With the task's name and the split it decides the draw; a longer draw begins with the
        shorter one of the same seed.
      exclude_templates: Ids of templates to leave out.

    Returns:
      The pairs, none twice, padded to the longest prompt among them.

    Raises:
      ValueError: If the split or a template is unknown, or the task cannot give that many pairs.
    """
    rows = _accepted(task, tokenizer, split, size, seed, exclude_templates)[1]
    return stack(rows, tokenizer.bos_id)
