"""Node pruning as a run in a directory: its identity, stages, pictures and report."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from circuitjax.audit.evidence import baseline, evidence
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import (
    Candidate,
    Job,
    as_circuit,
    candidates_of,
    empty_candidate,
    initial_state,
    pick,
    train_masks,
)
from circuitjax.circuit.graph import total_edges
from circuitjax.model.record import Model
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.problem import make_problem
from circuitjax.prune.train import MaskState, OnChunk
from circuitjax.report.drawing import draw_circuit
from circuitjax.report.plots import plot_loss_vs_k, plot_training
from circuitjax.report.run_directory import versions
from circuitjax.tasks.base import Pair, Task

__all__ = ["NodeWork", "PruneRun", "pool_digest"]


@dataclasses.dataclass(frozen=True, eq=False)
class PruneRun:
    """What to do and where; a `Run`.

    Attributes:
      model, task: the frozen network and the task.
      prune: static configuration.
      jobs: pruning runs to choose from (seeds times settings).
      directory: of the run.
    """

    model: Model
    task: Task
    prune: PruneConfig
    jobs: Sequence[Job]
    directory: pathlib.Path

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


def pool_digest(pool: Sequence[Pair]) -> str:
    """Of a file's pairs: a task of that name with other pairs is another task."""
    return hashlib.sha256(json.dumps([list(pair) for pair in pool]).encode()).hexdigest()


class NodeWork:
    """The stages of node pruning; a `Work`."""

    metrics = ("loss", "task", "k", "gradient_rms")

    def __init__(self, run: PruneRun) -> None:
        """Draws the task's data for the model."""
        self._run = run
        self._problem = make_problem(run.model, run.task, run.prune)
        self._candidates: list[Candidate] = []
        self._circuit: Circuit | None = None

    @property
    def jobs(self) -> int:
        """J."""
        return len(self._run.jobs)

    @property
    def steps(self) -> int:
        """Training steps of each."""
        return self._run.prune.steps

    def baseline(self) -> dict[str, Any]:
        """Losses of the whole model and of the empty circuit."""
        return baseline(self._problem)

    def is_trivial(self, base: Mapping[str, Any]) -> bool:
        """Whether nothing at all meets the target."""
        return bool(base["loss_empty"] <= self._run.prune.target_loss)

    def initial_state(self) -> MaskState:
        """J jobs before their first step."""
        return initial_state(self._problem, self._run.jobs)

    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Trains the masks."""
        return train_masks(self._problem, state, on_chunk)

    def select(self, state: MaskState | None) -> None:
        """Selects and cleans up every job's circuit, and keeps the best."""
        run = self._run
        if state is None:
            self._candidates = [empty_candidate(self._problem, run.jobs[0])]
        else:
            self._candidates = candidates_of(self._problem, run.jobs, state)
        facts = {**run.identity(), "versions": versions()}
        self._circuit = as_circuit(run.model, self.best, facts)

    @property
    def best(self) -> Candidate:
        """The candidate that became the circuit."""
        return pick(self._candidates)

    @property
    def circuit(self) -> Circuit:
        """The circuit, once selected."""
        assert self._circuit is not None, "select comes first"
        return self._circuit

    def evidence(self) -> dict[str, Any]:
        """Sufficiency, necessity, faithfulness."""
        return evidence(self._problem, self.circuit, self.best.job.seed)

    def write(
        self, directory: pathlib.Path, base: Mapping[str, Any], history: Mapping[str, np.ndarray]
    ) -> None:
        """Saves the circuit and draws it."""
        run, best = self._run, self.best
        self.circuit.save(directory / "circuit", run.model)
        _draw(run, self._candidates, best, base, history)
        draw_circuit(
            directory / "circuit.png",
            run.model,
            self.circuit,
            f"{run.task.name} on {run.model.name}: {best.nodes} nodes, {best.edges} edges",
        )

    def summary(self, base: Mapping[str, Any], history: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The report's own fields."""
        run, best, candidates = self._run, self.best, self._candidates
        trained = history["k"][:, -1] if history else np.zeros(len(candidates))
        rows = [_job_row(c, int(k)) for c, k in zip(candidates, trained, strict=True)]
        mine = rows[candidates.index(best)]
        params = jax.tree.map(np.asarray, dict(self._problem.params))
        return {
            "reached": best.choice.reached,
            "loss_validation": best.choice.loss,
            "method": "nodes",
            "model": run.model.name,
            "model_hash": run.model.hash,
            "task": run.task.name,
            "seed": best.job.seed,
            "ablation": run.prune.ablation,
            "target_loss": run.prune.target_loss,
            "nodes": best.nodes,
            "nodes_total": run.model.config.num_nodes,
            "edges": best.edges,
            "edges_total": total_edges(run.model.config, params),
            **{
                name: mine[name]
                for name in ("nodes_before_cleanup", "k_after_training", "k_inside", "k_after")
            },
            "calibration": {
                "mode": run.prune.calibrate,
                "scale": best.choice.scale,
                "shift": best.choice.shift,
            },
            "jobs": rows,
        }


def _label(run: PruneRun, job: Job) -> str:
    seeds = {j.seed for j in run.jobs}
    text = f"k_coef {float(job.hyper.k_coef):.2g}"
    return f"seed {job.seed}, {text}" if len(seeds) > 1 else text


def _draw(
    run: PruneRun,
    candidates: Sequence[Candidate],
    best: Candidate,
    base: Mapping[str, float],
    history: Mapping[str, np.ndarray],
) -> None:
    title = f"{run.task.name} on {run.model.name}"
    curves = [
        {"label": _label(run, c.job), "curve": c.choice.curve, "k": c.choice.selection.k}
        for c in candidates
    ]
    plot_loss_vs_k(
        run.directory / "loss_vs_k.png",
        curves,
        target=run.prune.target_loss,
        title=f"{title}: validation loss of the first k nodes",
        unpruned=base["loss_unpruned"],
        chosen=candidates.index(best),
    )
    if history:
        labels = [_label(run, job) for job in run.jobs]
        plot_training(
            run.directory / "training.png",
            history,
            labels,
            target=run.prune.target_loss,
            title=f"{title}: mask training",
        )


def _job_row(found: Candidate, k_trained: int) -> dict[str, Any]:
    choice = found.choice
    return {
        "seed": found.job.seed,
        "hyper": found.job.hyper.to_dict(),
        "reached": choice.reached,
        "nodes": found.nodes,
        "edges": found.edges,
        "nodes_before_cleanup": sum(int(m.sum()) for m in choice.mask.values()),
        "removed": dict(found.removed),
        "k_after_training": k_trained,
        "k_inside": choice.k_inside,
        "k_after": choice.k_after,
        "loss_validation": choice.loss,
        "loss_validation_uncalibrated": choice.loss_uncalibrated,
        "curve": [
            [value if np.isfinite(value) else None for value in point] for point in choice.curve
        ],
    }
