"""Finds the circuit of a task in a model, with the evidence that it is the circuit.

    python -m experiments.prune --task=single_double_quote

The same command again resumes what is unfinished and shows what is finished. In --out: report.json
(every figure; losses in nats on the test split), circuit/, loss_vs_k.png, training.png.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from absl import app, flags
from tqdm import tqdm

from circuitjax.circuit.find import default_jobs
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.model.record import Model
from circuitjax.prune.config import PruneConfig
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import run_pruning
from circuitjax.report.table import summary_lines
from circuitjax.tasks import jsonl, suite
from circuitjax.tasks.base import Task
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import load_model
from experiments.command import exit_on_bad_input

_D = PruneConfig()
_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASK = flags.DEFINE_string("task", None, "Name of a task (see --list_tasks), or a .jsonl file.")
_TARGET = flags.DEFINE_float("target_loss", _D.target_loss, "Task loss to reach, in nats.")
_STEPS = flags.DEFINE_integer("steps", _D.steps, "Mask-training steps.")
_BATCH = flags.DEFINE_integer("batch_size", _D.batch_size, "Pairs per step (two prompts each).")
_SEED = flags.DEFINE_integer("seed", 0, "First seed of masks and batches.")
_SEEDS = flags.DEFINE_integer("num_seeds", 1, "Seeds run as jobs of one program; the best wins.")
_ABLATION = flags.DEFINE_enum(
    "ablation", _D.ablation, ["mean", "zero"], "What a closed node holds."
)
_TIE = flags.DEFINE_bool("tie_qk", _D.tie_qk, "One gate for a q channel and its k channel.")
_CALIBRATE = flags.DEFINE_enum(
    "calibrate",
    _D.calibrate,
    ["inside", "after", "off"],
    "Fit logit scale and shift at every k (inside), at the chosen k (after), or never (off).",
)
_HYPERS = {
    "k_coef": "Nats per open node. Default: several multiples of 18 / nodes, the best one wins.",
    "init_noise_scale": "Standard deviation of the initial mask parameters. Default: 0.01.",
    "init_noise_bias": "Mean of the initial mask parameters, in [-1, 1]. Default: 0.1.",
    "wd": "Decoupled weight decay per unit learning rate. Default: 0.001.",
    "lr": "Peak learning rate. Default: 0.01.",
    "inv_beta2": "1 - beta2 of Adam, in [1e-6, 1]. Default: 0.05.",
    "lr_warmup_frac": "Fraction of the steps spent warming up, in [0, 1). Default: 0.",
    "heaviside_temp": "Temperature of the surrogate gradient, above 0. Default: 1.",
}
_HYPER_FLAGS = {name: flags.DEFINE_float(name, None, text) for name, text in _HYPERS.items()}
_OUT = flags.DEFINE_string("out", None, "Directory. Default: runs/prune/<model>/<task>.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another run in --out.")
_LIST = flags.DEFINE_bool("list_tasks", False, "Print the built-in tasks and leave.")


def _task(name: str | None, model: Model) -> Task:
    if name is None:
        raise ValueError("--task is missing: name one of --list_tasks, or a .jsonl file")
    if name.endswith(".jsonl"):
        return jsonl.load(name, Tokenizer.from_json(model.tokenizer_json))
    return suite.get(name)


def _run() -> PruneRun:
    prune = PruneConfig(
        target_loss=_TARGET.value,
        steps=_STEPS.value,
        batch_size=_BATCH.value,
        ablation=cast(Any, _ABLATION.value),  # absl has checked it against the choices
        tie_qk=_TIE.value,
        calibrate=cast(Any, _CALIBRATE.value),
    )
    if _SEEDS.value < 1 or _SEED.value < 0:
        raise ValueError(f"--seed={_SEED.value} must be at least 0, --num_seeds={_SEEDS.value} 1")
    changes = {name: flag.value for name, flag in _HYPER_FLAGS.items() if flag.value is not None}
    if _TASK.value is not None and not _TASK.value.endswith(".jsonl"):
        suite.get(_TASK.value)  # an unknown task is told before a model is loaded
    model = load_model(_MODEL.value)
    task = _task(_TASK.value, model)
    seeds = range(_SEED.value, _SEED.value + _SEEDS.value)
    jobs = default_jobs(model.config.num_nodes, seeds, **changes)
    name = pathlib.Path(model.name).name
    out = pathlib.Path(_OUT.value or f"runs/prune/{name}/{task.name}")
    return PruneRun(model, task, prune, jobs, out)


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    if _LIST.value:
        for name, task in suite.TASKS.items():
            print(f"{name:28s} {task.description}")
        return
    keep_freed_memory()
    cache_compilations()
    run = _run()
    finished = not _OVERWRITE.value and (run.directory / "report.json").exists()
    with tqdm(
        total=run.prune.steps,
        unit="step",
        disable=not sys.stderr.isatty(),
        mininterval=1,
        leave=False,
    ) as bar:

        def progress(step: int, metrics: Mapping[str, np.ndarray]) -> None:
            bar.update(step - bar.n)
            shown = zip(metrics["task"][:, -1], metrics["k"][:, -1], strict=True)
            bar.set_postfix_str("loss/nodes " + " ".join(f"{t:.2f}/{k:.0f}" for t, k in shown))

        report = run_pruning(
            run, overwrite=_OVERWRITE.value, progress=progress, say=lambda line: bar.write(line)
        )
    if finished:
        print("already finished: this is its report; another --out runs it anew")
    print(summary_lines(report))
    print(f"  written to {run.directory}")


if __name__ == "__main__":
    app.run(main)
