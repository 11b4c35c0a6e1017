"""Tunes the eight hyperparameters of node pruning for one task by CARBS, many runs as one program.

    python -m experiments.tune --task=single_double_quote
    python -m experiments.tune --task=with_as --rounds=4 --steps=100

Every round asks for --num_jobs settings and prunes with all of them at once. The same command again
goes on where it stopped, wherever that was, and ends with the same winner. The winner is run again with
fresh seeds, and the two runs of fewest edges as they were; the smallest of all these is the circuit,
its k chosen on all validation pairs. In --out: observations.jsonl (every run as it comes),
progress.png, winner/ (an ordinary pruning run: report, circuit, pictures), and tune.json, written last.
"""

import pathlib
import sys

from absl import app, flags
from tqdm import tqdm

from circuitjax.core.host import alone_in, cache_compilations, keep_freed_memory
from circuitjax.prune.config import PruneConfig
from circuitjax.tasks.base import Task
from circuitjax.tune.pruning_space import CENTRES
from circuitjax.tune.study import Study, run_study
from experiments.command import exit_on_bad_input
from experiments.task_names import load_task
from experiments.tuned_run import run_winner

_D = PruneConfig()
_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASK = flags.DEFINE_string("task", None, "Name of a task, or a .jsonl file.")
_OUT = flags.DEFINE_string("out", None, "Directory. Default: runs/tune/<model>/<task>.")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 32, "Rounds of the search; more go on with the same study."
)
_JOBS = flags.DEFINE_integer("num_jobs", 8, "Runs of a round, as jobs of one program.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the search and of its runs.")
_FRESH = flags.DEFINE_integer("fresh_seeds", 5, "Seeds the winner is run with again.")
_TARGET = flags.DEFINE_float("target_loss", _D.target_loss, "Task loss to reach, in nats.")
_STEPS = flags.DEFINE_integer("steps", _D.steps, "Training steps of a run.")
_BATCH = flags.DEFINE_integer("batch_size", _D.batch_size, "Pairs per step.")
_SEARCH_PAIRS = flags.DEFINE_integer(
    "search_pairs",
    Study.search_pairs,
    f"Validation pairs that runs of the search are cut on; the winner is on {_D.validation_pairs}.",
)
_CENTRE = flags.DEFINE_enum(
    "centre",
    Study.centre,
    CENTRES,
    "Where the search starts: at the published hyperparameters, or at the defaults of "
    "experiments.prune, which suit few rounds of short runs.",
)
_ABLATION = flags.DEFINE_enum(
    "ablation", _D.ablation, ["mean", "zero"], "What a closed node holds."
)


def _study() -> Study:
    if _FRESH.value < 1:
        raise ValueError(f"--fresh_seeds={_FRESH.value} must be at least 1")
    prune = PruneConfig(
        target_loss=_TARGET.value,
        steps=_STEPS.value,
        batch_size=_BATCH.value,
        ablation=_ABLATION.value,  # type: ignore[arg-type]  # the flag admits no other
    )
    model, task = load_task(_TASK.value, _MODEL.value)
    assert isinstance(task, Task)
    name = pathlib.Path(model.name).name
    out = pathlib.Path(_OUT.value or f"runs/tune/{name}/{task.name}")
    return Study(
        model,
        task,
        prune,
        out,
        _ROUNDS.value,
        _JOBS.value,
        _SEED.value,
        search_pairs=_SEARCH_PAIRS.value,
        centre=_CENTRE.value,  # type: ignore[arg-type]  # the flag admits no other
    )


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    study = _study()
    total = study.rounds * study.prune.steps
    with (
        alone_in(study.directory),
        tqdm(total=total, unit="step", disable=not sys.stderr.isatty(), leave=False) as bar,
    ):

        def progress(number: int, step: int, edges: float | None) -> None:
            bar.update(number * study.prune.steps + step - bar.n)
            best = "none yet" if edges is None else f"{edges:.0f}"
            bar.set_postfix_str(f"round {number + 1} of {study.rounds}, fewest edges {best}")

        state = run_study(study, progress=progress)
        bar.write("running the winner with fresh seeds, and the best runs again")
        tuned, report = run_winner(study, state, _FRESH.value)
    print(
        f"{study.task.name} on {study.model.name}: {tuned['runs']} runs, {tuned['failed']} failed"
    )
    print(f"  fewest edges, first round  {tuned['fewest_edges_first_round']}")
    print(f"  fewest edges, last round   {tuned['fewest_edges_last_round']}")
    print(f"  fewest edges, all rounds   {tuned['fewest_edges']}")
    print(f"  winner with fresh seeds    {', '.join(map(str, tuned['fresh_seeds_edges']))}")
    print(f"  best runs, done again      {', '.join(map(str, tuned['best_runs_edges']))}")
    print(
        f"  the circuit                {report['edges']} edges, test loss {report['loss_circuit']:.4f}"
    )
    print(f"  written to {study.directory}")


if __name__ == "__main__":
    app.run(main)
