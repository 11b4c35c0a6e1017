"""Residual-edge pruning as a run in a directory: its identity, stages, pictures and report."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuitjax.audit.edge_evidence import edge_baseline, edge_evidence
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.circuit.find_edges import (
    EdgeCandidate,
    as_edge_circuit,
    edge_candidates,
    empty_edge_candidate,
    initial_edge_state,
    pick_edges,
    train_edges,
)
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.prune.residual import EdgeConfig, active_edges
from circuitjax.prune.residual_problem import make_edge_problem
from circuitjax.prune.train import Job, MaskState, OnChunk
from circuitjax.report.pair_work import job_label, pool_digest
from circuitjax.report.plots import plot_edges, plot_training
from circuitjax.report.run_directory import versions
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask

__all__ = ["EdgeRun", "EdgeWork"]


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeRun:
    """What to do and where; a `Run`.

    Attributes:
      model, task: the frozen network and the task.
      settings: static configuration.
      jobs: runs to choose from (seeds times settings).
      directory: of the run.
    """

    model: Model
    task: Task | ContrastTask
    settings: EdgeConfig
    jobs: Sequence[Job]
    directory: pathlib.Path

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        pool = self.task.pool if isinstance(self.task, Task) else ()
        return {
            "method": "edges",
            "model": self.model.name,
            "model_hash": self.model.hash,
            "task": self.task.name,
            "pairs": pool_digest(pool) if pool else None,
            "settings": self.settings.to_dict(),
            "jobs": [{"seed": job.seed, **job.hyper.to_dict()} for job in self.jobs],
        }

    def begin(self) -> "EdgeWork":
        """Draws the data."""
        return EdgeWork(self)


class EdgeWork:
    """The stages of residual-edge pruning; a `Work`."""

    metrics = ("loss", "kl", "task", "k", "sparsity", "gradient_rms")

    def __init__(self, run: EdgeRun) -> None:
        """Draws the task's data for the model."""
        self._run = run
        self._problem = make_edge_problem(run.model, run.task, run.settings)
        self._candidates: list[EdgeCandidate] = []
        self._circuit: EdgeCircuit | None = None

    @property
    def jobs(self) -> int:
        """J."""
        return len(self._run.jobs)

    @property
    def steps(self) -> int:
        """Training steps of each."""
        return self._run.settings.steps

    def baseline(self) -> dict[str, Any]:
        """Figures of the whole model and with every edge closed."""
        return edge_baseline(self._problem)

    def is_trivial(self, base: Mapping[str, Any]) -> bool:
        """Whether no edge at all meets the target."""
        settings = self._run.settings
        figure = {"loss": "loss_empty", "kl": "kl_empty"}.get(settings.target)
        return figure is not None and bool(base[figure] <= settings.target_value)

    def initial_state(self) -> MaskState:
        """J jobs before their first step."""
        return initial_edge_state(self._problem, self._run.jobs)

    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Trains the gates."""
        return train_edges(self._problem, state, on_chunk)

    def select(self, state: MaskState | None) -> None:
        """Cuts every job's ranking at the target, and keeps the best."""
        run = self._run
        if state is None:
            self._candidates = [empty_edge_candidate(self._problem, run.jobs[0])]
        else:
            self._candidates = edge_candidates(self._problem, run.jobs, state)
        facts = {**run.identity(), "versions": versions()}
        self._circuit = as_edge_circuit(run.model, self._problem, self.best, facts)

    @property
    def best(self) -> EdgeCandidate:
        """The candidate that became the circuit."""
        return pick_edges(self._problem, self._candidates)

    @property
    def circuit(self) -> EdgeCircuit:
        """The circuit, once selected."""
        assert self._circuit is not None, "select comes first"
        return self._circuit

    def evidence(self) -> dict[str, Any]:
        """Sufficiency, necessity, faithfulness."""
        return edge_evidence(self._problem, self.circuit, self.best.job.seed)

    def write(
        self, directory: pathlib.Path, base: Mapping[str, Any], history: Mapping[str, np.ndarray]
    ) -> None:
        """Saves the circuit and draws how it was found."""
        run = self._run
        self.circuit.save(directory / "circuit", run.model)
        labels = [_label(run, candidate.job) for candidate in self._candidates]
        curves = [candidate.choice.curve for candidate in self._candidates]
        title = f"{run.task.name} on {run.model.name}, {run.settings.ablation} ablation"
        chosen = (self._candidates.index(self.best), self.best.edges)
        target = run.settings.target_value
        for name, column in (("kl", 2), ("loss", 4)):
            aimed = target if run.settings.target == name else None
            path = directory / ("kl_vs_edges.png" if name == "kl" else "loss_vs_k.png")
            points = [[(point[1], point[column]) for point in curve] for curve in curves]
            unit = "KL(model || circuit) (nats)" if name == "kl" else "task loss (nats)"
            plot_edges(path, points, labels, chosen=chosen, target=aimed, title=title, unit=unit)
        if history:
            plot_training(
                directory / "training.png",
                history,
                labels,
                target=target if run.settings.target == "loss" else None,
                title=f"{title}: training of the gates",
                unit="expected open edges",
            )

    def summary(self, base: Mapping[str, Any], history: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The report's own fields."""
        run, best, config = self._run, self.best, self._problem.config
        graph = residual_graph(config)
        active = active_edges(config, run.settings.ablation)
        return {
            "reached": best.choice.reached,
            "loss_validation": best.choice.loss,
            "method": "edges",
            "model": run.model.name,
            "model_hash": run.model.hash,
            "task": run.task.name,
            "seed": best.job.seed,
            "ablation": run.settings.ablation,
            "target": run.settings.target,
            "target_loss": run.settings.target_value if run.settings.target == "loss" else None,
            "target_value": run.settings.target_value,
            "nodes": len(self.circuit.nodes),
            "nodes_total": len(graph.writers) + 1,
            "edges": best.edges,
            "edges_total": int(active.sum()),
            "edges_of_positions": int((~active).sum()),
            "sparsity": 1 - best.edges / int(active.sum()),
            "calibration": {"scale": best.choice.scale, "shift": best.choice.shift},
            "jobs": [
                _job_row(candidate, int(active.sum()), index, history)
                for index, candidate in enumerate(self._candidates)
            ],
        }


def _label(run: EdgeRun, job: Job) -> str:
    held = run.settings.control == "lagrangian"
    text = (
        f"sparsity {float(job.hyper.target_sparsity):.3f}"
        if held
        else f"k_coef {float(job.hyper.k_coef):.2g}"
    )
    return job_label(run.jobs, job, text)


def _job_row(
    found: EdgeCandidate, total: int, index: int, history: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    choice = found.choice
    return {
        "seed": found.job.seed,
        "hyper": found.job.hyper.to_dict(),
        "reached": choice.reached,
        "edges": found.edges,
        "unconnected": choice.unconnected,
        "sparsity_requested": float(found.job.hyper.target_sparsity),
        "sparsity_expected": float(history["sparsity"][index, -1]) if history else None,
        "sparsity_soft": 1 - choice.soft / total,
        "kl_validation": choice.kl,
        "loss_validation": choice.loss,
        "loss_validation_uncalibrated": choice.loss_uncalibrated,
        "curve": [list(point) for point in choice.curve],
    }
