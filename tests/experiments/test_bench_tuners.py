"""The comparison of tuners: its functions' minima, its bookkeeping, its table."""

import numpy as np
import pytest
from scipy.optimize import minimize

from experiments.bench_functions import FUNCTIONS
from experiments.bench_tuners import run_one, seconds_of_asking, table

# Where the lowest output is, by the literature or by construction.
MINIMA = {
    "Branin": [-np.pi, 12.275],
    "Hartmann-6": [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573],
    "Rosenbrock-4 of logs": [10.0] * 4,
    "Ackley-8": [12, -12, 6, -6, 9.6, -9.6, 3.6, -3.6],
    "training that may fail": [10**-1.5 / 200**0.5, 1e-3, 1 / 11, 10000],
}


@pytest.mark.parametrize("name", MINIMA)
def test_the_minimum_is_where_it_is_said_to_be(name):
    function = FUNCTIONS[name]
    at = np.array(MINIMA[name])
    params = dict(zip(function.space.names, at, strict=True))
    function.space.to_basic(params)  # within the bounds
    assert not function.fails(at)
    assert 0 <= function.regret(params) + 1e-9 < 1e-4
    assert function.regret(function.space.centre) > 1
    # Steps of the made-up training are whole numbers, and their most is the best.
    free = at[:3] if name.startswith("training") else at
    lowest = minimize(
        lambda x: function.value(np.concatenate([x, at[len(x) :]])), free, method="Nelder-Mead"
    ).fun
    assert lowest >= function.lowest - 1e-9


@pytest.mark.parametrize("tuner", ["CARBS", "random", "Optuna TPE"])
def test_a_run_is_one_of_the_seed(tuner):
    if tuner.startswith("Optuna"):
        pytest.importorskip("optuna")
    one, again, other = (run_one("training that may fail", tuner, seed, 2) for seed in (0, 0, 1))
    assert one["regret"] == again["regret"] != other["regret"]
    assert one["cost"][1] > one["cost"][0] > 0
    assert one["regret"][1] <= one["regret"][0]
    assert one["regret"][0] <= FUNCTIONS["training that may fail"].regret(
        FUNCTIONS["training that may fail"].space.centre
    )


def run(tuner, seed, regret, cost):
    return {
        "function": "f",
        "tuner": tuner,
        "seed": seed,
        "regret": regret,
        "cost": cost,
        "failures": seed,
        "seconds": 1.0,
    }


def test_the_table_says_median_quartiles_and_equal_cost():
    runs = [run("a", i, [9.0, float(i)], [10.0, 20.0 + i]) for i in range(5)]
    runs += [run("b", i, [None, None], [5.0, 40.0]) for i in range(5)]
    lines = table(runs).splitlines()
    assert "2 [1, 3]" in lines[2]
    assert "inf [inf, inf]" in lines[2]
    assert "f: cost 20 spent" in lines[3]
    assert "9 [9, 9]" in lines[3]  # only the first run's second round fits into 20
    assert "| f: failures" in lines[4]


def test_asking_is_timed_with_runs_and_without():
    assert 0 < seconds_of_asking(0, 0) < 1  # the first samples need no model
    assert seconds_of_asking(24, 0) > 0
