r"""Finds the circuit of a task in a model, with the evidence that it is the circuit.

    python -m experiments.prune --task=single_double_quote
    python -m experiments.prune --task=single_double_quote --ranking=attribution
    python -m experiments.prune --task=ioi --grain=edges --model=models/smollm2 --target_kl=0.5
    python -m experiments.prune --task=single_double_quote --grain=weights \
        --start=runs/prune/tiny-python/single_double_quote/circuit

The same command again resumes what is unfinished and shows what is finished. In --out: report.json
(every figure; losses in nats on the test split), circuit/, loss_vs_k.png, training.png.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from absl import flags

from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.prune.capabilities import table_text
from circuitjax.report.table import summary_lines
from circuitjax.run.prune import run_pruning
from circuitjax.run.search import PruneRun
from circuitjax.tasks import suite
from circuitjax.tasks.english import suite as english
from experiments import pruning_flags
from experiments.command import command, exit_on_bad_input, run_main
from experiments.devices import laid_out
from experiments.progress import bar, say, tell_next
from experiments.task_names import load_task, said_again

__doc__ = f"{__doc__}\n{table_text()}"  # so that --helpfull shows the table, too

flags.adopt_module_key_flags(pruning_flags)  # likewise
_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASK = flags.DEFINE_string("task", None, "Name of a task (see --list_tasks), or a .jsonl file.")
_CHAT = flags.DEFINE_bool(
    "chat_template",
    False,
    "Prompts as a user's message in the model's chat template, the answer as the reply; else raw text. "
    "A form may be named instead: --task=ioi+chatml.",
)
_OUT = flags.DEFINE_string(
    "out", None, "Directory. Default: runs/prune[-<grain>][-<ranking>]/<model>/<task>."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another run in --out.")
_LIST = flags.DEFINE_bool("list_tasks", False, "Print the built-in tasks and leave.")


def _run() -> PruneRun:
    model, task = load_task(_TASK.value, _MODEL.value, chat=_CHAT.value)
    place = f"{pathlib.Path(model.name).name}/{task.name}"
    out = pathlib.Path(_OUT.value or f"runs/prune{pruning_flags.suffix()}/{place}")
    return pruning_flags.build_run(model, task, out)


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    if _LIST.value:
        for name, binary in suite.TASKS.items():
            print(f"{name:28s} {binary.description}")
        for name, contrast in english.TASKS.items():
            print(f"{name:28s} {contrast.description}")
        return
    keep_freed_memory()
    cache_compilations()
    run = _run()
    finished = not _OVERWRITE.value and (run.directory / "report.json").exists()
    with laid_out(), bar(run.steps, "step") as shown:

        def progress(step: int, metrics: Mapping[str, np.ndarray]) -> None:
            shown.update(step - shown.n)
            jobs = zip(metrics["task"][:, -1], metrics["k"][:, -1], strict=True)
            shown.set_postfix_str("loss/open " + " ".join(f"{t:.2f}/{k:.0f}" for t, k in jobs))

        report = run_pruning(run, overwrite=_OVERWRITE.value, progress=progress, say=say)
    if finished:
        say("already finished: this is its report; another --out runs it anew")
    print(summary_lines(report))
    print(f"  written to {run.directory}")
    if report.nodes:
        own = said_again(_TASK.value, _MODEL.value)
        tell_next(
            command("view", run=run.directory, **own),
            command("audit", circuit=run.directory, **own),
        )


if __name__ == "__main__":
    run_main(main)
