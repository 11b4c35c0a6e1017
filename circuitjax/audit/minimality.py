"""Does each part of a circuit do more than a random part would? The minimality test of Shi et al. 2024.

    change of a part     d(part, set) = mean |odds of the set - odds of the set without the part|, nats
    inflated circuit     the circuit and as many random closed parts, of which one that lies on a path
                         from input to output is closed again
    H0 of a part         its change in the circuit is one of a random part in an inflated circuit

        p = (1 + inflated circuits whose random part changes as much) / (1 + inflated circuits)

A circuit is minimal in this sense if H0 is rejected for every part; how many it is rejected for is the
figure, at a false discovery rate of 5% over the parts. The random parts are added in the sites of the
layers that the circuit has parts in, in the same proportions. Odds are the circuit's calibrated ones, on
few items: the parts are what is sampled, and all changes are taken on the same items.

Reference: Shi et al. 2024, "Hypothesis testing the circuit hypothesis in LLMs", section 3, with a rank
test against the random parts in place of a quantile of theirs.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from circuitjax.audit.measure import Measure, Variants, share_of
from circuitjax.audit.record import Minimality
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.statistics import adjusted, clopper_pearson
from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.prune.evaluate import Asked, answered
from circuitjax.prune.problem import Problem, batches_of

__all__ = ["INFLATED", "Inflated", "inflated_sets", "minimality", "part_changes", "random_changes"]

INFLATED = 100  # inflated circuits: the least p is then 1 / 101
_PARTS = 96  # of the circuit that are closed one by one; of more, a random sample
_ITEMS = 8  # on which changes are compared
_TRIES = 20  # inflated circuits without an added part on a path, in a row, before more is added
_LEVEL = 0.05


class Inflated(NamedTuple):
    """An inflated circuit: open gates bool `[G]`, and the added one that is closed again."""

    gates: np.ndarray
    part: int


def inflated_sets(model: GatedModel, gates: np.ndarray, seed: int) -> Iterator[Inflated]:
    """Random inflated circuits, without end; ends where no part that is added lies on a path.

    Where too many in a row have no part to close (single weights rarely meet), twice as many parts are
    added from then on.

    Args:
      model: of any grain.
      gates: bool `[G]` of the circuit.
      seed: of the draws.
    """
    rng, groups = np.random.default_rng([seed, 11]), model.groups()
    places = []
    for number in np.unique(groups[groups >= 0]):
        group = np.flatnonzero(groups == number)
        places.append((group[~gates[group]], int(gates[group].sum())))
    misses, times = 0, 1
    while True:
        if misses == _TRIES:
            if all(times * count >= len(closed) for closed, count in places if count):
                return
            misses, times = 0, 2 * times
        more = gates.copy()
        for closed, count in places:
            added = rng.choice(closed, min(times * count, len(closed)), replace=False)
            more[added] = True
        added = np.flatnonzero(model.alive(more) & more & ~gates)
        if not len(added):
            misses += 1
            continue
        misses = 0
        yield Inflated(more, int(rng.choice(added)))


def _change(odds: np.ndarray, without: np.ndarray) -> np.ndarray:
    return np.abs(odds - without).mean(axis=-1)


def random_changes(
    model: GatedModel, asked: Asked, sets: list[Inflated], scale: float = 1.0
) -> np.ndarray:
    """Change `[K]` of the random part of each of K inflated circuits, nats."""
    rows = np.stack([one.gates for one in sets])
    without = rows.copy()
    without[np.arange(len(sets)), [one.part for one in sets]] = False
    both = answered(model, asked, np.concatenate([rows, without])).odds
    return scale * _change(both[: len(sets)], both[len(sets) :])


def part_changes(
    variants: Variants, asked: Asked, parts: np.ndarray, scale: float = 1.0
) -> np.ndarray:
    """Change `[K]` of each of K open gates of a circuit, nats."""
    rows = np.broadcast_to(variants.gates, (len(parts) + 1, variants.gates.size)).copy()
    rows[np.arange(len(parts)), parts] = False
    odds = variants.answers(asked, rows).odds
    return scale * _change(odds[-1], odds[:-1])


def minimality(
    problem: Problem,
    measure: Measure,
    circuit: Circuit,
    examples: Examples,
    *,
    inflated: int = INFLATED,
    most: int = _PARTS,
    seed: int = 0,
) -> Minimality | str:
    """Tests each part of a circuit, of any grain.

    Args:
      problem: the model.
      measure: whether circuits are calibrated.
      circuit: of that model.
      examples: to measure on; the first few items of them.
      inflated: inflated circuits.
      most: parts that are tested; of more, a random sample.
      seed: of parts and inflated circuits.

    Returns:
      The figures, or why there are none.
    """
    view = circuit.view(problem.model)
    model, gates = view
    sets = list(itertools.islice(inflated_sets(model, gates, seed), inflated))
    if len(sets) < inflated:
        return "no random closed part lies on a path from input to output beside the circuit"
    few = problem.batches.some(examples, share_of(model, _ITEMS))
    variants = Variants(problem, view, "task")
    scale = circuit.scale if measure.kind == "calibrated" else 1.0
    asked = variants.asked(few)
    random = random_changes(model, Asked(model, batches_of(model), few), sets, scale)
    parts = np.flatnonzero(gates & model.exists())
    tested = parts
    if len(parts) > most:
        chosen = np.random.default_rng([seed, 12]).choice(len(parts), most, replace=False)
        tested = parts[np.sort(chosen)]
    changes = part_changes(variants, asked, tested, scale)
    larger = (random[None, :] >= changes[:, None]).sum(axis=1)
    values = (1 + larger) / (1 + len(random))
    needed = int(np.sum(np.array(adjusted(list(values))) <= _LEVEL))
    low = high = None
    if len(tested) < len(parts):
        low, high = clopper_pearson(needed, len(tested))
    names = model.names()
    return Minimality(
        tested=len(tested),
        parts=len(parts),
        inflated=len(sets),
        needed=needed / len(tested),
        low=low,
        high=high,
        random=float(np.median(random)),
        p={names[part]: round(float(p), 6) for part, p in zip(tested, values, strict=True)},
    )
