"""Prunes many tasks of many models at many grains, to many targets; ends in one table and figures.

    python -m experiments.suite                                        # 20 tasks of tiny-python
    python -m experiments.suite --models=tiny-python,tiny-python-dense
    python -m experiments.suite --grains=nodes,weights --start_from_nodes
    python -m experiments.suite --rankings=learned,attribution --tasks=with_as,for_while
    python -m experiments.suite --targets=0.02,0.05,0.15,0.5 --seeds=0,1,2,3,4
    python -m experiments.suite --rounds=4                             # every task tuned by CARBS

Every model, task, grain, ranking, target and seed is a cell: an ordinary run (see experiments.prune)
below <out>/cells. The same command again goes on where it stopped; what is finished is only read, what
has failed is told, and done again with --retry. Targets and seeds of a task share one training. With
--shard=i/n, on as many machines as there are parts, each process does its part of the same directory.
Whichever ends last writes suite.csv, suite.md, summary.csv, timings.csv and figures/. A file of flags
is given by --flagfile. --rounds tunes every learned cell that starts from no circuit.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.report.suite_report import parts_of, write_report
from circuitjax.run.study import Study
from circuitjax.run.suite import Outcome, Shard, run_suite
from circuitjax.tasks import suite as tasks
from circuitjax.tune.pruning_space import CENTRES
from experiments import pruning_flags
from experiments.command import command, exit_on_bad_input, run_main
from experiments.devices import laid_out
from experiments.limits import MOST_JOBS, check_numbers
from experiments.progress import bar, say, tell_next
from experiments.pruning_flags import chosen_values, refuse_hypers
from experiments.suite_cells import Plan, Tuning

flags.adopt_module_key_flags(pruning_flags)
_MODELS = flags.DEFINE_list("models", ["tiny-python"], "Built-in models, or paths of directories.")
_TASKS = flags.DEFINE_list("tasks", None, "Names of tasks, or .jsonl files. Default: all 20.")
_GRAINS = flags.DEFINE_list("grains", None, "nodes, weights, edges. Default: --grain.")
flags.DEFINE_alias("methods", "grains")
_RANKINGS = flags.DEFINE_list(
    "rankings", None, "learned, and rankings without training. Default: --ranking."
)
_TARGETS = flags.DEFINE_list("targets", None, "Task losses in nats. Default: --target_loss.")
_CELL_SEEDS = flags.DEFINE_list("seeds", None, "Seeds, a cell each. Default: --seed.")
_FROM_NODES = flags.DEFINE_bool(
    "start_from_nodes", False, "Grain weights: prune the circuit that grain nodes found further."
)
_ROUNDS = flags.DEFINE_integer(
    "rounds",
    None,
    "Tune every learned cell in so many rounds (see experiments.tune), and run the winner "
    "with --num_seeds fresh seeds and the two best runs again. Default: fixed settings.",
)
_ROUND_SIZE = flags.DEFINE_integer("round_size", 8, "Runs of a round, as jobs of one program.")
_SEARCH_PAIRS = flags.DEFINE_integer(
    "search_pairs",
    Study.search_pairs,
    "With --rounds: validation pairs that runs of a round are cut on; the winner is on all.",
)
_CENTRE = flags.DEFINE_enum(
    "centre", Study.centre, CENTRES, "With --rounds: where the search starts, see experiments.tune."
)
_SHARD = flags.DEFINE_string("shard", "1/1", "i/n: do the i-th of n parts, from 1.")
_RETRY = flags.DEFINE_bool("retry", False, "Do cells that failed once more.")
_PARTIAL = flags.DEFINE_bool(
    "partial", False, "Write the table and figures of what is finished, even if more is to come."
)
_OUT = flags.DEFINE_string("out", None, "Directory. Default: runs/suite/<models and what differs>.")

_STAGES = ("data", "baseline", "training", "ranking", "selection", "evidence", "writing")


def _several(given: Sequence[str] | None, name: str, one: str, kind: type) -> list[Any]:
    """Values of a flag that takes many, or of the one of `pruning_flags` that takes one.

    Raises:
      ValueError: both are given, or a value of another kind.
    """
    if given is None:
        return [chosen_values()[one]]
    if flags.FLAGS[one].value is not None and (one != "seed" or flags.FLAGS[one].present):
        raise ValueError(f"--{name} and --{one} are both given: choose one")
    found = []
    for text in given:
        try:
            found.append(kind(text))
        except ValueError:
            raise ValueError(f"--{name} has {text!r}, which is no {kind.__name__}") from None
    return found


def _plan() -> Plan:
    if flags.FLAGS["start"].value is not None:
        raise ValueError("--start is one circuit for all tasks: use --start_from_nodes")
    if _ROUNDS.value is None:
        for flag in (_ROUND_SIZE, _SEARCH_PAIRS, _CENTRE):
            if flag.present:
                raise ValueError(f"--{flag.name} has no meaning without --rounds: leave it out")
    check_numbers(_ROUNDS, _SEARCH_PAIRS)
    check_numbers(_ROUND_SIZE, most=MOST_JOBS)
    targets: list[float | None] = _several(_TARGETS.value, "targets", "target_loss", float)
    tuning = None
    if _ROUNDS.value is not None:
        refuse_hypers("with --rounds, which tunes it")
        seeds = int(flags.FLAGS["num_seeds"].value or 0)
        tuning = Tuning(
            rounds=_ROUNDS.value,
            jobs=_ROUND_SIZE.value,
            fresh_seeds=seeds,
            search_pairs=_SEARCH_PAIRS.value,
            centre=_CENTRE.value,  # type: ignore[arg-type]  # the flag admits no other
        )
    return Plan(
        models=_MODELS.value,
        tasks=tasks.names() if _TASKS.value is None else _TASKS.value,
        grains=_several(_GRAINS.value, "grains", "grain", str),
        rankings=_several(_RANKINGS.value, "rankings", "ranking", str),
        targets=targets,
        seeds=_several(_CELL_SEEDS.value, "seeds", "seed", int),
        from_nodes=_FROM_NODES.value,
        tuning=tuning,
        out=None if _OUT.value is None else pathlib.Path(_OUT.value),
    )


def _row(found: Outcome) -> dict[str, Any]:
    if found.record is None:
        record: dict[str, Any] = {"status": "failed", "note": found.error}
    else:
        record = dict(found.record)
    return {**dataclasses.asdict(found.cell), **record}


def _report(plan: Plan, found: Sequence[Outcome]) -> str:
    """Writes the tables and figures of all that is settled."""
    settled = [one for one in found if one.settled]
    rows = [_row(one) for one in settled]
    timings = [
        {
            **dataclasses.asdict(one.cell),
            "seconds": one.seconds,
            **{f"seconds_{name}": row.get("seconds_by_stage", {}).get(name) for name in _STAGES},
        }
        for one, row in zip(settled, rows, strict=True)
    ]
    circuits = {}
    for one, row in zip(settled, rows, strict=True):
        if row["status"] == "reached" and len(plan.seeds) > 1:
            circuits[dataclasses.astuple(one.cell)] = parts_of(plan.circuit(one.cell))
    failures = {one.cell.key: one.error for one in settled if one.error is not None}
    return write_report(plan.suite.directory, rows, failures, timings, circuits)


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    shard = Shard.parse(_SHARD.value)
    plan = _plan()
    suite = plan.suite
    plan.check_finished()
    mine = sum(len(suite.units[unit]) for unit in shard.of(list(suite.units)))
    with laid_out(), bar(mine, "cell", leave=True) as shown:

        def done(one: Outcome) -> None:
            shown.update()
            if one.record is not None:
                edges = one.record.get("edges")
                say(f"{one.cell.key}: {one.record['status']}, {edges} edges")

        found = run_suite(suite, plan.run_cell, shard, retry=_RETRY.value, say=say, done=done)
    left = sum(not one.settled for one in found)
    failed = [one for one in found if one.error is not None]
    if left:
        print(f"{left} of {len(found)} cells are left to other processes on {suite.directory}")
    if not left or _PARTIAL.value:
        print(_report(plan, found))
        print(f"written to {suite.directory}")
        tell_next(command("figures", suites=suite.directory))
    if failed:
        for one in failed:
            print(f"failed: {one.cell.key}: {one.error}", file=sys.stderr)
        print(
            f"error: {len(failed)} of {len(found)} cells failed; --retry does them once more",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
