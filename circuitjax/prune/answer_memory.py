"""Answers of the first k units of a ranking, remembered: several searches of it look each k up once."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from circuitjax.gated.examples import Examples

__all__ = ["AnswerMemory"]


class AnswerMemory:
    """What was answered, by content of the ranking, content of the examples, and k.

    It belongs to one model under one set of replacement values: its owner sees to that.
    """

    def __init__(self) -> None:
        """Remembers nothing yet."""
        self._kept: dict[tuple[bytes, bytes, int], tuple[np.ndarray, ...]] = {}

    def answers(
        self,
        ranking: np.ndarray,
        examples: Examples,
        ks: Sequence[int],
        look: Callable[[list[int]], Sequence[np.ndarray]],
    ) -> tuple[np.ndarray, ...]:
        """What K circuits answered, each `[K, M]`, from memory or looked up.

        Args:
          ranking: `[G]`, 0 is the most important gate.
          examples: M of them.
          ks: K sizes.
          look: the arrays for the sizes that are not remembered.
        """
        parts = (examples.tokens, examples.positions, examples.right, examples.wrong)
        where = (_digest([ranking]), _digest([np.asarray(part) for part in parts]))
        missing = [k for k in dict.fromkeys(int(k) for k in ks) if (*where, k) not in self._kept]
        if missing:
            rows = zip(*(np.asarray(array) for array in look(missing)), strict=True)
            self._kept.update(((*where, k), row) for k, row in zip(missing, rows, strict=True))
        return tuple(
            np.stack(c) for c in zip(*(self._kept[*where, int(k)] for k in ks), strict=True)
        )


def _digest(arrays: Sequence[np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
