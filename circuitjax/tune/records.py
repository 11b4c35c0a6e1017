"""What a search is made of, as immutable values, and its form as JSON.

A `State` holds everything: configuration, space, seed, what was suggested and what came back. There is
no generator of random numbers in it: suggestion n draws from a key made of (seed, n), so a search that
was stopped and read back goes on as if nothing had happened.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from circuitjax.core.files import cut, parse_json
from circuitjax.core.records import opened, seal
from circuitjax.tune.space import Space

__all__ = [
    "CarbsConfig",
    "Measured",
    "Observation",
    "State",
    "Suggestion",
    "from_json",
    "measured",
    "to_json",
]

FORMAT = "circuitjax.carbs.2"
_OLDER = ("circuitjax.carbs.1",)  # without a hash
Origin = Literal["centre", "first", "model", "remeasure"]
_ORIGINS = ("centre", "first", "model", "remeasure")


@dataclasses.dataclass(frozen=True)
class CarbsConfig:
    """How to search; the defaults are the published ones where those exist.

    Attributes:
      radius: standard deviation of draws around the centre and around the front, in basic units.
      first_samples: suggestions before any model: the centre itself, then draws around it. A model
        also waits for two successful runs.
      candidates_per_dimension: candidates drawn for a suggestion, per dimension of the space.
      remeasure_every: one suggestion in so many re-measures a setting of the front; 0 never.
      most_runs: a setting measured so often is not measured again; nor is one whose output came out
        the same twice, since it has no noise.
      max_cost: settings predicted to cost more are not suggested; None is no limit.
      cost_tolerance: costs whose ratio is at most one plus this count as equal.
      cheapest_left: candidates are not drawn around this part of the runs, the cheapest, where much of
        a wide front lies and little is to be won.
      cost_reach: the random limit on a suggestion's cost goes up to so many times the front's dearest.
    """

    radius: float = 0.3
    first_samples: int = 4
    candidates_per_dimension: int = 100
    remeasure_every: int = 5
    most_runs: int = 5
    max_cost: float | None = None
    cost_tolerance: float = 0.1
    cheapest_left: float = 0.2
    cost_reach: float = 2.0

    def __post_init__(self) -> None:
        for name, lowest in (
            ("first_samples", 1),
            ("candidates_per_dimension", 1),
            ("remeasure_every", 0),
            ("most_runs", 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < lowest:
                raise ValueError(f"{name} is {cut(value)}; it must be a whole number from {lowest}")
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius is {self.radius}; it must be in (0, inf) basic units")
        if self.max_cost is not None and not 0 < self.max_cost < math.inf:
            raise ValueError(f"max_cost is {self.max_cost}; it must be in (0, inf), or None")
        if not 0 <= self.cost_tolerance < math.inf:
            raise ValueError(f"cost_tolerance is {self.cost_tolerance}; it must be in [0, inf)")
        if not 0 <= self.cheapest_left < 1:
            raise ValueError(f"cheapest_left is {self.cheapest_left}; it must be in [0, 1)")
        if not 1 <= self.cost_reach < math.inf:
            raise ValueError(f"cost_reach is {self.cost_reach}; it must be in [1, inf)")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A setting to run.

    Attributes:
      id: 0, 1, 2, ... in the order asked.
      params: a value for every dimension, read only.
      origin: why it was suggested: the search centre, one of the first draws around it (or a wider
        draw while there is nothing to model), the model's choice, or a setting of the front again.
    """

    id: int
    params: Mapping[str, float | int]
    origin: Origin

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {"id": self.id, "params": dict(self.params), "origin": self.origin}


@dataclasses.dataclass(frozen=True)
class Observation:
    """What came of a suggestion.

    Attributes:
      id: the suggestion's.
      output: to be minimised; None if and only if the run failed.
      cost: above 0, in any unit; of failed runs too.
      failed: whether there is no output to speak of.

    Raises:
      ValueError: an output or cost that is not finite, a cost that is not above 0, a failure with an
        output or a success without.
    """

    id: int
    output: float | None
    cost: float
    failed: bool = False

    def __post_init__(self) -> None:
        if type(self.id) is not int:
            raise ValueError(f"an observation's id is {cut(self.id)}; it must be a suggestion's")
        if not isinstance(self.failed, bool | np.bool_):
            raise ValueError(
                f"observation {self.id}: failed is {cut(self.failed)}; it is true or false"
            )
        object.__setattr__(self, "failed", bool(self.failed))
        object.__setattr__(self, "cost", self._number("cost", self.cost))
        if self.cost <= 0:
            raise ValueError(f"observation {self.id}: cost is {self.cost}; it must be above 0")
        if self.failed:
            if self.output is not None:
                raise ValueError(
                    f"observation {self.id}: a failed run has no output, this has {cut(self.output)}"
                )
        elif self.output is None:
            raise ValueError(f"observation {self.id}: no output; tell a failed run by failed=True")
        else:
            object.__setattr__(self, "output", self._number("output", self.output))

    def _number(self, field: str, value: Any) -> float:
        try:
            if isinstance(value, bool | str):  # float("nan") and float(True) are numbers to Python
                raise TypeError
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"observation {self.id}: {field} is {cut(value)}; it must be a number"
            ) from None
        if not math.isfinite(number):
            mend = "; tell a failed run by failed=True" if field == "output" else ""
            raise ValueError(f"observation {self.id}: {field} is {number}; it must be finite{mend}")
        return number

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class State:
    """A search at one moment.

    Attributes:
      config: how to search.
      space: where.
      seed: of all random numbers.
      suggestions: all that were ever asked for; a suggestion's id is its index.
      observations: all that came back, by id.
    """

    config: CarbsConfig
    space: Space
    seed: int
    suggestions: tuple[Suggestion, ...] = ()
    observations: tuple[Observation, ...] = ()

    @property
    def pending(self) -> tuple[Suggestion, ...]:
        """Asked for and not come back yet."""
        told = {observation.id for observation in self.observations}
        return tuple(s for s in self.suggestions if s.id not in told)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One setting with all its runs that came back.

    Attributes:
      params: the setting.
      output: mean over its successful runs.
      cost: mean over them.
      runs: how many came back.
      failures: how many of them failed.
      ids: of the suggestions.
    """

    params: Mapping[str, float | int]
    output: float
    cost: float
    runs: int
    failures: int
    ids: tuple[int, ...]


def measured(state: State) -> tuple[Measured, ...]:
    """Every setting at least half of whose runs succeeded, in the order of its first suggestion."""
    groups: dict[tuple[float | int, ...], list[Observation]] = {}
    for seen in state.observations:
        params = state.suggestions[seen.id].params
        groups.setdefault(tuple(params[name] for name in state.space.names), []).append(seen)
    found = []
    for runs in groups.values():
        good = [run for run in runs if not run.failed]
        if good and 2 * len(good) >= len(runs):
            found.append(
                Measured(
                    params=state.suggestions[runs[0].id].params,
                    output=math.fsum(run.output or 0.0 for run in good) / len(good),
                    cost=math.fsum(run.cost for run in good) / len(good),
                    runs=len(runs),
                    failures=len(runs) - len(good),
                    ids=tuple(run.id for run in runs),
                )
            )
    return tuple(found)


def to_json(state: State) -> str:
    """The whole state, sealed; `from_json` gives back an equal one."""
    fields = {
        "format": FORMAT,
        "config": state.config.to_dict(),
        "space": state.space.to_dict(),
        "seed": state.seed,
        "suggestions": [suggestion.to_dict() for suggestion in state.suggestions],
        "observations": [observation.to_dict() for observation in state.observations],
    }
    return json.dumps(seal(fields), indent=1, allow_nan=False) + "\n"


def from_json(text: str, config: CarbsConfig, space: Space) -> State:
    """Reads a state that `to_json` wrote.

    Args:
      text: the JSON.
      config: what the search is to go on with.
      space: likewise.

    Raises:
      ValueError: text that is broken or was changed, or a state of another config or space: the first
        difference.
    """
    named = "the state of the search"
    fields = parse_json(text, named)
    if not isinstance(fields, dict):
        raise ValueError(f"this is no state of a search: its format is not {cut(FORMAT)}")
    fields = opened(fields, named, FORMAT, _OLDER)
    held = fields.get("config"), fields.get("space")
    for what, theirs, ours in zip(
        ("config", "space"), held, (config.to_dict(), space.to_dict()), strict=True
    ):
        where = _difference(theirs, json.loads(json.dumps(ours)), what)
        if where is not None:
            raise ValueError(
                f"the state was written with another {what}: {where}; go on with the same {what}, "
                "or start a new search"
            )
    try:
        state = State(
            config=config,
            space=space,
            seed=fields["seed"],
            suggestions=tuple(Suggestion(**one) for one in fields["suggestions"]),
            observations=tuple(Observation(**one) for one in fields["observations"]),
        )
        _check(state)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the state of the search is broken: {reason}") from None
    return state


def _difference(theirs: Any, ours: Any, where: str) -> str | None:
    """The first place where two JSON values differ, as words; None where they are equal."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*ours, *theirs]:
            if key not in theirs or key not in ours:
                return f"{where}.{key} is on one side only"
            found = _difference(theirs[key], ours[key], f"{where}.{key}")
            if found is not None:
                return found
        return None
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = enumerate(zip(theirs, ours, strict=True))
        found_each = (_difference(a, b, f"{where}[{i}]") for i, (a, b) in pairs)
        return next((found for found in found_each if found is not None), None)
    same = theirs == ours and isinstance(theirs, bool) == isinstance(ours, bool)
    return None if same else f"{where} was {cut(theirs)} and is {cut(ours)}"


def _check(state: State) -> None:
    """Raises ValueError for what `ask` and `tell` could not have made."""
    if type(state.seed) is not int:
        raise ValueError(f"seed is {cut(state.seed)}")
    for i, suggestion in enumerate(state.suggestions):
        if (
            type(suggestion.id) is not int
            or suggestion.id != i
            or suggestion.origin not in _ORIGINS
        ):
            raise ValueError(
                f"suggestion {i} has id {cut(suggestion.id)}, origin {cut(suggestion.origin)}"
            )
        state.space.to_basic(suggestion.params)
    check_ids(state, state.observations)


def check_ids(state: State, observations: Sequence[Observation]) -> None:
    """Raises ValueError for ids that were never suggested, or that come twice."""
    seen: set[int] = set()
    for observation in observations:
        if not 0 <= observation.id < len(state.suggestions):
            raise ValueError(
                f"there is no suggestion {observation.id}: {len(state.suggestions)} were made"
            )
        if observation.id in seen:
            raise ValueError(f"suggestion {observation.id} is told twice")
        seen.add(observation.id)
