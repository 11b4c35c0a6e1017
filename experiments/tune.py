"""Tunes the hyperparameters of a search for one task by CARBS, many runs as one program.

    python -m experiments.tune --task=single_double_quote
    python -m experiments.tune --task=with_as --rounds=4 --steps=100
    python -m experiments.tune --task=with_as --grain=edges --target_kl=0.1

Every round asks for --num_jobs settings and prunes with all of them at once. The same command again
goes on where it stopped, wherever that was, and ends with the same winner. The winner is run again with
fresh seeds, and the two runs of fewest edges as they were; the smallest of all these is the circuit,
its k chosen on all validation pairs. In --out: observations.jsonl (every run as it comes),
progress.png, winner/ (an ordinary pruning run: report, circuit, pictures), and tune.json, written last.
What is searched are the hyperparameters that the gate and the control read.
"""

import pathlib

from absl import flags

from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.run.study import Study
from circuitjax.run.winner import tune
from circuitjax.tune.pruning_space import CENTRES
from experiments import pruning_flags
from experiments.command import command, exit_on_bad_input, run_main
from experiments.devices import laid_out
from experiments.limits import MOST_JOBS, check_numbers, check_seed
from experiments.progress import bar, say, tell_next
from experiments.task_names import load_task, said_again

flags.adopt_module_key_flags(pruning_flags)
_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASK = flags.DEFINE_string("task", None, "Name of a task, or a .jsonl file.")
_OUT = flags.DEFINE_string("out", None, "Directory. Default: runs/tune[-<grain>]/<model>/<task>.")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 32, "Rounds of the search; more go on with the same study."
)
_FRESH = flags.DEFINE_integer("fresh_seeds", 5, "Seeds the winner is run with again.")
_SEARCH_PAIRS = flags.DEFINE_integer(
    "search_pairs",
    Study.search_pairs,
    "Validation pairs that runs of the search are cut on; the winner is on all.",
)
_CENTRE = flags.DEFINE_enum(
    "centre",
    Study.centre,
    CENTRES,
    "Where the search starts for Heaviside gates on nodes: at the published hyperparameters, or at the "
    "defaults of experiments.prune, which suit few rounds of short runs.",
)


def _study() -> Study:
    jobs = flags.FLAGS["num_jobs"].value
    check_numbers(_FRESH, flags.FLAGS["num_jobs"], most=MOST_JOBS)
    check_numbers(_ROUNDS, _SEARCH_PAIRS)
    check_seed(flags.FLAGS["seed"])
    if flags.FLAGS["num_seeds"].present:
        raise ValueError("--num_seeds has no meaning in a study: give --fresh_seeds instead")
    pruning_flags.refuse_hypers("in a study, which tunes it", jobs=False)
    if flags.FLAGS["start"].value is not None:
        raise ValueError("--start has no meaning in a study: leave it out")
    model, task = load_task(_TASK.value, _MODEL.value)
    # What is tuned is the published recipe at the grain of nodes: `hold` has no coefficient to find.
    said = [flags.FLAGS[name].value for name in ("grain", "control", "preset")]
    fixed = {"control": "count"} if said in ([None] * 3, ["nodes", None, None]) else {}
    if flags.FLAGS["ranking"].value is None:
        fixed["ranking"] = "learned"
    search, _ = pruning_flags.build_search(model, task, fixed)
    place = f"{pathlib.Path(model.name).name}/{task.name}"
    return Study(
        model,
        task,
        search,
        pathlib.Path(_OUT.value or f"runs/tune{pruning_flags.suffix()}/{place}"),
        _ROUNDS.value,
        Study.jobs if jobs is None else jobs,
        int(flags.FLAGS["seed"].value or 0),
        search_pairs=_SEARCH_PAIRS.value,
        centre=_CENTRE.value,  # type: ignore[arg-type]  # the flag admits no other
    )


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    study = _study()
    steps = study.search.train.steps
    with laid_out(), bar(study.rounds * steps, "step") as shown:

        def progress(number: int, step: int, edges: float | None) -> None:
            shown.update(number * steps + step - shown.n)
            best = "none yet" if edges is None else f"{edges:.0f}"
            shown.set_postfix_str(f"round {number + 1} of {study.rounds}, fewest edges {best}")

        tuned, report = tune(study, _FRESH.value, progress=progress, say=say)
    print(f"{study.task.name} on {study.model.name}: {tuned.runs} runs, {tuned.failed} failed")
    print(f"  fewest edges, first round  {tuned.fewest_edges_first_round}")
    print(f"  fewest edges, last round   {tuned.fewest_edges_last_round}")
    print(f"  fewest edges, all rounds   {tuned.fewest_edges}")
    print(f"  winner with fresh seeds    {', '.join(map(str, tuned.fresh_seeds_edges))}")
    print(f"  best runs, done again      {', '.join(map(str, tuned.best_runs_edges))}")
    print(f"  the circuit                {report.edges} edges, test loss {report.loss_circuit:.4f}")
    print(f"  written to {study.directory}")
    if report.nodes:
        own = said_again(_TASK.value, _MODEL.value)
        winner = study.directory / "winner"
        tell_next(command("view", run=winner, **own), command("audit", circuit=winner, **own))


if __name__ == "__main__":
    run_main(main)
