"""One check: a figure beside its threshold; and the same of a hypothesis test."""

import dataclasses
import math
from typing import Any

from circuitjax.audit.record import Hypothesis, Interval

__all__ = ["LEVEL", "Check", "checked", "ends_of"]

LEVEL = 0.05  # of every test


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes:
      group: what it is evidence of.
      name: what is measured, unique.
      figure: the value; None where it could not be taken.
      threshold: what it is held to.
      at_most: whether the figure must not exceed the threshold, rather than reach it.
      unit: of both.
      note: why it is missing, or what to know of it.
      low, high: interval of the figure at 95%, where it has one.
    """

    group: str
    name: str
    figure: float | None
    threshold: float
    at_most: bool = True
    unit: str = "nats"
    note: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether it holds; None where there is no figure."""
        if self.figure is None or math.isnan(self.figure):
            return None
        return self.figure <= self.threshold if self.at_most else self.figure >= self.threshold

    def to_dict(self) -> dict[str, Any]:
        """For the report; a figure that is not finite becomes null."""
        fields = dataclasses.asdict(self)
        for name in ("figure", "low", "high"):
            if fields[name] is not None and not math.isfinite(fields[name]):
                fields[name] = None
        return {**fields, "passed": self.passed}


def ends_of(interval: Interval | None) -> dict[str, Any]:
    """An interval as fields of a check; None where there is none."""
    return {} if interval is None else {"low": interval[0], "high": interval[1]}


def checked(group: str, name: str, test: Hypothesis | None, **more: Any) -> Check:
    """A check of a p-value, the adjusted one where there are several; it lacks in older records."""
    if test is None:
        return Check(group, name, None, LEVEL, unit="p", **({"note": "not tested"} | more))
    p = test.p if test.adjusted is None else test.adjusted
    corrected = "" if test.adjusted is None else f"p={test.p:.3g} before correction; "
    more = {"note": f"{corrected}{test.note}", **more}
    if test.low is not None and test.high is not None:
        more["note"] += f" (share of all draws: {test.low:.3g} to {test.high:.3g})"
    return Check(group, name, p, LEVEL, unit="p", **more)
