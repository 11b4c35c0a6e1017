"""Weight pruning as a run in a directory: its identity, stages, pictures and report."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import Job, empty_candidate
from circuitjax.circuit.find_weights import (
    WeightCandidate,
    as_weight_circuit,
    initial_weights,
    train_weights,
    weight_candidates,
    weight_problem,
)
from circuitjax.circuit.graph import edge_masks
from circuitjax.model.record import Model
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.opening import Control, GateKind
from circuitjax.prune.problem import make_problem
from circuitjax.prune.train import MaskState, OnChunk
from circuitjax.report.pair_work import PairWork, pool_digest
from circuitjax.tasks.base import Task

__all__ = ["WeightRun", "WeightWork"]


@dataclasses.dataclass(frozen=True, eq=False)
class WeightRun:
    """What to do and where; a `Run`.

    Attributes:
      model, task: the frozen network and the task.
      prune: static configuration.
      jobs: runs to choose from (seeds times settings).
      directory: of the run.
      start: a node circuit of the model to prune further; None for the whole model.
      gate, control, node_gates: see `prune.weights.WeightMasks`.
    """

    model: Model
    task: Task
    prune: PruneConfig
    jobs: Sequence[Job]
    directory: pathlib.Path
    start: Circuit | None = None
    gate: GateKind = "heaviside"
    control: Control = "hold"
    node_gates: bool = False

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "method": "weights",
            "model": self.model.name,
            "model_hash": self.model.hash,
            "task": self.task.name,
            "pairs": pool_digest(self.task.pool) if self.task.pool else None,
            "prune": self.prune.to_dict(),
            "start": None if self.start is None else self.start.nodes,
            "gate": self.gate,
            "control": self.control,
            "node_gates": self.node_gates,
            "jobs": [{"seed": job.seed, **job.hyper.to_dict()} for job in self.jobs],
        }

    def begin(self) -> "WeightWork":
        """Draws the data."""
        return WeightWork(self)


class WeightWork(PairWork[WeightCandidate]):
    """The stages of weight pruning; a `Work`."""

    unit = "weights"

    def __init__(self, run: WeightRun) -> None:
        """Draws the task's data and puts a gate on every weight."""
        if run.start is not None:
            run.start.check_model(run.model)
        super().__init__(run, make_problem(run.model, run.task, run.prune))
        self._start = run.start
        self._work = weight_problem(
            self.problem,
            run.start,
            gate=run.gate,
            control=run.control,
            node_gates=run.node_gates,
        )

    def initial_state(self) -> MaskState:
        """J jobs before their first step."""
        return initial_weights(self._work, self.run.jobs)

    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Trains the gates."""
        return train_weights(self._work, state, on_chunk)

    def candidates_of(self, state: MaskState | None) -> list[WeightCandidate]:
        """Every job's circuit, selected and cleaned up; or the empty one."""
        if state is not None:
            return weight_candidates(self._work, self.run.jobs, state)
        empty = empty_candidate(self.problem, self.run.jobs[0])
        params = jax.tree.map(np.asarray, dict(self.problem.params))
        weights = edge_masks(self.problem.config, params, empty.mask)
        return [
            WeightCandidate(
                empty.job, empty.choice, empty.mask, empty.fills, empty.removed, 0, weights
            )
        ]

    def circuit_of(self, best: WeightCandidate, facts: Mapping[str, Any]) -> Circuit:
        """The candidate as a value."""
        return as_weight_circuit(self.run.model, best, facts)

    def own_fields(self, mine: Mapping[str, Any]) -> dict[str, Any]:
        """What only a report of weights says."""
        start = self._start
        return {"started_from": "model" if start is None else f"{start.num_nodes} nodes"}
