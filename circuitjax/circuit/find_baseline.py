"""Circuits from rankings that nothing was trained for, cut as learned ones are.

problem -> scores (no training) -> bisection and calibration -> clean -> best by edges -> Circuit
"""

from collections.abc import Sequence

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import Candidate, as_circuit, clean, facts_of, pick
from circuitjax.model.record import Model
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.baselines import Baseline, Ranking, baseline_scores, rank_by
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.masks import choose_from_rankings
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.train import Job
from circuitjax.tasks.base import Task

__all__ = ["baseline_candidates", "find_baseline_circuit", "score_jobs"]


def score_jobs(problem: Problem, jobs: Sequence[Job]) -> np.ndarray:
    """Scores `[J, U]` of every job, whose hyperparameters are a `Baseline` each."""
    return np.stack([baseline_scores(problem, job.hyper, job.seed) for job in jobs])


def baseline_candidates(
    problem: Problem, jobs: Sequence[Job], scores: np.ndarray, memory: AnswerMemory | None = None
) -> list[Candidate]:
    """Cuts and cleans every job's ranking.

    Args:
      problem: model, task, data.
      jobs: J of them; a job's seed decides between units of equal score.
      scores: `[J, U]`, the larger the earlier kept.
      memory: see `prune.masks.choose_from_rankings`.

    Raises:
      FloatingPointError: a score that is not finite.
    """
    rankings = [rank_by(problem, row, job.seed) for job, row in zip(jobs, scores, strict=True)]
    return clean(problem, jobs, choose_from_rankings(problem, rankings, memory=memory))


def find_baseline_circuit(
    model: Model,
    task: Task,
    ranking: Ranking = "attribution",
    prune: PruneConfig | None = None,
    *,
    seed: int = 0,
) -> Circuit:
    """The smallest circuit of a task that a ranking without learning gives, in one call.

    Args:
      model: the frozen network.
      task: binary task.
      ranking: see `prune.baselines`.
      prune: static configuration, of which what concerns training is not read; None for the defaults.
      seed: of a random ranking, and of the order of units with equal scores.

    Returns:
      The circuit; `provenance["reached"]` says whether it meets the target on validation, and
      `provenance["ranking"]` how nodes were ranked.
    """
    prune = prune or PruneConfig()
    jobs = [Job(seed, Baseline(ranking))]
    problem = make_problem(model, task, prune)
    found = pick(baseline_candidates(problem, jobs, score_jobs(problem, jobs)))
    return as_circuit(model, found, {**facts_of(task, prune, found), "ranking": ranking})
