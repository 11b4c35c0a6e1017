"""Node pruning as a run in a directory: its identity, stages, pictures and report."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import (
    Candidate,
    Job,
    as_circuit,
    candidates_of,
    empty_candidate,
    initial_state,
    train_masks,
)
from circuitjax.model.record import Model
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.train import MaskState, OnChunk
from circuitjax.report.pair_work import PairWork, pool_digest
from circuitjax.report.shared import Shared, draw_problem
from circuitjax.tasks.base import Task

__all__ = ["NodeWork", "PruneRun"]


@dataclasses.dataclass(frozen=True, eq=False)
class PruneRun:
    """What to do and where; a `Run`.

    Attributes:
      model, task: the frozen network and the task.
      prune: static configuration.
      jobs: pruning runs to choose from (seeds times settings).
      directory: of the run.
      shared: what it has in common with other runs; the outcome is the same without.
    """

    model: Model
    task: Task
    prune: PruneConfig
    jobs: Sequence[Job]
    directory: pathlib.Path
    shared: Shared | None = None

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "model": self.model.name,
            "model_hash": self.model.hash,
            "task": self.task.name,
            "pairs": pool_digest(self.task.pool) if self.task.pool else None,
            "prune": self.prune.to_dict(),
            "jobs": [{"seed": job.seed, **job.hyper.to_dict()} for job in self.jobs],
        }

    def begin(self) -> "NodeWork":
        """Draws the data."""
        return NodeWork(self)


class NodeWork(PairWork[Candidate]):
    """The stages of node pruning; a `Work`.

    Attributes:
      ranking: how nodes are ranked, for the record.
    """

    unit = "nodes"
    ranking = "learned"

    def __init__(self, run: PruneRun) -> None:
        """Draws the task's data for the model."""
        super().__init__(run, draw_problem(run.shared, run.model, run.task, run.prune))
        self.shared = run.shared

    def baseline(self) -> dict[str, Any]:
        """Losses of the whole model and of the empty circuit."""
        if self.shared is None:
            return super().baseline()
        return self.shared.keep("baseline", super().baseline)

    @property
    def memory(self) -> AnswerMemory | None:
        """Of answers that other runs may have asked for."""
        return None if self.shared is None else self.shared.memory

    def initial_state(self) -> MaskState:
        """J jobs before their first step."""
        return initial_state(self.problem, self.run.jobs)

    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Trains the masks, or takes them from the training that runs share."""
        if self.shared is None or int(state.step[0]) == self.steps:
            return train_masks(self.problem, state, on_chunk)
        state, history = self.shared.trained(self.problem, self.run.jobs)
        on_chunk(state, history)
        return state

    def candidates_of(self, state: MaskState | None) -> list[Candidate]:
        """Every job's circuit, selected and cleaned up; or the empty one."""
        if state is None:
            return [empty_candidate(self.problem, self.run.jobs[0])]
        return candidates_of(self.problem, self.run.jobs, state, self.memory)

    def circuit_of(self, best: Candidate, facts: Mapping[str, Any]) -> Circuit:
        """The candidate as a value."""
        return as_circuit(self.run.model, best, {**facts, "ranking": self.ranking})

    def own_fields(self, mine: Mapping[str, Any]) -> dict[str, Any]:
        """What only a report of nodes says."""
        return {"nodes_before_cleanup": mine["nodes_before_cleanup"], "ranking": self.ranking}
