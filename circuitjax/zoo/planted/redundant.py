"""Planted models that do one task in one, two or three ways that share nothing.

Each way is a head in a layer of its own: it finds a place by its position and copies the class of the
token there to the answer. The whole model has the margin of all of them together, so each alone has that
of any planted model. The answer to "how many circuits are there?" is thus the number of ways: a circuit
may be put together of parts of two, but not without a whole one.
"""

import dataclasses
import functools
from collections.abc import Callable

from circuitjax.zoo.planted.draft import MARGIN, Draft, Planted
from circuitjax.zoo.planted.models import SCORE, SLOTS, features, one_decides, place_channel

__all__ = ["redundant_models"]

Ways = tuple[Planted, ...]
_LAYERS = 3


def _ways(count: int, name: str, seed: int) -> Ways:
    draft = Draft(name, seed, _LAYERS)
    layers = sorted(int(i) for i in draft.rng.choice(_LAYERS, count, replace=False))
    slot = int(draft.rng.integers(1, SLOTS))
    feature, place = features(draft), place_channel(draft, slot + 1)
    weights: list[dict[tuple[str, str], float]] = []
    edges: list[list[str]] = []
    for layer in layers:
        before, head = set(draft.weights), draft.head()
        draft.attend(layer, head, draft.at_end, place, SCORE)
        draft.move(layer, head, [feature], draft.answer, scale=1.0)
        weights.append({k: v for k, v in draft.weights.items() if k not in before})
        edges.append([f"embed->a{layer}.h{head}<v>", f"a{layer}.h{head}->logits"])
    every = draft.finish(
        [edge for way in edges for edge in way],
        lambda rng, filler: one_decides(rng, filler, slot, True),
        margin=count * MARGIN,
    )
    return tuple(
        dataclasses.replace(
            every,
            nodes=tuple(sorted({node for pair in own for node in pair})),
            weights=tuple(sorted(own)),
            edges=tuple(sorted(links)),
        )
        for own, links in zip(weights, edges, strict=True)
    )


def one_way(seed: int) -> Ways:
    """A single circuit."""
    return _ways(1, "one_way", seed)


def two_ways(seed: int) -> Ways:
    """Two circuits without a part in common."""
    return _ways(2, "two_ways", seed)


def three_ways(seed: int) -> Ways:
    """Three of them."""
    return _ways(3, "three_ways", seed)


def redundant_models() -> tuple[Callable[[int], Ways], ...]:
    """Every builder: a function of a seed that gives the circuits of one model."""
    return _BUILDERS


_BUILDERS = tuple(
    functools.lru_cache(maxsize=8)(build) for build in (one_way, two_ways, three_ways)
)
