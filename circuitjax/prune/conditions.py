"""What a search trains under and what its circuit must hold under: one condition, or a mix of several.

    --ablation=X                        train and hold under X alone
    --train_under=mean:2,resample,...   the items of a step are shared out by weight
    --hold_under=mean,resample,...      the cut demands the target under each, with one calibration

The conditions are those of `gated/conditions.py`. Where one of them is no constant replacement, nothing
that is closed may be folded into a constant: another condition would fill it with something else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from circuitjax.gated.conditions import CONDITIONS, condition_named
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import ABLATIONS
from circuitjax.gated.rows import Batches
from circuitjax.prune.config import Choices

__all__ = ["Under", "base_of", "held_under", "parse", "shares", "trained_under", "unseen"]


class Under(NamedTuple):
    """A network under gates, as it is asked under one condition.

    Attributes:
      name: of the condition.
      whole: the network; its ablation is the condition's.
      trained: what a training looks at: the same, or reduced to the circuit it starts from.
      batches: how examples are cut for it.
    """

    name: str
    whole: GatedModel
    trained: GatedModel
    batches: Batches


def parse(text: str, flag: str = "train_under") -> tuple[tuple[str, float], ...]:
    """(condition, weight) of `mean:2,resample`; a weight left out is 1.

    Raises:
      ValueError: an unknown condition, one named twice, or weights that are no share of anything.

    Examples:
      >>> from circuitjax.prune.conditions import parse
      >>> parse("mean:2,resample")
      (('mean', 2.0), ('resample', 1.0))
    """
    known = (*ABLATIONS, *(name for name in CONDITIONS if name not in ABLATIONS))
    found: list[tuple[str, float]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition(":")
        if name not in known:
            raise ValueError(f"{flag} names {name!r}; choose conditions from {', '.join(known)}")
        if name in (seen for seen, _ in found):
            raise ValueError(f"{flag} names {name!r} twice: name each condition once")
        try:
            share = float(weight) if weight else 1.0
        except ValueError:
            share = math.nan
        if not 0 <= share < math.inf:
            raise ValueError(f"{flag} gives {name} the weight {weight!r}; it must be in [0, inf)")
        found.append((name, share))
    if found and not sum(share for _, share in found) > 0:
        raise ValueError(f"the weights of {flag}={text} sum to nothing: give one above 0")
    return tuple(found)


def trained_under(choices: Choices) -> tuple[tuple[str, float], ...]:
    """Conditions of training with their weights, those of weight 0 left out."""
    found = parse(choices.train_under) or ((choices.ablation, 1.0),)
    return tuple((name, weight) for name, weight in found if weight > 0)


def held_under(choices: Choices) -> tuple[str, ...]:
    """Conditions that the cut demands the target under."""
    found = tuple(name for name, _ in parse(choices.hold_under, "hold_under"))
    return found or (choices.ablation,)


def unseen(choices: Choices) -> tuple[str, ...]:
    """Conditions that the cut demands and training never sees."""
    # Templates are left out of training on purpose.
    seen = {name for name, _ in trained_under(choices)}
    names = (name for name in held_under(choices) if not condition_named(name).apart)
    return tuple(name for name in names if name not in seen)


def base_of(choices: Choices, name: str) -> str:
    """The ablation that fills what is closed under a condition."""
    return condition_named(name).ablation or choices.ablation


def shares(weights: Sequence[float], items: int) -> tuple[int, ...]:
    """How many of so many items each condition gets: by weight, at least one, even where all can be.

    Raises:
      ValueError: fewer items than conditions.
    """
    count = len(weights)
    if items < count:
        raise ValueError(
            f"batch_size is {items}, for {count} conditions: it must be at least {count}"
        )
    unit = 2 if items % 2 == 0 and items >= 2 * count else 1
    exact = np.asarray(weights, float) / sum(weights) * (items // unit)
    sizes = np.maximum(np.floor(exact).astype(int), 1)
    while sizes.sum() > items // unit:
        sizes[np.argmax(np.where(sizes > 1, sizes - exact, -np.inf))] -= 1
    while sizes.sum() < items // unit:
        sizes[np.argmax(exact - sizes)] += 1
    return tuple(int(size) * unit for size in sizes)
