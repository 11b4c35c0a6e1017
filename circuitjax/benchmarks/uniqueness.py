"""How many circuits does a task have? Searches one after another, each without what was found before.

    circuit 1      the search as it is
    circuit i      the same search in the model without the gates of circuits 1 to i - 1
    once more      where that misses the target: with as many of those gates, the most useful ones, as
                   two circuits may share and still count as different
    end            where that misses it too, or after J circuits

Two circuits are *different* if the Jaccard index of their open gates is at most 0.2. Gates of earlier
circuits are closed outright, rather than made dearer: a price per gate would be one more coefficient,
too low wherever a search pays it and the same as closing where it is high; and elimination and cut,
which decide what stays, know no prices. What closing alone would miss are circuits with a bottleneck in
common; the second try is for these. So the number found is a lower bound: a circuit that the search does
not find is not shown to be absent.

Plain seeds of the same search stand beside: how different circuits are if nothing makes them so.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from circuitjax.audit.checks import loose_loss
from circuitjax.audit.measure import Measure, Variants, measure_of, members
from circuitjax.audit.polish import polish
from circuitjax.audit.reruns import jaccard
from circuitjax.benchmarks.without import problem_without
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.schema import from_json
from circuitjax.prune.candidates import candidates_of, certified, empty_candidate, pick
from circuitjax.prune.config import Hyper
from circuitjax.prune.cut import scouts
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import answers, gate_slopes
from circuitjax.prune.find import as_circuit
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import Job

__all__ = ["DIFFERENT", "MOST", "Found", "Group", "Jobs", "Uniqueness", "different", "uniqueness"]

#: Two circuits whose gates have at most this Jaccard index are different.
DIFFERENT = 0.2
#: Circuits of a group, at most: the largest set of different ones is looked for, one by one.
MOST = 16

Jobs = Callable[[int, int], Sequence[Job]]


@dataclasses.dataclass(frozen=True)
class Found:
    """One circuit; losses in nats on test items, of the kind that the search aims at.

    Attributes:
      how: `plain`, `without` the earlier ones, or `sharing` some gates with them.
      seed: of gates and batches.
      parts: names of its open gates, sorted.
      reached: whether it meets the target on validation.
      loss: of the circuit, everything else closed.
      loss_own: of its gates that none of the others of its group has, alone.
      loss_without: of the whole model without it. Both are measured once all are found.
    """

    how: str
    seed: int
    parts: tuple[str, ...]
    reached: bool
    loss: float
    loss_own: float | None = None
    loss_without: float | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """Circuits side by side.

    Attributes:
      circuits: in the order they were found.
      overlaps: Jaccard index of every two, `[n, n]`.
      different: positions of the most circuits that meet the target and are mutually different.
      shared, together: sizes of the intersection and the union of those that meet the target.
      loss_shared, loss_together: of these alone, in nats on test items.
    """

    circuits: tuple[Found, ...]
    overlaps: tuple[tuple[float, ...], ...]
    different: tuple[int, ...]
    shared: int
    together: int
    loss_shared: float
    loss_together: float


@dataclasses.dataclass(frozen=True)
class Uniqueness:
    """What was found of a task in a model.

    Attributes:
      apart: circuits each found without the gates of those before it.
      plain: circuits of seeds of the plain search.
      target: nats, on validation.
      suffices: nats that a set may have on test items to be called sufficient; see `audit.checks`.
      loss_empty, loss_whole: of the empty circuit and of the whole model, nats on test items.
    """

    apart: Group
    plain: Group
    target: float
    suffices: float
    loss_empty: float
    loss_whole: float

    @property
    def count(self) -> int:
        """How many mutually different circuits were found."""
        return len(self.apart.different)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, with the count beside."""
        return {**dataclasses.asdict(self), "count": self.count}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str) -> "Uniqueness":
        """What `to_dict` gave, back.

        Raises:
          ValueError: a field that is missing or of another type; the line begins with `where`.
        """
        own = [field.name for field in dataclasses.fields(cls)]
        return from_json(cls, {name: fields[name] for name in own if name in fields}, where)


def different(sets: Sequence[frozenset[str]], most: float = DIFFERENT) -> tuple[int, ...]:
    """Positions of the largest collection of mutually different sets; of equal ones the first.

    Raises:
      ValueError: more than 16 sets.
    """
    if len(sets) > MOST:
        raise ValueError(f"{len(sets)} circuits are too many to compare: at most {MOST}")
    far = [[jaccard(a, b) <= most for b in sets] for a in sets]
    for size in range(len(sets), 1, -1):
        for chosen in itertools.combinations(range(len(sets)), size):
            if all(far[i][j] for i, j in itertools.combinations(chosen, 2)):
                return chosen
    return (0,) if sets else ()


class _Run:
    """The model, the search, and what is known of them."""

    def __init__(self, problem: Problem, search: Search, jobs: Jobs, polished: bool) -> None:
        self.problem, self.search, self.jobs, self.polished = problem, search, jobs, polished
        self.names = problem.whole.names()
        self.measure: Measure | None = None

    def find(self, seed: int, closed: np.ndarray, how: str) -> tuple[Found, Circuit]:
        """The circuit of one seed, in the model without the closed gates bool `[G]`."""
        problem, search = self.problem, self.search
        if closed.any():
            problem = problem_without(problem, closed)
        jobs = self.jobs(seed, int(problem.whole.exists().sum()))
        state = train_gates(problem, search, initial_state(problem, search, jobs))
        best, _ = certified(
            problem, search, pick(candidates_of(problem, search, jobs, state), search)
        )
        circuit, reached = as_circuit(problem, best, {}), best.choice.reached
        if self.polished and reached and circuit.num_nodes:
            circuit = polish(self.problem, search, circuit)
        parts = tuple(sorted(members(circuit)))
        return Found(how, seed, parts, reached, self.loss_of(circuit)), circuit

    def loss_of(self, circuit: Circuit) -> float:
        """On test items, under the calibration that is best on validation items."""
        measure = self.measure = measure_of(self.problem, self.search, circuit)
        variants = Variants(self.problem, circuit.view(self.problem.model), measure.kind)
        sets = [variants.asked(some) for some in (self.problem.validation, self.problem.test)]
        found = [variants.answers(asked, variants.gates[None]) for asked in sets]
        return float(measure.losses(found[1], measure.fit(found[0]))[0])

    def losses(self, sets: Sequence[frozenset[str]]) -> list[float]:
        """Likewise, of the whole model with just some gates open."""
        problem, measure = self.problem, self.measure
        assert measure is not None, "a circuit comes first"
        rows = np.stack([self.gates(parts) for parts in sets])
        found = [
            answers(problem.whole, problem.batches, some, rows, full=measure.full)
            for some in (problem.validation, problem.test)
        ]
        return [float(x) for x in measure.losses(found[1], measure.fit(found[0]))]

    def gates(self, parts: frozenset[str] | tuple[str, ...]) -> np.ndarray:
        """bool `[G]` of parts by name."""
        chosen = frozenset(parts)
        return np.array([name in chosen for name in self.names])

    def reopened(self, closed: np.ndarray, smallest: int) -> np.ndarray:
        """The closed gates without those that a circuit may share and still be different.

        A circuit of n gates that shares m with one as large has a Jaccard index of m / (2n - m).
        """
        count = int(2 * DIFFERENT / (1 + DIFFERENT) * smallest)
        kind = "kl" if self.search.selection.target == "kl" else "task"
        some = scouts(self.problem, self.problem.train)
        slope = gate_slopes(self.problem, ~closed, some, kind, loss=self.search.choices.loss)
        order = np.argsort(np.where(closed, slope, np.inf), kind="stable")
        left = closed.copy()
        left[order[:count]] = False
        return left

    def group(self, circuits: Sequence[Found]) -> Group:
        """What circuits have in common, and what that does."""
        sets = [frozenset(one.parts) for one in circuits]
        good = [i for i, one in enumerate(circuits) if one.reached]
        every = frozenset(self.names)
        shared = frozenset.intersection(*(sets[i] for i in good)) if good else frozenset()
        union = frozenset().union(*(sets[i] for i in good))
        own = [
            one.difference(*(other for j, other in enumerate(sets) if j != i))
            for i, one in enumerate(sets)
        ]
        asked = [shared, union, *own, *(every - one for one in sets)]
        losses = self.losses(asked)
        alone, rest = losses[2 : 2 + len(sets)], losses[2 + len(sets) :]
        chosen = different([sets[i] for i in good])
        return Group(
            circuits=tuple(
                dataclasses.replace(one, loss_own=a, loss_without=b)
                for one, a, b in zip(circuits, alone, rest, strict=True)
            ),
            overlaps=tuple(tuple(jaccard(a, b) for b in sets) for a in sets),
            different=tuple(good[i] for i in chosen),
            shared=len(shared),
            together=len(union),
            loss_shared=losses[0],
            loss_together=losses[1],
        )


def uniqueness(
    problem: Problem,
    search: Search,
    jobs: Jobs,
    count: int,
    *,
    seed: int = 0,
    polished: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Uniqueness:
    """Looks for mutually different circuits of a task.

    Args:
      problem: model and data.
      search: cut to a loss or a KL. Parts that are not needed would take the next circuit's away, so it
        should eliminate.
      jobs: (seed, number of gates) -> what is tried.
      count: J, circuits at most, and plain seeds.
      seed: of the first; each circuit has the next.
      polished: whether circuits are polished.
      say: told of each circuit.

    Raises:
      ValueError: a search that is cut to a size, a J out of range, or an empty circuit that does.
    """
    if not search.selection.is_loss:
        raise ValueError(
            f"the search is cut to {search.selection.target}, but circuits are compared at equal loss: "
            "give target_loss or target_kl"
        )
    if not 1 <= count <= MOST:
        raise ValueError(f"the number of circuits is {count}; it must be from 1 to {MOST}")
    empty = empty_candidate(problem, search, Job(seed, Hyper()))
    if empty.choice.reached:
        raise ValueError(
            f"the empty circuit meets the target of {search.selection.value:g} nats: there is nothing "
            "to find; ask for less"
        )
    run = _Run(problem, search, jobs, polished)
    nothing = np.zeros(len(run.names), bool)
    plain: list[Found] = []

    def told(found: Found) -> Found:
        line = "meets the target" if found.reached else "misses the target"
        say(
            f"{found.how}, seed {found.seed}: {len(found.parts)} parts, {found.loss:.3f} nats, {line}"
        )
        return found

    for turn in range(count):
        plain.append(told(run.find(seed + turn, nothing, "plain")[0]))
    # The first is a plain one that meets the target, where there is one.
    first = next((one for one in plain if one.reached), plain[0])
    apart = [first]
    closed = run.gates(first.parts)
    while first.reached and len(apart) < count:
        own_seed = seed + len(apart)
        found = told(run.find(own_seed, closed, "without")[0])
        if not found.reached:
            smallest = min(len(one.parts) for one in apart)
            left = run.reopened(closed, smallest)
            found = told(run.find(own_seed, left, "sharing")[0])
        overlap = max(jaccard(frozenset(found.parts), frozenset(one.parts)) for one in apart)
        if not found.reached or overlap > DIFFERENT:
            break
        apart.append(found)
        closed |= run.gates(found.parts)
    loss_empty, loss_whole = run.losses([frozenset(), frozenset(run.names)])
    target = search.selection.value
    return Uniqueness(
        apart=run.group(apart),
        plain=run.group(plain),
        target=target,
        suffices=loose_loss(target) if search.selection.target == "loss" else 2 * target,
        loss_empty=loss_empty,
        loss_whole=loss_whole,
    )
