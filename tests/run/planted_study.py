"""A small study on the planted task, as a process of its own: `python planted_study.py DIRECTORY`."""

import dataclasses
import pathlib
import sys

ROUNDS, JOBS = 5, 4


def study(directory):
    """Five rounds of four runs, 40 steps each."""
    from circuitjax.tune.study import Study
    from tests.prune.planted import PRUNE, TASK, planted_model

    prune = dataclasses.replace(PRUNE, steps=40, chunk=10)
    return Study(planted_model(), TASK, prune, pathlib.Path(directory), ROUNDS, JOBS)


def main(directory):
    """Does what is left of it, and says so."""
    from circuitjax.core.host import alone_in
    from circuitjax.tune.study import run_study

    with alone_in(pathlib.Path(directory)):
        run_study(
            study(directory), progress=lambda number, step, edges: print(number, step, flush=True)
        )
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
