"""A gated model some of whose gates stay closed: what is left to find once circuits are taken away.

    logits(gates) = logits of the whole under gates * allowed

Everything that a search does with a `GatedModel` it can do with this one, at any grain: training,
ranking, elimination, cut and clean-up know of no other gates than those that are allowed.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import numpy as np

from circuitjax.gated.examples import Batch
from circuitjax.gated.protocol import GatedModel, Held, Part
from circuitjax.prune.conditions import Under
from circuitjax.prune.problem import Problem

__all__ = ["Without", "problem_without", "without"]


@flax.struct.dataclass
class Without:
    """A `GatedModel`.

    Attributes:
      whole: the network under gates.
      allowed: bool `[G]`, those that may open.
    """

    whole: Any
    allowed: Any

    def __getattr__(self, name: str) -> Any:
        """What the network is and how it is run does not depend on its gates."""
        if name.startswith("__") or name in ("whole", "allowed"):
            raise AttributeError(name)
        return getattr(self.whole, name)

    def _open(self, opened: np.ndarray) -> np.ndarray:
        return np.asarray(opened, bool) & np.asarray(self.allowed)

    def exists(self) -> np.ndarray:
        """Gates that can matter and may open."""
        return self._open(self.whole.exists())

    def count(self, chance: jax.Array) -> jax.Array:
        """Expected number of open parts among those allowed."""
        found: jax.Array = self.whole.count(chance * self.allowed)
        return found

    def logits(self, gates: jax.Array, batch: Batch, held: Held = None, **more: Any) -> jax.Array:
        """Logits `[M, P, V]` under gates `[G]`."""
        found: jax.Array = self.whole.logits(gates * self.allowed, batch, held, **more)
        return found

    def answers(self, gates: jax.Array, batch: Batch, held: Held = None) -> jax.Array:
        """The same for the right and wrong completions alone."""
        found: jax.Array = self.whole.answers(gates * self.allowed, batch, held)
        return found

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """Of those allowed, the open gates on a path from input to output."""
        return np.asarray(self.whole.alive(self._open(opened)))

    def cut(self, first: np.ndarray) -> np.ndarray:
        """Of those allowed, what a cut opens."""
        return np.asarray(self.whole.cut(self._open(first)))

    def clean(self, opened: np.ndarray) -> Part:
        """The open gates among those allowed, as a circuit."""
        found: Part = self.whole.clean(self._open(opened))
        return found

    def reduced(self, opened: np.ndarray, **more: Any) -> GatedModel:
        """The network without gates that will not open, or itself."""
        found: GatedModel = self.whole.reduced(self._open(opened), **more)
        return self if found is self.whole else found


def without(model: GatedModel, closed: np.ndarray) -> GatedModel:
    """The same network whose gates bool `[G]` stay closed."""
    allowed = ~np.asarray(closed, bool)
    found: Any = Without(model, jax.numpy.asarray(allowed))
    return found


def problem_without(problem: Problem, closed: np.ndarray) -> Problem:
    """The same task in the same network whose gates bool `[G]` stay closed, whoever looks at it."""
    whole = without(problem.whole, closed)
    same = problem.trained is problem.whole
    trained = whole if same else without(problem.trained, closed)

    def under(some: tuple[Under, ...]) -> tuple[Under, ...]:
        return tuple(
            one._replace(whole=without(one.whole, closed), trained=without(one.trained, closed))
            for one in some
        )

    held, mixed = under(problem.held), under(problem.mixed)
    return dataclasses.replace(problem, whole=whole, trained=trained, held=held, mixed=mixed)
