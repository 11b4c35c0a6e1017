"""A node circuit from a ranking without learning, as a run in a directory.

Everything but the ranking is node pruning's: data, selection, clean-up, evidence, report.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.find import Candidate, empty_candidate
from circuitjax.circuit.find_baseline import baseline_candidates, score_jobs
from circuitjax.prune.train import Job, MaskState, OnChunk
from circuitjax.report.pair_work import job_label
from circuitjax.report.prune_run import NodeWork, PruneRun

__all__ = ["BaselineRun", "BaselineWork"]


@dataclasses.dataclass(frozen=True, eq=False)
class BaselineRun(PruneRun):
    """What to do and where; a `Run`. Its jobs' hyperparameters are a `Baseline` each, of one kind."""

    def __post_init__(self) -> None:
        rankings = sorted({job.hyper.ranking for job in self.jobs})
        if len(rankings) != 1:
            raise ValueError(f"the jobs rank by {rankings}; a run has one ranking")

    @property
    def ranking(self) -> str:
        """How nodes are ranked."""
        return str(self.jobs[0].hyper.ranking)

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run: node pruning's, without what only training reads."""
        found = super().identity()
        unread = ("steps", "batch_size", "chunk")
        prune = {name: value for name, value in found["prune"].items() if name not in unread}
        return {**found, "prune": prune}

    def begin(self) -> "BaselineWork":
        """Draws the data."""
        return BaselineWork(self)


class BaselineWork(NodeWork):
    """The stages of a baseline; a `Work`. In place of training the nodes are scored, at once."""

    metrics = ()

    def __init__(self, run: BaselineRun) -> None:
        """Draws the task's data for the model."""
        super().__init__(run)
        self.ranking = run.ranking

    @property
    def steps(self) -> int:
        """Nothing is trained."""
        return 0

    def label(self, job: Job) -> str:
        """The job's name in a legend."""
        return job_label(self.run.jobs, job, f"ranked by {self.ranking}")

    def initial_state(self) -> MaskState:
        """J jobs without scores."""
        return MaskState(
            tau={}, adam=(), step=jnp.zeros(self.jobs, jnp.int32), key=jnp.zeros(()), hyper=()
        )

    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Scores `[J, U]` of all jobs."""
        problem, jobs = self.problem, self.run.jobs
        if self.shared is None:
            return dataclasses.replace(state, tau=score_jobs(problem, jobs))
        name = ("scores", *jobs)
        return dataclasses.replace(
            state, tau=self.shared.keep(name, lambda: score_jobs(problem, jobs))
        )

    def candidates_of(self, state: MaskState | None) -> list[Candidate]:
        """Every job's circuit, selected and cleaned up; or the empty one."""
        if state is None:
            return [empty_candidate(self.problem, self.run.jobs[0])]
        return baseline_candidates(self.problem, self.run.jobs, np.asarray(state.tau), self.memory)
