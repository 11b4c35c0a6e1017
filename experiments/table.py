"""Prunes many tasks with the same default settings and prints one table.

    python -m experiments.table --model=tiny-python
    python -m experiments.table --model=tiny-python-dense --tasks=with_as,for_while

Every task is an ordinary run (see experiments.prune) below --out, so an interrupted table goes on
where it stopped and finished tasks are only read. Ends in <out>/table.md and table.csv.
"""

import csv
import math
import pathlib
import sys

from absl import app, flags
from tqdm import tqdm

from circuitjax.circuit.find import default_jobs
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.prune.config import PruneConfig
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import run_pruning
from circuitjax.report.table import markdown_table
from circuitjax.tasks import suite
from circuitjax.zoo.load import load_model
from experiments.command import exit_on_bad_input

_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASKS = flags.DEFINE_list("tasks", None, "Comma-separated names; default: all 20.")
_TARGET = flags.DEFINE_float("target_loss", PruneConfig.target_loss, "Task loss to reach, in nats.")
_STEPS = flags.DEFINE_integer("steps", PruneConfig.steps, "Mask-training steps.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of masks and batches.")
_OUT = flags.DEFINE_string("out", None, "Directory. Default: runs/table/<model>.")

_COLUMNS = (
    "task",
    "status",
    "loss_unpruned",
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
    tasks = [suite.get(name) for name in (_TASKS.value or suite.names())]
    model = load_model(_MODEL.value)
    prune = PruneConfig(target_loss=_TARGET.value, steps=_STEPS.value)
    jobs = default_jobs(model.config.num_nodes, [_SEED.value])
    out = pathlib.Path(_OUT.value or f"runs/table/{model.name}")
    rows = []
    for task in tqdm(tasks, unit="task", file=sys.stderr):
        report = run_pruning(PruneRun(model, task, prune, jobs, out / task.name))
        rows.append(_row(report))
        tqdm.write(
            f"{task.name}: {report['status']}, {report['nodes']} nodes, "
            f"{report['edges']} edges, loss {report['loss_circuit']:.3f}"
        )
    reached = [row["edges"] for row in rows if row["status"] == "reached" and row["edges"] > 0]
    mean = math.exp(sum(math.log(e) for e in reached) / len(reached)) if reached else math.nan
    table = markdown_table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
    summary = (
        f"{len(reached)} of {len(rows)} tasks reached {_TARGET.value:g} nats; "
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
