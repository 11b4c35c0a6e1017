"""Pairs of prompts in rows without waste: what both prompts of a pair begin with stands there once.

Padded to the longest, the built-in tasks are more than half filler and tokens that stand there twice.
Here a long pair shares a row with a short one, so that rows are about as long as two average pairs.
Every token computes what it computes in a prompt of its own, up to rounding.

Axis letters: M pairs, R rows of G pairs each, T slots, P = 2 G prompts of a row.
"""

from collections.abc import Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.layout import Layout
from circuitjax.prune.objective import Pairs, Prompts, slices_of

__all__ = [
    "Packed",
    "Rows",
    "by_row",
    "pack",
    "packed_batches",
    "row_length",
    "some_of",
    "training_rows",
    "uneven_batches",
]

_BATCH = 64  # pairs per forward pass of an evaluation; bounds memory, not results
_STEP = 8  # rows are as long as a multiple of this, so that sets share compiled programs


@flax.struct.dataclass
class Packed:
    """R rows of G pairs on the device; what `objective.answer_logits` and its like take for pairs.

    Attributes:
      tokens: int32 `[R, T]`.
      layout: where they stand.
      ends: int32 `[R, P]`, the slot of each prompt's last token; prompts in order, positive first.
      completions: int32 `[R, G, 2]`, the completions of each pair's prompts.
    """

    tokens: jax.Array
    layout: Layout
    ends: jax.Array
    completions: jax.Array

    @property
    def size(self) -> int:
        """Number of pairs."""
        return self.completions.shape[0] * self.completions.shape[1]

    @property
    def answers(self) -> jax.Array:
        """int32 `[R G, 2]`, as in `Pairs`."""
        return self.completions.reshape(-1, 2)

    @property
    def slices(self) -> int:
        """See `objective.slices_of`."""
        return slices_of(self.tokens.shape[0], self.tokens.shape[-1])

    @property
    def prompts(self) -> Prompts:
        """What goes through a model."""
        candidates = jnp.repeat(self.completions, 2, axis=1)
        return Prompts(self.tokens, self.ends, candidates, self.layout)

    def take(self, rows: jax.Array | np.ndarray) -> "Packed":
        """The rows with these numbers `[R']`."""
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def draw(self, key: jax.Array, count: int) -> "Packed":
        """Rows of `count` pairs in all, drawn with replacement; `count` is a multiple of G."""
        rows, group = self.completions.shape[0], self.completions.shape[-2]
        return self.take(jax.random.randint(key, (count // group,), 0, rows))


Rows = Pairs | Packed


def row_length(config: TransformerConfig, pairs: Pairs) -> int:
    """Slots for rows of two of these pairs, a multiple of 8; 0 where a row a prompt costs less.

    Prompts of equal length that part early have nothing to gain, and attention pays for long rows.
    """
    own = _counts(pairs, config.causal)[1].sum(axis=1)
    length = _rounded(own[_partners(own, _group(pairs.size, 2))].sum(axis=1).max())
    plain = pairs.tokens.shape[-1]
    return length if length * _cost(config, length) < 4 * plain * _cost(config, plain) else 0


def _cost(config: TransformerConfig, length: int) -> float:
    """Of a token in a row of so many: products with weights, and with other tokens."""
    weights = 4 * config.d_model * config.d_attention + 2 * config.d_model * config.d_mlp
    return weights + 2 * length * config.d_attention


def training_rows(pairs: Pairs, causal: bool, batch_size: int, least: int = 0) -> Rows:
    """Pairs to draw batches from; those of a row, of `least` slots or more, are drawn together."""
    return pack(pairs, causal, group=2 if batch_size % 2 == 0 else 1, least=least)[0]


def packed_batches(pairs: Pairs, causal: bool, size: int = _BATCH) -> tuple[list[Rows], np.ndarray]:
    """Batches of equal size for an evaluation, and where in their joined answers each pair is.

    Args:
      pairs: M of them; the last is taken again and again to fill the last batch up.
      causal: see `pack`.
      size: pairs of a batch, at most.
    """
    size = min(size, pairs.size)
    whole = -(-pairs.size // size) * size
    filled = _on_host(pairs).take(np.minimum(np.arange(whole), pairs.size - 1))
    # Rows of two would cross the batches' borders.
    rows, places = _pack(filled, causal, 2 if size % 2 == 0 else 1)
    each = len(rows.tokens) * size // whole
    starts = range(0, len(rows.tokens), each)
    batches = [jax.device_put(rows.take(np.arange(s, s + each))) for s in starts]
    return batches, places[: pairs.size]


def by_row(pairs: Pairs, causal: bool) -> np.ndarray:
    """Numbers of all pairs, int `[M]`, those that share a row beside each other.

    The first so many, an even number, make rows no longer than those of all, and fit their programs.
    """
    if not pairs.row_length:
        return np.arange(pairs.size)
    lengths = _counts(pairs, causal)[1].sum(axis=1)
    return _partners(lengths, _group(pairs.size, 2)).reshape(-1)


def some_of(pairs: Pairs, causal: bool, count: int) -> Pairs:
    """`count` of the pairs, or all if there are no more; rows as in `by_row`."""
    return pairs if count >= pairs.size else pairs.take(by_row(pairs, causal)[:count])


def uneven_batches(pairs: Pairs, causal: bool, size: int = _BATCH) -> Iterator[Rows]:
    """Batches for a mean: the last at its own size, for a pair that fills it up would count twice."""
    pairs = _on_host(pairs)
    for start in range(0, pairs.size, size):
        some = pairs.take(np.arange(start, min(start + size, pairs.size)))
        yield pack(some, causal)[0]


def _on_host(pairs: Pairs) -> Pairs:
    """The same pairs as numpy arrays: taking and packing them is many small steps."""
    found: Pairs = jax.tree.map(np.asarray, pairs)
    return found


def pack(pairs: Pairs, causal: bool, group: int = 2, least: int = 0) -> tuple[Rows, np.ndarray]:
    """Puts pairs into rows, long ones beside short ones, on the host.

    Args:
      pairs: M of them; their `row_length` says how long rows are at least, or that there is none.
      causal: whether a token sees only what is before it; else prompts have nothing to share.
      group: pairs of a row, G; 1 where it does not divide M.
      least: slots of a row, at least.

    Returns:
      The rows, in an order of no meaning; and where among their answers each pair is, int `[M]`.
    """
    rows, places = _pack(pairs, causal, group, least)
    return pairs if rows is pairs else jax.device_put(rows), places


def _pack(pairs: Pairs, causal: bool, group: int, least: int = 0) -> tuple[Rows, np.ndarray]:
    """`pack`, to arrays on the host."""
    if not pairs.row_length:
        return pairs, np.arange(pairs.size)
    tokens = np.asarray(pairs.tokens)
    begin, counts = _counts(pairs, causal)
    group = _group(pairs.size, group)
    members = _partners(counts.sum(axis=1), group)
    needed = int(counts[members].sum(axis=(1, 2)).max())
    # A few pairs may need more than the set they are of.
    length = max(_rounded(needed), least, pairs.row_length if group == 2 else 0)
    shape = (len(members), length)
    packed = np.full(shape, tokens[0, 0, 0], np.int32)
    places, prompt, base, shared = (np.full(shape, x, np.int32) for x in (0, -1, -1, 0))
    ends = np.zeros((len(members), 2 * group), np.int32)
    filled = np.zeros(len(members), int)
    for number in range(2 * group):
        which, side = members[:, number // 2], number % 2
        # The positive prompt stands there whole, the negative from where they part.
        first, count = begin[which] * side, counts[which, side]
        row, step = np.nonzero(np.arange(count.max())[None, :] < count[:, None])
        slot, place = filled[row] + step, first[row] + step
        packed[row, slot] = tokens[which[row], side, place]
        places[row, slot], shared[row, slot] = place, first[row]
        prompt[row, slot], base[row, slot] = number, number - side
        filled = filled + count
        ends[:, number] = filled - 1
    where: list[Any] = [places, prompt, base, shared]
    rows: list[Any] = [packed, Layout(*where), ends, np.asarray(pairs.answers)[members]]
    return Packed(*rows), np.argsort(members.reshape(-1))


def _counts(pairs: Pairs, causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens both prompts of a pair begin with, `[M]`, and slots of each prompt, `[M, 2]`."""
    tokens, last = np.asarray(pairs.tokens), np.asarray(pairs.last)
    if causal:
        apart = tokens[:, 0] != tokens[:, 1]
        begin = np.where(apart.any(axis=1), apart.argmax(axis=1), tokens.shape[-1])
        # The negative keeps a token of its own, to be asked at.
        begin = np.minimum(begin, last.min(axis=1))
    else:
        begin = np.zeros(len(last), int)
    return begin, last + 1 - np.stack([np.zeros_like(begin), begin], axis=1)


def _group(size: int, group: int) -> int:
    return group if size % group == 0 else 1


def _partners(counts: np.ndarray, group: int) -> np.ndarray:
    """Numbers of pairs `[R, G]`: with the longest in a row the shortest."""
    order = np.argsort(counts, kind="stable").reshape(group, -1)
    order[1::2] = order[1::2, ::-1].copy()
    # Neighbours are of alike length: rows in an order that has nothing to do with it.
    return np.random.default_rng(0).permutation(order.T)


def _rounded(slots: int) -> int:
    return -(-int(slots) // _STEP) * _STEP
