"""A small study on the planted task, as a process of its own: `python planted_study.py DIRECTORY`."""

import pathlib
import sys

ROUNDS, JOBS = 5, 4


def study(directory):
    """Five rounds of four runs, 40 steps each."""
    from circuitjax.run.study import Study
    from tests.prune.planted import TASK, planted_model
    from tests.run.runs import changed

    search = changed(steps=40, chunk=10)
    return Study(planted_model(), TASK, search, pathlib.Path(directory), ROUNDS, JOBS)


def main(directory):
    """Does what is left of it, and says so."""
    from circuitjax.core.host import alone_in
    from circuitjax.run.study import run_study

    with alone_in(pathlib.Path(directory)):
        run_study(
            study(directory), progress=lambda number, step, edges: print(number, step, flush=True)
        )
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
