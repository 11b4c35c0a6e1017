"""What circuits do on some examples, and how that stands to the target of a cut.

Under several conditions the worst one counts, with one calibration for all. What is compared with the
target is the mean over the items or, where the target is to be met with a confidence, its upper bound.
Where a KL is demanded beside a loss, it is the larger of both, each in units of its own target.
"""

from typing import NamedTuple

import numpy as np

from circuitjax.core.statistics import mean_bound
from circuitjax.gated.measures import calibrated_odds
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.config import SelectionConfig
from circuitjax.prune.evaluate import Answers
from circuitjax.prune.problem import Problem

__all__ = ["Figures", "calibrates", "compares", "figures"]


class Figures(NamedTuple):
    """What one circuit does on some examples; in nats.

    Attributes:
      raw, loss: task loss without and with its own best calibration.
      scale, shift: that calibration; 1 and 0 where there is none.
      kl: to the whole model; None where it was not asked for.
      aim, plain_aim: what is compared with the target, with and without calibration; NaN where the
        target is a size.
    """

    raw: float
    loss: float
    scale: float
    shift: float
    kl: float | None
    aim: float
    plain_aim: float


def calibrates(problem: Problem, selection: SelectionConfig, loss: str = "binary") -> bool:
    """Whether circuits get a scale and a shift: to the binary loss of pairs, if asked for."""
    asked = selection.calibrate != "off" and selection.target != "kl"
    return asked and problem.paired and loss == "binary"


def compares(problem: Problem, selection: SelectionConfig) -> bool:
    """Whether the KL to the whole model is part of a cut's figures."""
    demanded = selection.target == "kl" or selection.kl is not None
    return demanded or problem.whole.always_compares


def figures(
    problem: Problem,
    selection: SelectionConfig,
    found: Answers,
    loss: str = "binary",
    *,
    conditions: int | None = None,
) -> list[Figures]:
    """Of K circuits' answers, under each condition in turn: the worst one's figures.

    Args:
      problem: whose conditions they are answers under.
      selection: target and calibration.
      found: `[K, M]`, M the examples once for each condition.
      loss: kind of task loss.
      conditions: how many; None for the problem's.
    """
    count = len(problem.conditions) if conditions is None else conditions
    unit, full = problem.train.unit, compares(problem, selection)

    def by_condition(values: np.ndarray) -> np.ndarray:
        """`[K, conditions, items]`."""
        values = np.asarray(values, float)
        return values.reshape(len(values), count, -1, unit).mean(axis=-1)

    def worst(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = by_condition(values).mean(axis=2).max(axis=1)
        return found

    def looked_at(values: np.ndarray) -> np.ndarray:
        if selection.confidence is None:
            return worst(values)
        return mean_bound(by_condition(values), selection.confidence).max(axis=1)

    plain = np.logaddexp(0.0, -found.odds) if loss == "binary" else found.vocabulary
    calibrated, scale, shift = plain, np.ones(len(plain)), np.zeros(len(plain))
    if calibrates(problem, selection, loss):
        fit = calibrate(found.odds)
        scale, shift = fit.scale, fit.shift
        calibrated = np.logaddexp(0.0, -calibrated_odds(found.odds, scale, shift))
    kl = worst(found.kl) if full else None
    aims = [np.full(len(plain), np.nan)] * 2
    if selection.target == "kl":
        aims = [looked_at(found.kl)] * 2
    elif selection.target == "loss":
        aims = [looked_at(values) for values in (calibrated, plain)]
    if selection.kl is not None:
        beside = selection.kl_share * looked_at(found.kl)
        aims = [np.maximum(aim, beside) for aim in aims]
    raw, loss_of = worst(plain), worst(calibrated)
    return [
        Figures(
            raw=float(raw[row]),
            loss=float(loss_of[row]),
            scale=float(scale[row]),
            shift=float(shift[row]),
            kl=None if kl is None else float(kl[row]),
            aim=float(aims[0][row]),
            plain_aim=float(aims[1][row]),
        )
        for row in range(len(plain))
    ]
