"""Faithfulness of a ranking's circuits over their sizes, and the two areas that sum it up: CPR and CMD.

    f(C)  =  (m(C) - m(empty)) / (m(whole) - m(empty))
    CPR   =  area under f over the sizes           the larger the better
    CMD   =  area between f and 1, |1 - f|         the smaller the better, 0 is the model itself

with m the mean logit difference of right and wrong answers and a size the fraction of edges that is
asked for, before what lies on no path is closed; areas by the trapezoid rule from the smallest size to
the largest, as the Mechanistic Interpretability Benchmark has them (Mueller et al. 2025, arXiv
2504.13151, circuit track). A circuit may do more than the model: then f > 1, CPR gains and CMD loses, so
CPR suits signed rankings, which leave harmful edges out, and CMD absolute ones; report which it was.

Axis letters: G gates, S sizes, M examples.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from circuitjax.gated.examples import Examples
from circuitjax.prune.evaluate import Asked, answered
from circuitjax.prune.problem import Problem

__all__ = ["FRACTIONS", "Curve", "area", "faithfulness_curve", "sizes_of"]

#: Sizes of the benchmark, as fractions of all edges.
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def sizes_of(total: int, fractions: Sequence[float] = FRACTIONS) -> tuple[int, ...]:
    """How many of so many edges are asked for at each fraction: rounded down.

    Raises:
      ValueError: fractions that do not rise, or lie outside [0, 1].
    """
    given = list(fractions)
    if given != sorted(set(given)) or len(given) < 2 or given[0] < 0 or given[-1] > 1:
        raise ValueError(f"fractions are {given}; they must rise, within [0, 1], and be at least 2")
    return tuple(int(fraction * total) for fraction in given)


def area(fractions: Sequence[float], heights: Sequence[float]) -> float:
    """Area under heights `[S]` over fractions `[S]`, by the trapezoid rule."""
    x, y = np.asarray(fractions, np.float64), np.asarray(heights, np.float64)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@dataclasses.dataclass(frozen=True)
class Curve:
    """What the circuits of one ranking do, by size.

    Attributes:
      fractions: `[S]`, of all edges, as asked for.
      edges: `[S]`, on a path from input to logits.
      measured: `[S]`, mean logit difference of each circuit, in nats.
      whole, empty: of the whole model, and with everything closed.
    """

    fractions: tuple[float, ...]
    edges: tuple[int, ...]
    measured: tuple[float, ...]
    whole: float
    empty: float

    @property
    def faithfulness(self) -> tuple[float, ...]:
        """f `[S]`.

        Raises:
          ValueError: the model does no better than with everything closed.
        """
        span = self.whole - self.empty
        if not abs(span) > 1e-6:
            raise ValueError(
                f"the whole model measures {self.whole:.4g} and the empty circuit {self.empty:.4g}: "
                "faithfulness is undefined where nothing is lost; choose another task"
            )
        return tuple((value - self.empty) / span for value in self.measured)

    @property
    def cpr(self) -> float:
        """Circuit performance ratio."""
        return area(self.fractions, self.faithfulness)

    @property
    def cmd(self) -> float:
        """Circuit-model distance."""
        return area(self.fractions, [abs(1 - f) for f in self.faithfulness])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, with the areas."""
        more = {"faithfulness": self.faithfulness, "cpr": self.cpr, "cmd": self.cmd}
        return {**dataclasses.asdict(self), **more}


def faithfulness_curve(
    problem: Problem,
    ranks: np.ndarray,
    examples: Examples,
    fractions: Sequence[float] = FRACTIONS,
) -> Curve:
    """Runs the circuits of the first so many gates of a ranking.

    Args:
      problem: model, grain and ablation.
      ranks: int `[G]`, 0 is the first gate taken.
      examples: M of them, with one right and one wrong completion each; with more the measure is the
        log odds.
      fractions: sizes.

    Examples:
      >>> problem = cj.prepare(model, task, cj.default_search("edges", target_kl=0.1, train=32,
      ...     validation=8, test=8))
      >>> ranks = np.arange(problem.whole.num_gates)
      >>> faithfulness_curve(problem, ranks, problem.test, (0.5, 1.0)).faithfulness[-1]
      1.0
    """
    model = problem.whole
    total = int(model.exists().sum())
    opened = [model.cut(ranks < size) for size in sizes_of(total, fractions)]
    ends = [np.ones(model.num_gates, bool), np.zeros(model.num_gates, bool)]
    # What is asked for twice, as the whole model may be, is run once.
    distinct: dict[bytes, np.ndarray] = {one.tobytes(): one for one in [*opened, *ends]}
    found = answered(model, Asked(model, problem.batches, examples), list(distinct.values()))
    mean = dict(zip(distinct, found.odds.mean(axis=1).astype(float), strict=True))
    return Curve(
        tuple(float(f) for f in fractions),
        tuple(int(model.cost(one)) for one in opened),
        tuple(mean[one.tobytes()] for one in opened),
        *(mean[one.tobytes()] for one in ends),
    )
