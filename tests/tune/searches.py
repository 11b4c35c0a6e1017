"""Small searches for the tests: spaces, outcomes, and a loop of asking and telling."""

import numpy as np

from circuitjax.tune.carbs import CarbsConfig, Observation, ask, start, tell
from circuitjax.tune.space import Dimension, Space

__all__ = ["FLAT", "SPACE", "bowl", "quadratic", "run", "search"]

SPACE = Space(
    (
        Dimension("rate", "log", 1e-2, 1e-4, 1.0),
        Dimension("share", "logit", 0.3, 0.01, 0.99),
        Dimension("count", "linear", 8, 1, 40, scale=10, integer=True),
    )
)
FLAT = Space(tuple(Dimension(f"x{i}", "linear", 0.0, -2.0, 2.0) for i in range(4)))
TARGET = np.array([1.0, -1.0, 0.5, -0.7])


def quadratic(params):
    return float(np.sum((np.array(list(params.values())) - TARGET) ** 2))


def bowl(params):
    return (np.log10(params["rate"]) + 1) ** 2 + (params["share"] - 0.6) ** 2


def run(state, suggestions, output=bowl, cost=lambda params: 1.0, fails=lambda params: False):
    """Tells a state what came of suggestions."""
    seen = []
    for s in suggestions:
        failed = fails(s.params)
        value = None if failed else output(s.params)
        seen.append(Observation(s.id, value, cost(s.params), failed))
    return tell(state, seen)


def search(space, rounds, seed=0, count=8, config=None, **outcome):
    state = start(config or CarbsConfig(), space, seed)
    for _ in range(rounds):
        state, suggestions = ask(state, count)
        state = run(state, suggestions, **outcome)
    return state
