"""The space that is searched: each dimension of it mapped to basic units around the search centre.

    linear   basic = (x - centre) / scale
    log      basic = (log10 x - log10 centre) / scale
    logit    basic = (log10 odds(x) - log10 odds(centre)) / scale,   odds(x) = x / (1 - x)

so a step of one basic unit changes x by `scale`, by `scale` decades, or its odds by `scale` decades,
and the search centre is the origin. Distances, radii and length scales are all in basic units.

Axes: D dimensions, M points.
Source: Fetterman et al. 2023 (arXiv 2306.08055), section 3.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

__all__ = ["Dimension", "Space"]

KINDS = ("linear", "log", "logit")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One parameter of what is optimised.

    Attributes:
      name: the parameter's.
      kind: `linear`, `log` (positive values) or `logit` (values between 0 and 1, both excluded).
      centre: where the search starts.
      minimum: lowest value that is ever proposed.
      maximum: highest.
      scale: size of a basic unit: in the parameter's own unit (linear), in decades (log), in decades
        of the odds (logit).
      integer: whether values are whole numbers.
      rounding: of an integer dimension, what its values, bounds and centre are multiples of.

    Raises:
      ValueError: bounds in the wrong order or outside the kind's domain, a centre outside of them, a
        number that is not finite.
    """

    name: str
    kind: Literal["linear", "log", "logit"]
    centre: float
    minimum: float
    maximum: float
    scale: float = 1.0
    integer: bool = False
    rounding: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a dimension's name is {self.name!r}; it must be a non-empty string")
        if self.kind not in KINDS:
            raise ValueError(
                f"{self.name}: kind is {self.kind!r}; choose one of {', '.join(KINDS)}"
            )
        for field in ("centre", "minimum", "maximum", "scale"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{self.name}: {field} is {value!r}; it must be a number")
            if not math.isfinite(value):
                raise ValueError(f"{self.name}: {field} is {value}; it must be finite")
        if self.scale <= 0:
            raise ValueError(f"{self.name}: scale is {self.scale}; it must be above 0")
        if self.minimum >= self.maximum:
            raise ValueError(
                f"{self.name}: minimum is {self.minimum} and maximum {self.maximum}; "
                "the minimum must be the lower one"
            )
        if not self.minimum <= self.centre <= self.maximum:
            raise ValueError(
                f"{self.name}: centre is {self.centre}; it must be within the bounds "
                f"[{self.minimum}, {self.maximum}]"
            )
        if self.kind != "linear" and self.minimum <= 0:
            raise ValueError(
                f"{self.name}: minimum is {self.minimum}; a {self.kind} dimension's must be above 0"
            )
        if self.kind == "logit" and self.maximum >= 1:
            raise ValueError(
                f"{self.name}: maximum is {self.maximum}; a logit dimension's must be below 1"
            )
        if self.integer and self.kind == "logit":
            raise ValueError(f"{self.name}: there is no whole number between 0 and 1; choose log")
        if type(self.rounding) is not int or self.rounding < 1:
            raise ValueError(
                f"{self.name}: rounding is {self.rounding!r}; it must be a whole number above 0"
            )
        if self.integer:
            for field in ("centre", "minimum", "maximum"):
                value = getattr(self, field)
                if value % self.rounding:
                    raise ValueError(
                        f"{self.name}: {field} is {value}; it must be a multiple of {self.rounding}"
                    )
        elif self.rounding != 1:
            raise ValueError(f"{self.name}: only an integer dimension has a rounding")

    def to_basic(self, values: np.ndarray) -> np.ndarray:
        """Values in the parameter's unit to basic units, elementwise."""
        return (_forward(self.kind, values) - self._origin()) / self.scale

    def from_basic(self, basic: np.ndarray) -> np.ndarray:
        """Basic units to values within the bounds, rounded where the dimension is an integer."""
        with np.errstate(over="ignore"):
            values = _backward(self.kind, self._origin() + self.scale * np.asarray(basic, float))
        if self.integer:
            values = np.round(np.clip(values, self.minimum, self.maximum) / self.rounding)
            values = values * self.rounding
        return np.clip(values, self.minimum, self.maximum)

    def _origin(self) -> float:
        return float(_forward(self.kind, np.asarray(self.centre, float)))


def _forward(kind: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if kind == "linear":
        return values
    return np.log10(values) - (np.log10(1 - values) if kind == "logit" else 0.0)


def _backward(kind: str, values: np.ndarray) -> np.ndarray:
    if kind == "linear":
        return values
    if kind == "log":
        return np.power(10.0, values)
    return 1 / (1 + np.power(10.0, -values))


@dataclasses.dataclass(frozen=True)
class Space:
    """All dimensions.

    Raises:
      ValueError: no dimension, or two of one name.
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        if not self.dimensions:
            raise ValueError("the space has no dimension: give at least one")
        for name in self.names:
            if self.names.count(name) > 1:
                raise ValueError(f"the space has two dimensions named {name!r}: rename one")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the dimensions, in their order."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def centre(self) -> dict[str, float | int]:
        """The parameters the search starts from."""
        return {d.name: _number(d, d.centre) for d in self.dimensions}

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(lowest, highest) in basic units, each `[D]`."""
        low = [float(d.to_basic(np.asarray(d.minimum))) for d in self.dimensions]
        high = [float(d.to_basic(np.asarray(d.maximum))) for d in self.dimensions]
        return np.array(low), np.array(high)

    def to_basic(self, params: Mapping[str, float]) -> np.ndarray:
        """A point in basic units, `[D]`.

        Raises:
          ValueError: a parameter that is missing, unknown, or outside its bounds.
        """
        for name in params:
            if name not in self.names:
                raise ValueError(f"{name!r} is no dimension of the space: {', '.join(self.names)}")
        point = []
        for d in self.dimensions:
            if d.name not in params:
                raise ValueError(f"the value of {d.name!r} is missing")
            value = params[d.name]
            if not d.minimum <= value <= d.maximum:
                raise ValueError(f"{d.name} is {value}; it must be in [{d.minimum}, {d.maximum}]")
            point.append(float(d.to_basic(np.asarray(value))))
        return np.array(point)

    def from_basic(self, basic: np.ndarray) -> dict[str, float | int]:
        """The parameters of a point `[D]`: clipped into the bounds, integers rounded."""
        return {
            d.name: _number(d, float(d.from_basic(value)))
            for d, value in zip(self.dimensions, basic, strict=True)
        }

    def snap(self, basic: np.ndarray) -> np.ndarray:
        """Points `[M, D]` moved to where their parameters lie: within bounds, integers rounded."""
        snapped = np.clip(basic, *self.bounds())
        for i, d in enumerate(self.dimensions):
            if d.integer:
                snapped[:, i] = d.to_basic(d.from_basic(snapped[:, i]))
        return snapped

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {"dimensions": [dataclasses.asdict(d) for d in self.dimensions]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Space":
        """The inverse of `to_dict`."""
        return cls(tuple(Dimension(**dimension) for dimension in fields["dimensions"]))


def _number(dimension: Dimension, value: float) -> float | int:
    return round(value) if dimension.integer else float(value)
