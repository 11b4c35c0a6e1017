r"""Tables and figures of several suites together, from what they have finished.

    python -m experiments.figures --suites=runs/suite/a,runs/suite/b --out=runs/figures

So a sweep of targets, rankings, or another model can be run when there is time, each as a suite of its
own (see experiments.suite), and be compared later. Nothing is computed anew. No cell may be in two of
them.
"""

import dataclasses
import itertools
import pathlib
from typing import Any

from absl import flags

from circuitjax.core.files import require_place
from circuitjax.report.suite_report import Parts, parts_of, write_report
from circuitjax.report.suite_table import CELL
from circuitjax.run.suite import read_cell
from experiments.command import exit_on_bad_input, run_main
from experiments.progress import tell_next

_SUITES = flags.DEFINE_list("suites", [], "Directories of suites.")
_OUT = flags.DEFINE_string("out", "runs/figures", "Directory.")


def _read(directory: pathlib.Path) -> tuple[list[dict[str, Any]], dict[tuple[Any, ...], Parts]]:
    """Rows and circuits of a suite's finished cells."""
    if not (directory / "suite.json").is_file():
        raise ValueError(f"{directory} holds no suite: give the --out of experiments.suite")
    rows, circuits = [], {}
    for path in sorted((directory / "cells").rglob("cell.json")):
        found = read_cell(path)
        assert found.record is not None
        row = {**dataclasses.asdict(found.cell), **found.record, "seconds": found.seconds}
        rows.append(row)
        for place in ("run/circuit", "run/winner/circuit"):
            if (path.parent / place / "circuit.json").is_file():
                circuits[tuple(row[name] for name in CELL)] = parts_of(path.parent / place)
    return rows, circuits


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    out = pathlib.Path(_OUT.value)
    if not _SUITES.value:
        raise ValueError("--suites is missing: name at least one directory of a suite")
    if (out / "suite.json").exists():
        raise ValueError(f"{out} is a suite: choose another --out")
    require_place(out, folder=True)
    read = [_read(pathlib.Path(name)) for name in _SUITES.value]
    rows = list(itertools.chain(*(mine for mine, _ in read)))
    if not rows:
        raise ValueError("none of the suites has finished a cell yet")
    seen = set()
    for row in rows:
        key = tuple(row[name] for name in CELL)
        if key in seen:
            raise ValueError(f"{'/'.join(map(str, key))} is in two of the suites: leave one out")
        seen.add(key)
    timings = [{name: row[name] for name in (*CELL, "seconds")} for row in rows]
    circuits = {key: parts for _, mine in read for key, parts in mine.items()}
    print(write_report(out, rows, {}, timings, circuits))
    print(f"written to {out}")
    tell_next(f"look at {out}/suite.md, and the figures in {out}/figures")


if __name__ == "__main__":
    run_main(main)
