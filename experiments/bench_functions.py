"""Functions with a known minimum, for comparing tuners.

Each has a space of about four basic units a side, and a centre that is not its minimum. Regret is the
noise-free output minus the lowest there is.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from circuitjax.tune.space import Dimension, Space

__all__ = ["FUNCTIONS", "Outcome", "TestFunction"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one evaluation: the output (None if it failed) and the cost."""

    output: float | None
    cost: float


@dataclasses.dataclass(frozen=True)
class TestFunction:
    """A function to minimise.

    Attributes:
      space: where.
      value: the noise-free output at `[D]` values, in the order of the dimensions.
      lowest: its minimum over the space.
      noise: standard deviation added to what a tuner is told.
      cost: of an evaluation.
      fails: whether one fails.
    """

    space: Space
    value: Callable[[np.ndarray], float]
    lowest: float
    noise: float = 0.0
    cost: Callable[[np.ndarray], float] = lambda x: 1.0
    fails: Callable[[np.ndarray], bool] = lambda x: False

    def regret(self, params: Mapping[str, float]) -> float:
        """Of a setting, without noise."""
        return self.value(self._array(params)) - self.lowest

    def run(self, params: Mapping[str, float], rng: np.random.Generator) -> Outcome:
        """What a tuner is told."""
        x = self._array(params)
        noise = self.noise * rng.normal()
        return Outcome(None if self.fails(x) else self.value(x) + noise, self.cost(x))

    def _array(self, params: Mapping[str, float]) -> np.ndarray:
        return np.array([params[name] for name in self.space.names], float)


def _box(sides: list[tuple[float, float]]) -> Space:
    """A linear space searched from its middle."""
    return Space(
        tuple(
            Dimension(f"x{i}", "linear", (low + high) / 2, low, high, scale=(high - low) / 4)
            for i, (low, high) in enumerate(sides)
        )
    )


def _branin(x: np.ndarray) -> float:
    bend = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return bend**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10


_HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_WIDTHS = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_PLACES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann(x: np.ndarray) -> float:
    distances = np.sum(_HARTMANN_WIDTHS * (x - _HARTMANN_PLACES) ** 2, axis=1)
    return -float(_HARTMANN_WEIGHTS @ np.exp(-distances))


def _rosenbrock_of_logs(x: np.ndarray) -> float:
    y = np.log10(x)
    return float(np.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2))


_ACKLEY_CENTRE = 12.0 * np.array([1, -1, 0.5, -0.5, 0.8, -0.8, 0.3, -0.3])


def _ackley(x: np.ndarray) -> float:
    y = x - _ACKLEY_CENTRE
    bowl = -20 * math.exp(-0.2 * math.sqrt(np.mean(y**2)))
    return bowl - math.exp(np.mean(np.cos(2 * math.pi * y))) + 20 + math.e


# A made-up training: learning rate, weight decay, warm-up, and steps that cost what they say. The best
# learning rate falls as the steps rise; one twice too high diverges.
_LOWEST_TRAINING = 0.5 + (50 / 10000) ** 0.5


def _best_rate(steps: float) -> float:
    return -1.5 - 0.5 * math.log10(steps / 50)


def _training(x: np.ndarray) -> float:
    rate, decay, warmup, steps = x
    bowl = (math.log10(rate) - _best_rate(steps)) ** 2 + 0.2 * (math.log10(decay) + 3) ** 2
    odds = math.log10(warmup / (1 - warmup)) + 1
    return 0.5 + (50 / steps) ** 0.5 + bowl + 0.1 * odds**2


def _diverges(x: np.ndarray) -> bool:
    return math.log10(x[0]) > _best_rate(x[3]) + 0.3


_TRAINING_SPACE = Space(
    (
        Dimension("rate", "log", 3e-3, 1e-5, 1e-1),
        Dimension("decay", "log", 1e-1, 1e-5, 1e0),
        Dimension("warmup", "logit", 0.3, 0.001, 0.9),
        Dimension("steps", "log", 200, 50, 10000, scale=0.6, integer=True, rounding=50),
    )
)

_RIDGE = Space(tuple(Dimension(f"x{i}", "log", 0.1, 1e-2, 1e2) for i in range(4)))

FUNCTIONS: Mapping[str, TestFunction] = MappingProxyType(
    {
        "Branin": TestFunction(_box([(-5, 10), (0, 15)]), _branin, 0.39788735772973816),
        "Hartmann-6": TestFunction(_box([(0, 1)] * 6), _hartmann, -3.322368011415515),
        "Hartmann-6, noise 0.1": TestFunction(
            _box([(0, 1)] * 6), _hartmann, -3.322368011415515, noise=0.1
        ),
        "Rosenbrock-4 of logs": TestFunction(_RIDGE, _rosenbrock_of_logs, 0.0),
        "Ackley-8": TestFunction(_box([(-32.768, 32.768)] * 8), _ackley, 0.0),
        "training that may fail": TestFunction(
            _TRAINING_SPACE, _training, _LOWEST_TRAINING, cost=lambda x: x[3], fails=_diverges
        ),
    }
)
