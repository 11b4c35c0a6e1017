"""Examples in rows and in batches; nobody above this module asks how they lie.

Both prompts of a pair begin alike. Where a model is causal and nothing is replaced per token, a row
holds that beginning once, and a long pair shares a row with a short one, so that rows are about as long
as two average pairs. Every token computes what it computes in a prompt of its own, up to rounding.

Axis letters: B pairs, G pairs of a row, T slots, P = 2 G prompts of a row; `rows` is an axis of its own.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated.examples import Examples, Prompts, slices_of
from circuitjax.model.config import TransformerConfig
from circuitjax.model.layout import Layout

__all__ = ["Batches", "Packed", "Rows", "pack", "row_length", "shortened", "stacked"]

_STEP = 8  # rows are as long as a multiple of this, so that sets share compiled programs


@flax.struct.dataclass
class Packed:
    """Rows of G pairs each on the device; a `Batch`.

    Attributes:
      tokens: int32 `[rows, T]`.
      layout: where they stand.
      ends: int32 `[rows, P]`, the slot of each prompt's last token; prompts in order.
      completions: int32 `[rows, G, 2]`, the right completion of each pair's first and second prompt.
    """

    tokens: jax.Array
    layout: Layout
    ends: jax.Array
    completions: jax.Array

    @property
    def size(self) -> int:
        """Number of examples, two for each pair."""
        return 2 * self.completions.shape[0] * self.completions.shape[1]

    @property
    def right(self) -> jax.Array:
        """int32 `[M, 1]`."""
        return self.completions.reshape(-1, 1)

    @property
    def wrong(self) -> jax.Array:
        """int32 `[M, 1]`: the other prompt's."""
        return self.completions[..., ::-1].reshape(-1, 1)

    @property
    def slices(self) -> int:
        """See `examples.slices_of`."""
        return slices_of(self.tokens.shape[0], self.tokens.shape[-1])

    @property
    def prompts(self) -> Prompts:
        """What goes through a model."""
        return Prompts(self.tokens, self.ends, self.layout)

    def take(self, rows: Any) -> "Packed":
        """The rows with these numbers."""
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def draw(self, key: jax.Array, count: int) -> "Packed":
        """Rows of `count` pairs in all, drawn with replacement; `count` is a multiple of G."""
        rows, group = self.completions.shape[0], self.completions.shape[-2]
        assert count % group == 0, f"{count} pairs cannot be drawn of rows of {group}"
        return self.take(jax.random.randint(key, (count // group,), 0, rows))


Rows = Examples | Packed


@dataclasses.dataclass(frozen=True)
class Batches:
    """How sets of examples are cut for a model.

    Attributes:
      causal: whether a token sees only what is before it; else prompts have nothing to share.
      packs: whether pairs may share rows.
      items: of an evaluation's forward pass, at most; bounds memory, not results.
    """

    causal: bool
    packs: bool
    items: int = 64

    def _plain(self, examples: Examples) -> Examples:
        # A compiled program does not depend on what is known of templates.
        length = examples.row_length if self.packs else 0
        return dataclasses.replace(examples, row_length=length, template=None, left_out=())

    def training(self, examples: Examples, batch_size: int, least: int = 0) -> Rows:
        """Rows to draw batches of so many items from; those of a row are drawn together."""
        group = 2 if batch_size % 2 == 0 else 1
        return pack(self._plain(examples), self.causal, group, least)[0]

    def whole(self, examples: Examples) -> Rows:
        """One batch of them all, its examples in an order of no meaning."""
        return pack(self._plain(examples), self.causal)[0]

    def even(self, examples: Examples) -> tuple[list[Rows], np.ndarray]:
        """Batches of one size, which share a program, and where each example's answer is.

        The last item is taken again and again to fill the last batch up.
        """
        examples = self._plain(examples)
        size = min(self.items, examples.items)
        count = -(-examples.items // size) * size
        filled = examples.on_host().take(np.minimum(np.arange(count), examples.items - 1))
        # Rows of two would cross the batches' borders.
        rows, places = _pack(filled, self.causal, 2 if size % 2 == 0 else 1)
        if isinstance(rows, Examples):
            starts = range(0, count, size)
            batches = [jax.device_put(rows.take(np.arange(s, s + size))) for s in starts]
            return batches, np.arange(examples.size)
        each = len(rows.tokens) * size // count
        starts = range(0, len(rows.tokens), each)
        batches = [jax.device_put(rows.take(np.arange(s, s + each))) for s in starts]
        places = (2 * places[: examples.items, None] + np.arange(2)).reshape(-1)
        return batches, places

    def uneven(self, examples: Examples) -> Iterator[Rows]:
        """Batches for a mean: the last at its own size, for what fills it up would count twice."""
        examples = self._plain(examples).on_host()
        for start in range(0, examples.items, self.items):
            some = examples.take(np.arange(start, min(start + self.items, examples.items)))
            yield pack(some, self.causal)[0]

    def some(self, examples: Examples, count: int) -> Examples:
        """`count` of the items, or all if there are no more; see `order`."""
        if count >= examples.items:
            return examples
        return examples.take(self.order(examples)[:count])

    def order(self, examples: Examples) -> np.ndarray:
        """Numbers of all items, int; those that share a row beside each other.

        The first so many, an even number, make rows no longer than those of all, and fit their programs.
        """
        if not self._plain(examples).row_length:
            return np.arange(examples.items)
        lengths = _counts(examples, self.causal)[1].sum(axis=1)
        return _partners(lengths, _group(examples.items, 2)).reshape(-1)


def row_length(config: TransformerConfig, examples: Examples) -> int:
    """Slots for rows of two of these pairs, a multiple of 8; 0 where a row a prompt costs less.

    Prompts of equal length that part early have nothing to gain, and attention pays for long rows.
    """
    if not examples.paired or examples.positions.shape[-1] != 1:
        return 0
    own = _counts(examples, config.causal)[1].sum(axis=1)
    length = _rounded(own[_partners(own, _group(examples.items, 2))].sum(axis=1).max())
    plain = examples.tokens.shape[-1]
    return length if length * _cost(config, length) < 4 * plain * _cost(config, plain) else 0


def _cost(config: TransformerConfig, length: int) -> float:
    """Of a token in a row of so many: products with weights, and with other tokens."""
    weights = 4 * config.d_model * config.d_attention + 2 * config.d_model * config.d_mlp
    return weights + 2 * length * config.d_attention


def pack(
    examples: Examples, causal: bool, group: int = 2, least: int = 0
) -> tuple[Rows, np.ndarray]:
    """Puts pairs into rows, long ones beside short ones, on the host.

    Args:
      examples: their `row_length` says how long rows are at least, or that there is none.
      causal: whether a token sees only what is before it.
      group: pairs of a row, G; 1 where it does not divide them.
      least: slots of a row, at least.

    Returns:
      The rows, in an order of no meaning; and where among them each item is, int `[B]`.
    """
    rows, places = _pack(examples, causal, group, least)
    return examples if rows is examples else jax.device_put(rows), places


def _pack(examples: Examples, causal: bool, group: int, least: int = 0) -> tuple[Rows, np.ndarray]:
    """`pack`, to arrays on the host."""
    if not examples.row_length:
        return examples, np.arange(examples.items)
    tokens = np.asarray(examples.tokens)[::2]
    begin, counts = _counts(examples, causal)
    group = _group(examples.items, group)
    members = _partners(counts.sum(axis=1), group)
    needed = int(counts[members].sum(axis=(1, 2)).max())
    # A few pairs may need more than the set they are of.
    length = max(_rounded(needed), least, examples.row_length if group == 2 else 0)
    shape = (len(members), length)
    packed = np.full(shape, tokens[0, 0, 0], np.int32)
    places, prompt, base, shared = (np.full(shape, x, np.int32) for x in (0, -1, -1, 0))
    ends = np.zeros((len(members), 2 * group), np.int32)
    filled = np.zeros(len(members), int)
    for number in range(2 * group):
        which, side = members[:, number // 2], number % 2
        # The first prompt stands there whole, the second from where they part.
        first, count = begin[which] * side, counts[which, side]
        row, step = np.nonzero(np.arange(count.max())[None, :] < count[:, None])
        slot, place = filled[row] + step, first[row] + step
        packed[row, slot] = tokens[which[row], side, place]
        places[row, slot], shared[row, slot] = place, first[row]
        prompt[row, slot], base[row, slot] = number, number - side
        filled = filled + count
        ends[:, number] = filled - 1
    where: list[Any] = [places, prompt, base, shared]
    answers = np.asarray(examples.right).reshape(-1, 2)
    rows: list[Any] = [packed, Layout(*where), ends, answers[members]]
    return Packed(*rows), np.argsort(members.reshape(-1))


def shortened(rows: Rows, slots: int, share: float) -> Rows:
    """As many rows of so many slots, longer ones replaced by others; unchanged if over `share` are."""
    if not isinstance(rows, Packed) or rows.tokens.shape[-1] <= slots:
        return rows
    fits = np.flatnonzero(np.max(np.asarray(rows.ends), axis=1) < slots)
    if len(fits) < (1 - share) * len(rows.ends):
        return rows
    kept = rows.take(np.resize(fits, len(rows.ends)))
    layout = jax.tree.map(lambda leaf: leaf[:, :slots], kept.layout)
    return dataclasses.replace(kept, tokens=kept.tokens[:, :slots], layout=layout)


def stacked(sets: Sequence[Rows]) -> Rows:
    """Rows of several sets of equal shapes on axis 1 of every leaf."""
    found: Rows = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *sets)
    return found


def _counts(examples: Examples, causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens both prompts of a pair begin with, `[B]`, and slots of each prompt, `[B, 2]`."""
    tokens = np.asarray(examples.tokens)[::2]
    last = np.asarray(examples.positions).reshape(-1, 2)
    if causal:
        apart = tokens[:, 0] != tokens[:, 1]
        begin = np.where(apart.any(axis=1), apart.argmax(axis=1), tokens.shape[-1])
        # The second keeps a token of its own, to be asked at.
        begin = np.minimum(begin, last.min(axis=1))
    else:
        begin = np.zeros(len(last), int)
    return begin, last + 1 - np.stack([np.zeros_like(begin), begin], axis=1)


def _group(size: int, group: int) -> int:
    return group if size % group == 0 else 1


def _partners(counts: np.ndarray, group: int) -> np.ndarray:
    """Numbers of pairs `[rows, G]`: with the longest in a row the shortest."""
    order = np.argsort(counts, kind="stable").reshape(group, -1)
    order[1::2] = order[1::2, ::-1].copy()
    # Neighbours are of alike length: rows in an order that has nothing to do with it.
    return np.random.default_rng(0).permutation(order.T)


def _rounded(slots: int) -> int:
    return -(-int(slots) // _STEP) * _STEP
