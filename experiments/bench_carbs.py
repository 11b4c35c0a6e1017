"""Compares CARBS with random search and Optuna's samplers on functions with a known minimum.

    python -m experiments.bench_carbs --num_seeds=10 --out=carbs.json
    python -m experiments.bench_carbs --ask_after=64,248      # how long CARBS takes to ask

Every tuner gets the same space in basic units, its centre as the first suggestion, and the same number
of evaluations in rounds of 8. Random search draws evenly. Optuna (in the `dev` extras; its Gaussian
process also needs PyTorch) is told failed evaluations as failed trials. Regret is the noise-free value
of the setting that a tuner holds to be best, minus the function's minimum: CARBS's own `best`, for the
others the lowest output seen. Printed is the median over seeds with the quartiles; where evaluations
differ in cost, also when each has spent what the thriftiest run spent in all. With --ask_after nothing
is compared: the time that asking for a round takes once so many runs of a pruning study came back.
"""

import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from absl import flags

from circuitjax.core.files import cut, require_place, write_json
from experiments.bench_functions import FUNCTIONS
from experiments.bench_tuners import ROUND, TUNERS, run_one, seconds_of_asking, table
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import MOST_JOBS, check_numbers
from experiments.progress import TABLE, counted, tell_next

_FUNCTIONS = flags.DEFINE_multi_enum(
    "function", list(FUNCTIONS), list(FUNCTIONS), "Which functions."
)
_TUNERS = flags.DEFINE_multi_enum("tuner", list(TUNERS), list(TUNERS), "Which tuners.")
_SEEDS = flags.DEFINE_integer("num_seeds", 10, "Seeds 0, 1, ... of tuners and noise.")
_ROUNDS = flags.DEFINE_integer("rounds", 16, f"Rounds of {ROUND} evaluations.")
_PROCESSES = flags.DEFINE_integer("processes", 2, "Runs side by side.")
_OUT = flags.DEFINE_string(
    "out", None, "JSON file for every run's regret and cost after each round."
)
_ASK_AFTER = flags.DEFINE_list(
    "ask_after", None, f"Observations after which the time of asking for {ROUND} is printed."
)
_MOST_RUNS = 100_000  # its process would not fit into memory


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_numbers(_SEEDS, _ROUNDS)
    check_numbers(_PROCESSES, most=MOST_JOBS)
    if _OUT.value:
        require_place(_OUT.value)
    if _ASK_AFTER.value is not None:
        asked = _ASK_AFTER.value
        if not asked or not all(t.isdecimal() and int(t) <= _MOST_RUNS for t in asked):
            raise ValueError(
                f"--ask_after={cut(','.join(asked))} must be whole numbers from 0 to {_MOST_RUNS}"
            )
        for count in map(int, _ASK_AFTER.value):
            took = [seconds_of_asking(count, seed) for seed in range(_SEEDS.value)]
            print(
                f"asking for {ROUND} after {count}: median {np.median(took):.2f} s "
                f"({min(took):.2f} to {max(took):.2f}, {len(took)} seeds)"
            )
        tell_next(TABLE, file=sys.stderr)
        return
    if any(name.startswith("Optuna") for name in _TUNERS.value):
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise ValueError("Optuna is not installed: install the `dev` extras") from None
    if "Optuna GP" in _TUNERS.value:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise ValueError(
                "Optuna GP needs PyTorch: install it, or choose others with --tuner"
            ) from None
    work = [
        (function, tuner, seed, _ROUNDS.value)
        for function in _FUNCTIONS.value
        for tuner in _TUNERS.value
        for seed in range(_SEEDS.value)
    ]
    with ProcessPoolExecutor(_PROCESSES.value) as pool:
        runs, done = [], counted(len(work))
        for run in pool.map(run_one, *zip(*work, strict=True)):
            runs.append(run)
            last = run["regret"][-1]
            done(
                f"{run['function']}  {run['tuner']}  seed {run['seed']}  "
                f"regret {'none' if last is None else f'{last:.3g}'}  {run['seconds']} s"
            )
    if _OUT.value:
        write_json(_OUT.value, {"evaluations": ROUND * _ROUNDS.value, "runs": runs})
    print(table(runs))
    tell_next(TABLE, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
