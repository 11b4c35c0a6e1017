"""What circuits do on some examples, and how that stands to the target of a cut.

Under several conditions the worst one counts, with one calibration for all. What is compared with the
target is the mean over the items or, where the target is to be met with a confidence, its upper bound.
Where a KL is demanded beside a loss, it is the larger of both, each in units of its own target.
"""

from typing import NamedTuple

import numpy as np

from circuitjax.core.statistics import mean_bound
from circuitjax.gated.conditions import condition_named
from circuitjax.gated.measures import calibrated_odds
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.config import SelectionConfig
from circuitjax.prune.evaluate import Answers
from circuitjax.prune.problem import Problem

__all__ = ["Figures", "aims", "calibrates", "compares", "demanded", "figures", "loss_kind"]


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


def loss_kind(problem: Problem, selection: SelectionConfig, loss: str = "binary") -> str:
    """What a cut is about, as one loss: `kl`, `calibrated` or `task`."""
    if selection.target == "kl":
        return "kl"
    fits = selection.calibrate == "inside" and calibrates(problem, selection, loss)
    return "calibrated" if fits else "task"


def compares(problem: Problem, selection: SelectionConfig) -> bool:
    """Whether the KL to the whole model is part of a cut's figures."""
    demanded = selection.target == "kl" or selection.kl is not None
    return demanded or problem.whole.always_compares


class _Items(NamedTuple):
    """Of K circuits, by item: `[K, conditions, items]`, nats; scale and shift are `[K]`."""

    plain: np.ndarray
    calibrated: np.ndarray
    kl: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


def _by_item(
    problem: Problem, selection: SelectionConfig, found: Answers, loss: str, conditions: int | None
) -> _Items:
    count = len(problem.conditions) if conditions is None else conditions
    unit = problem.train.unit

    def by_condition(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, float)
        return values.reshape(len(values), count, -1, unit).mean(axis=-1)

    plain = np.logaddexp(0.0, -found.odds) if loss == "binary" else found.vocabulary
    calibrated, scale, shift = plain, np.ones(len(plain)), np.zeros(len(plain))
    if calibrates(problem, selection, loss):
        fit = calibrate(found.odds)
        scale, shift = fit.scale, fit.shift
        calibrated = np.logaddexp(0.0, -calibrated_odds(found.odds, scale, shift))
    plain, calibrated, kl = map(by_condition, (plain, calibrated, found.kl))
    if conditions is None:
        weights = _weights(problem, found, plain.shape, unit)
        plain, calibrated, kl = plain * weights, calibrated * weights, kl * weights
    return _Items(plain, calibrated, kl, scale, shift)


def _weights(
    problem: Problem, found: Answers, shape: tuple[int, ...], unit: int
) -> np.ndarray | float:
    """How much an item counts under a condition `[K, conditions, items]`; 1 on average.

    Where only some templates count and no item is of one of them, all do.
    """
    apart = [condition_named(under.name).apart for under in problem.conditions]
    if not any(apart):
        return 1.0
    counts = found.apart.reshape(*shape, unit)[..., 0] | ~np.array(apart)[None, :, None]
    share = counts.mean(axis=-1, keepdims=True)
    return np.where(share > 0, counts / np.where(share > 0, share, 1.0), 1.0)


def _demands(selection: SelectionConfig, items: _Items, losses: np.ndarray) -> np.ndarray:
    """What is compared with the target, by item `[K, demands, items]`: all of them must be met."""
    kl = items.kl if selection.target == "kl" else selection.kl_share * items.kl
    if selection.target == "kl":
        return kl
    return losses if selection.kl is None else np.concatenate([losses, kl], axis=1)


def demanded(
    problem: Problem,
    selection: SelectionConfig,
    found: Answers,
    loss: str = "binary",
) -> np.ndarray:
    """Of K circuits' answers what a cut compares with its target, by item, in units of the target.

    Args:
      problem, selection, found, loss: see `figures`.

    Returns:
      `[K, demands, items]`; a demand is a condition's loss or KL, and all must be met.
    """
    items = _by_item(problem, selection, found, loss, None)
    inside = selection.calibrate == "inside"
    return _demands(selection, items, items.calibrated if inside else items.plain)


def aims(selection: SelectionConfig, demands: np.ndarray) -> np.ndarray:
    """What `demanded` found, over items `[K, demands]`: means or, with a confidence, upper bounds."""
    if selection.confidence is None:
        found: np.ndarray = demands.mean(axis=2)
        return found
    return mean_bound(demands, selection.confidence)


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
    items = _by_item(problem, selection, found, loss, conditions)

    def worst(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = values.mean(axis=2).max(axis=1)
        return found

    compared = [np.full(len(items.plain), np.nan)] * 2
    if selection.is_loss:
        compared = [
            aims(selection, _demands(selection, items, of)).max(axis=1)
            for of in (items.calibrated, items.plain)
        ]
    kl = worst(items.kl) if compares(problem, selection) else None
    raw, loss_of = worst(items.plain), worst(items.calibrated)
    return [
        Figures(
            raw=float(raw[row]),
            loss=float(loss_of[row]),
            scale=float(items.scale[row]),
            shift=float(items.shift[row]),
            kl=None if kl is None else float(kl[row]),
            aim=float(compared[0][row]),
            plain_aim=float(compared[1][row]),
        )
        for row in range(len(items.plain))
    ]
