"""A study: CARBS over pruning runs of one task, a round of them at a time as jobs of one program.

    ask for J settings -> train J sets of masks -> select, clean up -> J observations -> tell

Objective, failure and seeds are those of Gao et al. 2025, section A.5, where it speaks: minimise the log
of the number of edges at the target loss on validation; a run that misses the target, or leaves the
finite numbers, has failed; one seed per run. The cost of a run is the number of sequences that went
through the network, forward, with a gradient counted as two more. It is known to the unit, so a study
that was killed and went on asks for the same settings as one that ran through.

study.json             what the directory is for; written first
observations.jsonl     one line per run, a round at a time
carbs.json             state of the search, after each round's settings were asked for
training/round_*/      masks of the round under way, after each chunk
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
from circuitjax.circuit.find import Candidate, Job, candidates_of, initial_state, train_masks
from circuitjax.core import checkpoints
from circuitjax.model.record import Model
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.train import MaskState, finite_jobs
from circuitjax.tasks.base import Task
from circuitjax.tune import carbs
from circuitjax.tune.observations import append_round, read_rounds
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
      model, task: the frozen network and the task.
      prune: static configuration of every run, the winner's included.
      directory: of the study.
      rounds: how many.
      jobs: J, runs of a round.
      seed: of the search; seeds of the runs follow from it.
      config: how to search.
      search_pairs: validation pairs, the first of `prune.validation_pairs`, that k is chosen on in the
        search; the winner's is chosen on all.
      centre: where the search starts, see `pruning_space`.
    """

    model: Model
    task: Task
    prune: PruneConfig
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

    @property
    def space(self) -> Space:
        """What is searched."""
        return pruning_space(self.model.config.num_nodes, self.centre)

    def problem(self) -> Problem:
        """What the runs of the search see."""
        pairs = min(self.search_pairs, self.prune.validation_pairs)
        prune = dataclasses.replace(self.prune, validation_pairs=pairs)
        return make_problem(self.model, self.task, prune)

    def identity(self) -> dict[str, Any]:
        """What makes two studies the same study; more rounds go on with the same one."""
        return {
            "model": self.model.name,
            "model_hash": self.model.hash,
            "task": self.task.name,
            "prune": self.prune.to_dict(),
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
    resumed = _check(study)
    rounds = read_rounds(study.directory / "observations.jsonl", study.jobs)
    state = _restore(study, [row for rows in rounds for row in rows])
    if len(rounds) >= study.rounds:
        return state
    problem = study.problem()
    empty = baseline(problem)["loss_empty"]
    if empty <= study.prune.target_loss:
        raise ValueError(
            f"the empty circuit of task {study.task.name!r} is at {empty:.3f} nats and meets the target "
            f"of {study.prune.target_loss}: there is nothing to tune; lower --target_loss"
        )
    if not resumed:
        checkpoints.write_json(study.directory / "study.json", study.identity())
    for number in range(len(rounds), study.rounds):
        if not state.pending:
            state, _ = carbs.ask(state, study.jobs)
            checkpoints.write_json(study.directory / "carbs.json", json.loads(carbs.to_json(state)))
        found = carbs.best(state)
        fewest = None if found is None else math.exp(found.output)
        told = functools.partial(progress, edges=fewest)
        rows = _run_round(study, problem, number, state.pending, told)
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
            f"{study.prune.target_loss} nats: raise --target_loss or give more --steps"
        )
    return Hyper(**found.params), found


def best_runs(rows: Sequence[Mapping[str, Any]], count: int) -> list[Job]:
    """Of observations, the runs of fewest edges that met the target, as jobs that repeat them."""
    reached = sorted((row for row in rows if not row["failed"]), key=lambda row: row["edges"])
    return [Job(row["seed"], Hyper(**row["params"])) for row in reached[:count]]


def _check(study: Study) -> bool:
    """Whether the directory holds this very study; refuses another's, changes nothing."""
    path = study.directory / "study.json"
    identity = json.loads(json.dumps(study.identity()))
    if not path.exists():
        if any(p.name != ".lock" for p in study.directory.glob("*")):
            raise ValueError(
                f"{study.directory} holds files but no study: choose another directory"
            )
        return False
    held = json.loads(path.read_text(encoding="utf-8"))
    for name in identity:
        if held.get(name) != identity[name]:
            raise ValueError(
                f"{study.directory} holds a study with another {name}: choose another directory, or "
                f"give the {name} it was begun with"
            )
    return True


def _restore(study: Study, rows: Sequence[Mapping[str, Any]]) -> carbs.State:
    """The search as it stood: settings asked for, and every observation on file told."""
    path = study.directory / "carbs.json"
    if not path.exists():
        return carbs.start(study.config, study.space, study.seed)
    state = carbs.from_json(path.read_text(encoding="utf-8"), study.config, study.space)
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
    jobs = [Job(job_seed(study, s.id), Hyper(**s.params)) for s in suggestions]
    state = initial_state(problem, jobs)
    folder = study.directory / "training" / f"round_{number}"
    done = checkpoints.latest_step(folder)
    if done is not None:
        state = jax.device_put(checkpoints.load_step(folder, done, state))
        progress(number, done)

    def on_chunk(state: MaskState, metrics: Mapping[str, np.ndarray]) -> None:
        step = int(state.step[0])
        checkpoints.save_step(folder, step, state, keep=1)
        progress(number, step)

    state = train_masks(problem, state, on_chunk, spare=True)
    trained = time.perf_counter()
    good = finite_jobs(state)
    # A job that left the finite numbers keeps its place, selected from zeros, and counts as failed.
    state = dataclasses.replace(state, tau=jax.tree.map(np.nan_to_num, state.tau))
    found = candidates_of(problem, jobs, state, brief=True)
    seconds = (trained - started, time.perf_counter() - trained)
    return [
        _row(study, number, suggestion, candidate, bool(fine), seconds)
        for suggestion, candidate, fine in zip(suggestions, found, good, strict=True)
    ]


def _row(
    study: Study,
    number: int,
    suggestion: carbs.Suggestion,
    found: Candidate,
    fine: bool,
    seconds: tuple[float, float],
) -> dict[str, Any]:
    """One observation: what CARBS is told, and what a reader wants to know."""
    failed = not (fine and found.choice.reached)
    looked_at = 2 * sum(point[-1] for point in found.choice.curve)
    trained = _FORWARD_AND_BACK * 2 * study.prune.batch_size * study.prune.steps
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
