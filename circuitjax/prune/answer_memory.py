"""Answers of the first k units of a ranking, remembered: several searches of it look each k up once."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from circuitjax.prune.objective import Pairs

__all__ = ["AnswerMemory"]

_Arrays = tuple[np.ndarray, np.ndarray]


class AnswerMemory:
    """What was answered, by content of the ranking, content of the pairs, and k.

    It belongs to one model under one set of replacement values: its owner sees to that.
    """

    def __init__(self) -> None:
        """Remembers nothing yet."""
        self._kept: dict[tuple[bytes, bytes, int], _Arrays] = {}

    def answers(
        self,
        ranking: np.ndarray,
        pairs: Pairs,
        ks: Sequence[int],
        look: Callable[[list[int]], Sequence[Any]],
    ) -> _Arrays:
        """Differences and vocabulary losses `[K, M, 2]`, each k from memory or looked up.

        Args:
          ranking: `[U]`, 0 is the most important unit.
          pairs: M of them.
          ks: K sizes.
          look: the two arrays for the sizes that are not remembered.
        """
        parts = (pairs.tokens, pairs.last, pairs.answers)
        where = (_digest([ranking]), _digest([np.asarray(part) for part in parts]))
        missing = [k for k in dict.fromkeys(int(k) for k in ks) if (*where, k) not in self._kept]
        if missing:
            arrays = [np.asarray(array) for array in look(missing)]
            for index, k in enumerate(missing):
                self._kept[*where, k] = (arrays[0][index], arrays[1][index])
        rows = [self._kept[*where, int(k)] for k in ks]
        return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])


def _digest(arrays: Sequence[np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
