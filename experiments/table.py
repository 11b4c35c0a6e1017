"""Prunes many tasks with the same default settings and prints one table.

    python -m experiments.table --model=tiny-python
    python -m experiments.table --model=tiny-python-dense --tasks=with_as,for_while
    python -m experiments.table --ranking=attribution
    python -m experiments.table --method=weights --starts=runs/table/tiny-python

Every task is an ordinary run (see experiments.prune) below --out, so an interrupted table goes on
where it stopped and finished tasks are only read. Ends in <out>/table.md and table.csv.
"""

import csv
import math
import pathlib
import sys

from absl import app, flags
from tqdm import tqdm

from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.report.run_directory import run_pruning
from circuitjax.report.table import markdown_table
from circuitjax.tasks import suite
from circuitjax.zoo.load import load_model
from experiments import pruning_flags
from experiments.command import exit_on_bad_input
from experiments.pruning_flags import build_run, chosen_method
from experiments.ranking_flags import suffix
from experiments.task_names import find_task

flags.adopt_module_key_flags(pruning_flags)
_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASKS = flags.DEFINE_list("tasks", None, "Comma-separated names; default: all 20.")
_STARTS = flags.DEFINE_string(
    "starts",
    None,
    "Method weights: a table's directory, whose node circuits are pruned further, task by task.",
)
_OUT = flags.DEFINE_string(
    "out", None, "Directory. Default: runs/table/<model>[-<method or ranking>]."
)

_COLUMNS = (
    "task",
    "status",
    "loss_unpruned",
    "loss_validation",
    "loss_circuit",
    "nodes",
    "edges",
    "loss_without_circuit",
    "random_low",
    "random_high",
    "kl_to_model",
    "seconds",
)


def _row(report: dict) -> dict:
    random = report["loss_without_random"]
    return {
        **{name: report.get(name) for name in _COLUMNS},
        "random_low": min(random),
        "random_high": max(random),
        "seconds": round(sum(report["seconds"].values())),
    }


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    method = chosen_method()
    tasks = [find_task(name, method) for name in (_TASKS.value or suite.names())]
    model = load_model(_MODEL.value)
    name = pathlib.Path(model.name).name
    out = pathlib.Path(_OUT.value or f"runs/table/{name}{suffix(method)}")
    runs = []
    for task in tasks:
        start = None if _STARTS.value is None else f"{_STARTS.value}/{task.name}/circuit"
        runs.append(build_run(model, task, out / task.name, start))
    rows = []
    for run in tqdm(runs, unit="task", file=sys.stderr):
        report = run_pruning(run)
        rows.append(_row(report))
        tqdm.write(
            f"{run.task.name}: {report['status']}, {report['nodes']} nodes, "
            f"{report['edges']} edges, loss {report['loss_circuit']:.3f}"
        )
    reached = [row["edges"] for row in rows if row["status"] == "reached" and row["edges"] > 0]
    mean = math.exp(sum(math.log(e) for e in reached) / len(reached)) if reached else math.nan
    table = markdown_table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
    summary = (
        f"{len(reached)} of {len(rows)} tasks reached the target; "
        f"geometric mean of their edges {mean:.1f}."
    )
    (out / "table.md").write_text(f"{table}\n\n{summary}\n", encoding="utf-8")
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{table}\n\n{summary}")


if __name__ == "__main__":
    app.run(main)
