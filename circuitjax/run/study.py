"""A study: CARBS over pruning runs of one task, a round of them at a time as jobs of one program.

    ask for J settings -> train J sets of gates -> select, clean up -> J observations -> tell

Objective, failure and seeds are those of Gao et al. 2025, section A.5, where it says: minimise the log
of the number of edges at the target on validation; a run that misses the target, or diverges, has
failed; one seed per run. The cost of a run is the number of sequences that went through the network,
forward, with a gradient counted as two more. It is known to the unit, so a study that was killed and
went on asks for the same settings as one that ran through.

study.json             what the directory is for; written first
observations.jsonl     one line per run, a round at a time
carbs.json             state of the search, after each round's settings were asked for
training/round_*/      gates of the round under way, after each chunk

What follows, the winner's run and tune.json, is in `winner.py`.
"""

import dataclasses
import functools
import json
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from circuitjax.audit.evidence import baseline
from circuitjax.core.files import read_text, write_json
from circuitjax.model.record import Model
from circuitjax.prune.candidates import Candidate, candidates_of
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search, default_hyper
from circuitjax.prune.find import prepare
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import Job, finite_jobs
from circuitjax.run.directory import STUDY, claim, holds, stay_in
from circuitjax.run.observations import append_round, read_rounds
from circuitjax.run.search import PruneRun, asked_of, gates_of, is_trivial
from circuitjax.run.training import train_in
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tune import carbs
from circuitjax.tune.pruning_space import Centre, pruning_space
from circuitjax.tune.space import Space

__all__ = ["Progress", "Study", "best_runs", "job_seed", "run_study", "winner"]


class Progress(Protocol):
    """Told of every chunk."""

    def __call__(self, number: int, step: int, edges: float | None) -> None:
        """Round, training steps done in it, fewest edges at the target in earlier ones."""


_FORWARD_AND_BACK = 3  # forward passes that a training step costs


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """What to tune and where.

    Attributes:
      model, task: the frozen network and the task, of either kind.
      search: everything static about every run, the winner's included.
      directory: of the study.
      rounds: how many.
      jobs: J, runs of a round.
      seed: of the search; seeds of the runs follow from it.
      config: how to search.
      search_pairs: validation items, the first of `search.data.validation`, that k is chosen on in the
        search; the winner's is chosen on all.
      centre: where the search starts, see `pruning_space`.

    Raises:
      ValueError: a number out of range, a search without training, or one with no loss to reach.
    """

    model: Model
    task: Task | ContrastTask
    search: Search
    directory: pathlib.Path
    rounds: int = 32
    jobs: int = 8
    seed: int = 0
    config: carbs.CarbsConfig = dataclasses.field(default_factory=carbs.CarbsConfig)
    search_pairs: int = 256
    centre: Centre = "published"

    def __post_init__(self) -> None:
        for name in ("rounds", "jobs", "search_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0")
        if self.search.choices.ranking != "learned":
            raise ValueError(
                f"ranking={self.search.choices.ranking} has nothing to tune: choose ranking=learned"
            )
        if not self.search.selection.is_loss:
            raise ValueError(
                "a study looks for the fewest edges that reach a loss: choose target_loss or target_kl"
            )
        self.run("winner", [Job(0, self.hyper({}))])  # refuses what cannot be

    @property
    def space(self) -> Space:
        """What is searched."""
        return pruning_space(gates_of(self.model, self.search), self.centre, self.search)

    def hyper(self, params: Mapping[str, float]) -> Hyper:
        """Hyperparameters of a setting: the defaults, but for what is searched."""
        return default_hyper(self.search, gates_of(self.model, self.search), **params)

    def run(self, name: str, jobs: Sequence[Job]) -> PruneRun:
        """An ordinary run of some jobs, in a folder of the study."""
        return PruneRun(self.model, self.task, self.search, jobs, self.directory / name)

    def problem(self) -> Problem:
        """What the runs of the search see."""
        items = min(self.search_pairs, self.search.data.validation)
        data = dataclasses.replace(self.search.data, validation=items)
        return prepare(self.model, self.task, dataclasses.replace(self.search, data=data))

    def identity(self) -> dict[str, Any]:
        """What makes two studies the same study; more rounds go on with the same one."""
        return {
            **asked_of(self.model, self.task),
            "search": self.search.to_dict(),
            "jobs": self.jobs,
            "search_pairs": self.search_pairs,
            "seed": self.seed,
            "carbs": self.config.to_dict(),
            "space": self.space.to_dict(),
        }


def job_seed(study: Study, index: int) -> int:
    """Seed of masks and batches of the run with this index, uint32."""
    return int(np.random.SeedSequence((study.seed, index)).generate_state(1)[0])


def run_study(
    study: Study,
    *,
    progress: Progress = lambda number, step, edges: None,
) -> carbs.State:
    """Does what is left of a study.

    Args:
      study: what to tune; its directory must be this process's alone.
      progress: told of every chunk.

    Returns:
      The search, with every observation.

    Raises:
      ValueError: a directory that holds another study, or a task the model cannot be asked.
    """
    resumed = holds(STUDY, study.directory, study.identity())
    rounds = read_rounds(study.directory / "observations.jsonl", study.jobs)
    state = _restore(study, [row for rows in rounds for row in rows])
    if len(rounds) >= study.rounds:
        return state
    problem = study.problem()
    if is_trivial(study.search, baseline(problem, study.search)):
        selection = study.search.selection
        raise ValueError(
            f"the empty circuit of task {study.task.name!r} meets the target of {selection.value} nats: "
            f"there is nothing to tune; lower --target_{selection.target}"
        )
    if not resumed:
        claim(STUDY, study.directory, study.identity())
    for number in range(len(rounds), study.rounds):
        if not state.pending:
            state, _ = carbs.ask(state, study.jobs)
            write_json(study.directory / "carbs.json", json.loads(carbs.to_json(state)))
        found = carbs.best(state)
        fewest = None if found is None else math.exp(found.output)
        told = functools.partial(progress, edges=fewest)
        rows = _run_round(study, problem, number, state.pending, told)
        stay_in(STUDY, study.directory, study.identity())
        append_round(study.directory / "observations.jsonl", rows)
        state = carbs.tell(state, [_observation(row) for row in rows])
        shutil.rmtree(study.directory / "training", ignore_errors=True)
    return state


def winner(study: Study, state: carbs.State) -> tuple[Hyper, carbs.Measured]:
    """The setting expected to be best as hyperparameters, and what was seen of it.

    Raises:
      ValueError: no run met the target.
    """
    found = carbs.expected_best(state)
    if found is None:
        raise ValueError(
            f"none of {len(state.observations)} runs of task {study.task.name!r} met the target of "
            f"{study.search.selection.value} nats: raise it or give more --steps"
        )
    return study.hyper(found.params), found


def best_runs(study: Study, rows: Sequence[Mapping[str, Any]], count: int) -> list[Job]:
    """Of observations, the runs of fewest edges that met the target, as jobs that repeat them."""
    reached = sorted((row for row in rows if not row["failed"]), key=lambda row: row["edges"])
    return [Job(row["seed"], study.hyper(row["params"])) for row in reached[:count]]


def _restore(study: Study, rows: Sequence[Mapping[str, Any]]) -> carbs.State:
    """The search as it stood: settings asked for, and every observation on file told."""
    path = study.directory / "carbs.json"
    if not path.exists():
        return carbs.start(study.config, study.space, study.seed)
    try:
        state = carbs.from_json(read_text(path), study.config, study.space)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    told = {seen.id for seen in state.observations}
    return carbs.tell(state, [_observation(row) for row in rows if row["id"] not in told])


def _observation(row: Mapping[str, Any]) -> carbs.Observation:
    return carbs.Observation(row["id"], row["output"], row["cost"], row["failed"])


def _run_round(
    study: Study,
    problem: Problem,
    number: int,
    suggestions: Sequence[carbs.Suggestion],
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Trains and selects a round's settings; goes on from its last chunk."""
    started = time.perf_counter()
    jobs = [Job(job_seed(study, s.id), study.hyper(s.params)) for s in suggestions]
    folder = study.directory / "training" / f"round_{number}"
    state, _ = train_in(
        folder,
        initial_state(problem, study.search, jobs),
        {},
        lambda state, on_chunk: train_gates(problem, study.search, state, on_chunk, spare=True),
        lambda step, metrics: progress(number, step),
    )
    trained = time.perf_counter()
    good = finite_jobs(state)
    # A job that diverged keeps its place, selected from zeros, and counts as failed.
    state = dataclasses.replace(state, tau=jax.tree.map(np.nan_to_num, state.tau))
    found = candidates_of(problem, study.search, jobs, state, brief=True)
    seconds = (trained - started, time.perf_counter() - trained)
    return [
        _row(study, problem, number, suggestion, candidate, bool(fine), seconds)
        for suggestion, candidate, fine in zip(suggestions, found, good, strict=True)
    ]


def _row(
    study: Study,
    problem: Problem,
    number: int,
    suggestion: carbs.Suggestion,
    found: Candidate,
    fine: bool,
    seconds: tuple[float, float],
) -> dict[str, Any]:
    """One observation: what CARBS is told, and what a reader wants to know."""
    failed = not (fine and found.choice.reached)
    prompts, train = problem.train.unit, study.search.train
    looked_at = prompts * sum(point.items for point in found.choice.curve)
    trained = _FORWARD_AND_BACK * prompts * train.batch_size * train.steps
    loss = found.choice.loss
    return {
        "id": suggestion.id,
        "round": number,
        "origin": suggestion.origin,
        "params": dict(suggestion.params),
        "seed": found.job.seed,
        "failed": failed,
        "output": None if failed else math.log(max(found.edges, 1)),
        "cost": float(trained + looked_at),
        "edges": found.edges,
        "nodes": found.nodes,
        "loss_validation": loss if math.isfinite(loss) else None,
        "seconds_training_round": round(seconds[0], 3),
        "seconds_selection_round": round(seconds[1], 3),
    }
