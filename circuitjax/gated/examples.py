"""What is asked of a gated model: examples on the device, and the rows that go through the model.

An example is a clean prompt, a corrupted one of the same length, and the completions that are right and
wrong after the clean prompt. A pair of a binary task is two examples, numbers 2i and 2i + 1, each the
other's corrupted one. What a step draws and a set is measured in is an *item*: a pair, or an example
where there are no pairs.

Axis letters: M examples, T positions, P positions read, R right and R' wrong completions, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.layout import Layout

__all__ = ["Batch", "Examples", "Prompts", "joined", "picked", "slices_of"]

_SLICE = 1024  # tokens of a slice of a batch, at least: smaller products are slower ones


class Prompts(NamedTuple):
    """Tokens of some rows, each of one or more prompts, and what is read off them.

    Attributes:
      tokens: int32 `[rows, T]`.
      positions: int32 `[rows, prompts * P]`, the slots that logits are wanted at.
      layout: where the tokens stand, if rows hold more than one prompt.
    """

    tokens: jax.Array
    positions: jax.Array
    layout: Layout | None = None


class Batch(Protocol):
    """M examples in rows of any kind: `Examples`, `rows.Packed`."""

    @property
    def size(self) -> int:
        """M."""

    @property
    def right(self) -> jax.Array:
        """int32 `[M, R]`, padded with -1."""

    @property
    def wrong(self) -> jax.Array:
        """int32 `[M, R']`, padded with -1."""

    @property
    def prompts(self) -> Prompts:
        """The clean prompts; their positions, row by row, are those of the examples in order."""

    @property
    def slices(self) -> int:
        """Parts in which the batch is best worked out on CPU."""


@flax.struct.dataclass
class Examples:
    """M encoded examples, each prompt in a row of its own.

    Attributes:
      tokens: int32 `[M, 2, T]`, the clean prompt and the corrupted one, right-padded.
      positions: int32 `[M, P]`, where answers are read; the last is the prompt's last token.
      right, wrong: int32 `[M, R]` and `[M, R']`, completions at the first position, padded with -1.
      paired: whether examples 2i and 2i + 1 are the two prompts of a pair (static).
      row_length: slots of a row of two packed pairs; 0 where every prompt has a row of its own
        (static). See `rows.py`.
      template: int32 `[M]`, number of each example's template; None where it is not known.
      left_out: numbers of the templates that no training example is of (static).
    """

    tokens: jax.Array
    positions: jax.Array
    right: jax.Array
    wrong: jax.Array
    paired: bool = flax.struct.field(pytree_node=False, default=False)
    row_length: int = flax.struct.field(pytree_node=False, default=0)
    template: jax.Array | None = None
    left_out: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def of_pairs(cls, tokens: Any, last: Any, answers: Any, row_length: int = 0) -> "Examples":
        """From tokens `[B, 2, T]` of pairs, the ends `[B, 2]` of their prompts and answers `[B, 2]`."""
        tokens, last, answers = (np.asarray(x, np.int32) for x in (tokens, last, answers))
        count, _, length = tokens.shape
        chex.assert_shape(tokens, (count, 2, length))
        chex.assert_shape([last, answers], (count, 2))
        both = np.stack([tokens, tokens[:, ::-1]], axis=1).reshape(2 * count, 2, length)
        arrays = (
            both,
            last.reshape(-1, 1),
            answers.reshape(-1, 1),
            answers[:, ::-1].reshape(-1, 1),
        )
        on_device = [jnp.asarray(x) for x in arrays]
        return cls(
            tokens=on_device[0],
            positions=on_device[1],
            right=on_device[2],
            wrong=on_device[3],
            paired=True,
            row_length=row_length,
        )

    @property
    def size(self) -> int:
        """M."""
        return self.tokens.shape[0]

    @property
    def unit(self) -> int:
        """Examples of an item: 2 for pairs, else 1."""
        return 2 if self.paired else 1

    @property
    def items(self) -> int:
        """Number of items."""
        return self.size // self.unit

    @property
    def apart(self) -> np.ndarray:
        """Whether an example is of a template that training never sees, bool `[M]`."""
        if self.template is None:
            return np.zeros(self.size, bool)
        return np.isin(np.asarray(self.template), self.left_out)

    @property
    def slices(self) -> int:
        """See `slices_of`."""
        return slices_of(self.items, self.unit * self.tokens.shape[-1])

    @property
    def prompts(self) -> Prompts:
        """A row for each clean prompt."""
        return Prompts(self.tokens[:, 0], self.positions)

    def take(self, index: Any) -> "Examples":
        """The items with these numbers `[B]`; on the host if the numbers are there.

        Every size of a slice would be a program of its own to compile on the device.
        """
        host = isinstance(index, np.ndarray)
        if self.paired:
            numbers = np if host else jnp
            index = (2 * index[:, None] + numbers.arange(2)[None, :]).reshape(-1)
        return jax.tree.map(lambda leaf: (np.asarray(leaf) if host else leaf)[index], self)

    def first(self, count: int) -> "Examples":
        """The first items, on the host; all if there are no more."""
        return self if count >= self.items else self.take(np.arange(count))

    def draw(self, key: jax.Array, count: int) -> "Examples":
        """`count` items, drawn with replacement."""
        return self.take(jax.random.randint(key, (count,), 0, self.items))

    def replace_answers(self, right: Any, wrong: Any) -> "Examples":
        """The same prompts with other completions `[M, R]`, `[M, R']`."""
        return dataclasses.replace(self, right=jnp.asarray(right), wrong=jnp.asarray(wrong))

    def as_pairs(self) -> "Examples":
        """Each example beside its reverse, the corrupted prompt first, as a pair; pairs as they are."""
        if self.paired:
            return self
        width = max(self.right.shape[-1], self.wrong.shape[-1])
        right, wrong = (
            np.pad(x, ((0, 0), (0, width - x.shape[-1])), constant_values=-1)
            for x in (np.asarray(self.right), np.asarray(self.wrong))
        )

        def beside(one: Any, other: Any) -> jax.Array:
            both = np.stack([one, other], axis=1)
            return jnp.asarray(both.reshape(2 * self.size, *np.shape(one)[1:]))

        tokens, positions = np.asarray(self.tokens), np.asarray(self.positions)
        return Examples(
            beside(tokens, tokens[:, ::-1]),
            beside(positions, positions),
            beside(right, wrong),
            beside(wrong, right),
            paired=True,
        )

    def on_host(self) -> "Examples":
        """The same examples as numpy arrays: taking and packing them is many small steps."""
        found: Examples = jax.tree.map(np.asarray, self)
        return found


def slices_of(rows: int, slots: int) -> int:
    """Parts in which a batch is best worked out on CPU: rows of a part stay in cache, if not too few."""
    return next((n for n in (4, 2) if rows % n == 0 and rows * slots >= n * _SLICE), 1)


def picked(logits: jax.Array, batch: Batch) -> jax.Array:
    """Logits of the right and then the wrong completions, `[M, R + R']`, from `[M, P, V]`."""
    tokens = jnp.concatenate([batch.right, batch.wrong], axis=-1)
    return jnp.take_along_axis(logits[:, 0], jnp.maximum(tokens, 0), axis=-1)


def joined(sets: Sequence[Examples]) -> Examples:
    """Examples of several sets of equal shapes, one set after another."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *(s.on_host() for s in sets))
