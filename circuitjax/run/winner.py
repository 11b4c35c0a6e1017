"""What follows a study: its winner with fresh seeds and its best runs once more, figures, picture.

winner/          an ordinary run: the winner's setting with fresh seeds, and the best runs again
progress.png     every run, and the fewest edges so far
tune.json        figures of all of it; written last
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from circuitjax.core.files import write_json
from circuitjax.core.host import alone_in
from circuitjax.core.records import seal
from circuitjax.core.schema import json_schema
from circuitjax.prune.train import Job
from circuitjax.report.study_report import plot_study, study_figures
from circuitjax.run.directory import STUDY, holds, stay_in, versions
from circuitjax.run.observations import read_rounds
from circuitjax.run.prune import run_pruning
from circuitjax.run.report import Report
from circuitjax.run.study import Progress, Study, best_runs, job_seed, run_study, winner
from circuitjax.tune import carbs

__all__ = ["Tuned", "run_winner", "tune"]

FORMAT = "circuitjax-tune-2"
_AGAIN = 2  # runs of the search that are done once more


@dataclasses.dataclass(frozen=True)
class Tuned:
    """`tune.json`: what a study found. Edges are None where the target was missed.

    Attributes:
      format: of the record, with its version.
      runs, rounds, failed: how many.
      fewest_edges, fewest_edges_first_round, fewest_edges_last_round, fewest_edges_by_round: of the runs
        of the search that met the target.
      seconds_training, seconds_selection: of the search.
      winner, winner_runs: the setting that is expected to be best, and how often it was run.
      fresh_seeds_edges, best_runs_edges: of the winner's run, by job.
      rough: of these, which were cut on few validation items only.
      circuit_edges, loss_circuit: of the circuit that came of it.
      config: what the study was asked for, as in study.json.
      versions: of what computed it.
    """

    format: str
    runs: int
    rounds: int
    failed: int
    fewest_edges: int | None
    fewest_edges_first_round: int | None
    fewest_edges_last_round: int | None
    fewest_edges_by_round: list[int | None]
    seconds_training: float
    seconds_selection: float
    winner: dict[str, float]
    winner_runs: int
    fresh_seeds_edges: list[int | None]
    best_runs_edges: list[int | None]
    rough: list[bool]
    circuit_edges: int
    loss_circuit: float
    config: dict[str, Any]
    versions: dict[str, str]

    @staticmethod
    def schema() -> dict[str, Any]:
        """The JSON schema of tune.json but for its hash."""
        return json_schema(Tuned)


def tune(
    study: Study,
    fresh_seeds: int,
    *,
    progress: Progress = lambda number, step, edges: None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Tuned, Report]:
    """Does what is left of a study, and runs its winner; see `run_study` and `run_winner`.

    Raises:
      ValueError: also a directory in which another process works.
    """
    holds(STUDY, study.directory, study.identity())
    with alone_in(study.directory):
        state = run_study(study, progress=progress)
        say("running the winner with fresh seeds, and the best runs again")
        return run_winner(study, state, fresh_seeds)


def run_winner(study: Study, state: carbs.State, fresh_seeds: int) -> tuple[Tuned, Report]:
    """Runs the best setting of a study with fresh seeds; writes winner/, progress.png and tune.json.

    Beside the fresh seeds the two runs of fewest edges are trained once more, as they were: the search
    cut them roughly, on few items. The circuit is the smallest of all that meet the target on all items.

    Args:
      study: done; its directory must be this process's alone.
      state: of its search.
      fresh_seeds: seeds that no run of the study had.

    Raises:
      ValueError: no run of the study met the target.
    """
    hyper, found = winner(study, state)
    first = study.rounds * study.jobs
    rounds = read_rounds(study.directory / "observations.jsonl", study.jobs)
    rows = [row for round_ in rounds for row in round_]
    jobs = [Job(job_seed(study, first + index), hyper) for index in range(fresh_seeds)]
    jobs += best_runs(study, rows, _AGAIN)
    report = run_pruning(study.run("winner", jobs), overwrite=True)
    stay_in(STUDY, study.directory, study.identity())
    edges = [job.edges if job.reached else None for job in report.jobs]
    plot_study(study.directory / "progress.png", rows, f"{study.task.name} on {study.model.name}")
    tuned = Tuned(
        format=FORMAT,
        **study_figures(rows),
        winner=dict(found.params),
        winner_runs=found.runs,
        fresh_seeds_edges=edges[:fresh_seeds],
        best_runs_edges=edges[fresh_seeds:],
        rough=[job.rough for job in report.jobs],
        circuit_edges=report.edges,
        loss_circuit=report.loss_circuit,
        config=study.identity(),
        versions=versions(),
    )
    write_json(study.directory / "tune.json", seal(dataclasses.asdict(tuned)))
    return tuned, report
