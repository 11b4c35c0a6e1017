"""What follows a search: its winner with fresh seeds and its best runs once more, figures, picture."""

from typing import Any

from circuitjax.circuit.find import Job
from circuitjax.core.checkpoints import write_json
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import run_pruning, versions
from circuitjax.report.study_report import plot_study, study_figures
from circuitjax.tune import carbs
from circuitjax.tune.observations import read_rounds
from circuitjax.tune.study import Study, best_runs, job_seed, winner

__all__ = ["run_winner"]

_AGAIN = 2  # runs of the search that are done once more


def run_winner(
    study: Study, state: carbs.State, fresh_seeds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs the best setting of a study with fresh seeds, and writes winner/, progress.png and tune.json.

    Beside the fresh seeds the two runs of fewest edges are trained once more, as they were: the search
    cut them roughly, on few pairs. The circuit is the smallest of all that meet the target on all pairs.

    Args:
      study: done; its directory must be this process's alone.
      state: of its search.
      fresh_seeds: seeds that no run of the study had.

    Returns:
      What tune.json holds, and the report of the winner's run.

    Raises:
      ValueError: no run of the study met the target.
    """
    hyper, found = winner(study, state)
    first = study.rounds * study.jobs
    rounds = read_rounds(study.directory / "observations.jsonl", study.jobs)
    rows = [row for round_ in rounds for row in round_]
    jobs = [Job(job_seed(study, first + index), hyper) for index in range(fresh_seeds)]
    jobs += best_runs(rows, _AGAIN)
    report = run_pruning(
        PruneRun(study.model, study.task, study.prune, jobs, study.directory / "winner"),
        overwrite=True,
    )
    edges = [job["edges"] if job["reached"] else None for job in report["jobs"]]
    plot_study(study.directory / "progress.png", rows, f"{study.task.name} on {study.model.name}")
    tuned = {
        **study_figures(rows),
        "winner": dict(found.params),
        "winner_runs": found.runs,
        "fresh_seeds_edges": edges[:fresh_seeds],
        "best_runs_edges": edges[fresh_seeds:],
        "rough": [job["rough"] for job in report["jobs"]],  # of these: cut on few pairs
        "circuit_edges": report["edges"],
        "loss_circuit": report["loss_circuit"],
        "config": study.identity(),
        "versions": versions(),
    }
    write_json(study.directory / "tune.json", tuned)
    return tuned, report
