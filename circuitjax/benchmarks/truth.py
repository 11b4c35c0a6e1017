"""What is true of a model: a set of parts that suffices, and of which no part can go.

With all others open a part is *needed alone* if closing it changes what the model says by more than a
tolerance. That is no definition of the circuit. Redundant parts hide one another from it; and a part may
matter only beside another that need not be there either: closing one alone leaves the network in a state
that no run of it has, closing both costs nothing. So truth is a set that suffices and none of whose
parts can be spared, each one tried. There may be several; a found set is judged by the same two
properties, and by having no more parts than any set known to suffice (Shi et al. 2024 call these
equivalence and minimality). The comparison part by part is reported beside it.

Everything is written against `Asked`, so it serves residual edges, nodes and weights alike. Axis
letters: E parts, K sets.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

__all__ = [
    "Asked",
    "CircuitCheck",
    "Truth",
    "Verdict",
    "check_circuit",
    "judge",
    "mask_of",
    "minimal_parts",
    "needed_alone",
    "truth_of",
]


class Asked(Protocol):
    """A model in which sets of parts can be left open."""

    @property
    def names(self) -> Sequence[str]:
        """Of the E parts, in the order of the forward pass."""

    def changes(self, masks: np.ndarray) -> np.ndarray:
        """How far the open parts bool `[K, E]` are from what is wanted, `[K]`; less is better."""

    def can_matter(self) -> np.ndarray:
        """bool `[E]`: all but those that may be closed, even together, without any effect."""


@dataclasses.dataclass(frozen=True)
class CircuitCheck:
    """Whether a set of parts is a circuit, and none of them one too many.

    Attributes:
      change: how far just these parts are from what is wanted.
      sufficient: that is at most the tolerance.
      spare: those that can be left out, one at a time, without a change above the tolerance.
    """

    change: float
    sufficient: bool
    spare: tuple[str, ...]

    @property
    def minimal_and_sufficient(self) -> bool:
        """Just these parts do what is wanted, and without any one of them they do not."""
        return self.sufficient and not self.spare


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known of the circuits of a model.

    Attributes:
      sets: sufficient sets of which no part can go, the smallest first; the one set that is empty
        where nothing is to be found.
      alone: parts that are needed with all others open; not a circuit in general.
    """

    sets: tuple[tuple[str, ...], ...]
    alone: tuple[str, ...]

    @property
    def least(self) -> int:
        """Size of the smallest set known."""
        return len(self.sets[0])

    @property
    def unique(self) -> bool:
        """Whether every way of closing parts led to the same set."""
        return len(self.sets) == 1

    def nearest(self, found: Iterable[str]) -> tuple[str, ...]:
        """Of the smallest sets the one that shares most with what was found."""
        chosen = set(found)
        alike = [one for one in self.sets if len(one) == self.least]
        return max(alike, key=lambda one: len(chosen & set(one)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A found set, judged.

    Attributes:
      check: whether it suffices, and what can be spared.
      size: its number of parts.
      least: that of the smallest set known to suffice.
    """

    check: CircuitCheck
    size: int
    least: int

    @property
    def exact(self) -> bool:
        """It suffices, no part of it can go, and no set known to suffice is smaller."""
        return self.check.minimal_and_sufficient and self.size <= self.least


def mask_of(asked: Asked, parts: Iterable[str]) -> np.ndarray:
    """bool `[E]` of parts by name; ValueError for one that the model does not have."""
    names, chosen = list(asked.names), set(parts)
    unknown = sorted(chosen - set(names))
    if unknown:
        raise ValueError(
            f"the model has no part {unknown[0]!r}; its {len(names)} are named like {names[0]!r}"
        )
    return np.array([name in chosen for name in names])


def _named(asked: Asked, mask: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, kept in zip(asked.names, mask, strict=True) if kept)


def needed_alone(asked: Asked, tolerance: float) -> tuple[str, ...]:
    """Parts each of which alone, all others open, changes the outcome by more than the tolerance."""
    tried = np.flatnonzero(asked.can_matter())
    masks = np.ones((len(tried), len(asked.names)), bool)
    masks[np.arange(len(tried)), tried] = False
    found = np.zeros(masks.shape[1], bool)
    if len(tried):
        found[tried[asked.changes(masks) > tolerance]] = True
    return _named(asked, found)


def check_circuit(asked: Asked, parts: Iterable[str], tolerance: float) -> CircuitCheck:
    """Keeps just these parts, then all of them but one, for each.

    Raises:
      ValueError: a part that the model does not have.
    """
    mask = mask_of(asked, parts)
    kept = np.flatnonzero(mask)
    masks = np.repeat(mask[None], len(kept) + 1, axis=0)
    masks[np.arange(len(kept)) + 1, kept] = False
    changes = asked.changes(masks)
    spare = np.zeros(len(mask), bool)
    spare[kept[changes[1:] <= tolerance]] = True
    return CircuitCheck(float(changes[0]), bool(changes[0] <= tolerance), _named(asked, spare))


def minimal_parts(
    asked: Asked,
    tolerance: float,
    start: Iterable[str] | None = None,
    *,
    forwards: bool = False,
) -> tuple[str, ...]:
    """A sufficient set none of whose parts can be spared, by closing parts from one end to the other.

    Parts are closed many at a time where that costs nothing, and in halves where it does, down to single
    ones; until a pass over all closes none.

    Args:
      asked: the model.
      tolerance: a change of at most this much is none.
      start: what to begin with; None means all parts.
      forwards: from the input on. Else from the logits backwards, so that what a closed part alone
        carried goes with it. Of redundant parts those that come last are kept.

    Raises:
      ValueError: a start that is not sufficient, or a part that the model does not have.
    """
    mask = asked.can_matter() if start is None else mask_of(asked, start)
    change = float(asked.changes(mask[None])[0])
    if change > tolerance:
        raise ValueError(
            f"the parts to start with change the outcome by {change:.3g}, more than the tolerance of "
            f"{tolerance:.3g}; start with more parts"
        )

    def close(parts: np.ndarray) -> bool:
        """Closes what can go of these; whether any did."""
        trial = mask.copy()
        trial[parts] = False
        if asked.changes(trial[None])[0] <= tolerance:
            mask[parts] = False
            return True
        if len(parts) == 1:
            return False
        middle = len(parts) // 2
        first = close(parts[:middle])
        return close(parts[middle:]) or first

    def ordered() -> np.ndarray:
        places = np.flatnonzero(mask)
        return places if forwards else places[::-1]

    while mask.any() and close(ordered()):
        pass
    return _named(asked, mask)


def truth_of(asked: Asked, tolerance: float, known: Sequence[Iterable[str]] = ()) -> Truth:
    """What can be known of a model's circuits without knowing how it was made.

    Args:
      asked: the model.
      tolerance: a change of at most this much is none.
      known: sets that are said to be circuits; each that suffices is brought down to what is needed.

    Raises:
      ValueError: the whole model is further from what is wanted than the tolerance.
    """
    nothing = np.zeros((1, len(asked.names)), bool)
    if asked.changes(nothing)[0] <= tolerance:
        return Truth(((),), ())
    alone = needed_alone(asked, tolerance)
    found = {minimal_parts(asked, tolerance, forwards=forwards) for forwards in (False, True)}
    for one in (alone, *known):
        chosen = mask_of(asked, one)
        if asked.changes(chosen[None])[0] <= tolerance:
            found.add(minimal_parts(asked, tolerance, _named(asked, chosen)))
    return Truth(tuple(sorted(found, key=lambda one: (len(one), one))), alone)


def judge(asked: Asked, found: Iterable[str], truth: Truth, tolerance: float) -> Verdict:
    """Whether a found set is a circuit of the model, and the smallest known."""
    chosen = set(found)
    return Verdict(check_circuit(asked, chosen, tolerance), len(chosen), truth.least)
