"""What runs on binary tasks share: stages, pictures and report, whatever the grain of their gates."""

import abc
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np

from circuitjax.audit.evidence import baseline, evidence
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import Candidate, pick
from circuitjax.circuit.graph import total_edges
from circuitjax.model.record import Model
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import Job, MaskState, OnChunk
from circuitjax.report.drawing import draw_circuit
from circuitjax.report.plots import plot_loss_vs_k, plot_training
from circuitjax.report.run_directory import versions
from circuitjax.report.shared import METRICS
from circuitjax.tasks.base import Pair, Task

__all__ = ["PairRun", "PairWork", "job_label", "pool_digest"]

Found = TypeVar("Found", bound=Candidate)


class PairRun(Protocol):
    """A run of any grain on a binary task."""

    @property
    def model(self) -> Model:
        """The frozen network."""

    @property
    def task(self) -> Task:
        """The task."""

    @property
    def prune(self) -> PruneConfig:
        """Static configuration."""

    @property
    def jobs(self) -> Sequence[Job]:
        """Runs to choose from."""

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""


def pool_digest(pool: Sequence[Pair]) -> str:
    """Of a file's pairs: a task of that name with other pairs is another task."""
    return hashlib.sha256(json.dumps([list(pair) for pair in pool]).encode()).hexdigest()


def job_label(jobs: Sequence[Job], job: Job, setting: str) -> str:
    """A job's name in a legend: its setting, and its seed where there are several."""
    several = len({other.seed for other in jobs}) > 1
    return f"seed {job.seed}, {setting}" if several else setting


class PairWork(abc.ABC, Generic[Found]):
    """The stages of a run on a binary task; a `Work`. A grain adds what is its own.

    Attributes:
      unit: what k counts: `nodes` or `weights`.
    """

    metrics: Sequence[str] = METRICS
    unit: str

    def __init__(self, run: PairRun, problem: Problem) -> None:
        """Takes the run and its data."""
        self.run, self.problem = run, problem
        self.candidates: list[Found] = []
        self._circuit: Circuit | None = None

    @property
    def jobs(self) -> int:
        """J."""
        return len(self.run.jobs)

    @property
    def steps(self) -> int:
        """Training steps of each."""
        return self.run.prune.steps

    @property
    def best(self) -> Found:
        """The candidate that became the circuit."""
        return pick(self.candidates)

    @property
    def circuit(self) -> Circuit:
        """The circuit, once selected."""
        assert self._circuit is not None, "select comes first"
        return self._circuit

    def label(self, job: Job) -> str:
        """The job's name in a legend."""
        return job_label(self.run.jobs, job, f"k_coef {float(job.hyper.k_coef):.2g}")

    @abc.abstractmethod
    def initial_state(self) -> MaskState:
        """J jobs before their first step."""

    @abc.abstractmethod
    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Runs what is left of the training."""

    @abc.abstractmethod
    def candidates_of(self, state: MaskState | None) -> list[Found]:
        """Every job's circuit, selected and cleaned up; the empty one for None."""

    @abc.abstractmethod
    def circuit_of(self, best: Found, facts: Mapping[str, Any]) -> Circuit:
        """The candidate as a value."""

    @abc.abstractmethod
    def own_fields(self, mine: Mapping[str, Any]) -> dict[str, Any]:
        """What only this grain's report says; `mine` is the row of the chosen job."""

    def baseline(self) -> dict[str, Any]:
        """Losses of the whole model and of the empty circuit."""
        return baseline(self.problem)

    def is_trivial(self, base: Mapping[str, Any]) -> bool:
        """Whether nothing at all meets the target."""
        return bool(base["loss_empty"] <= self.run.prune.target_loss)

    def select(self, state: MaskState | None) -> None:
        """Selects and cleans up every job's circuit, and keeps the best."""
        self.candidates = self.candidates_of(state)
        job = self.best.job
        facts = {
            **self.run.identity(),
            "chosen": {"seed": job.seed, **job.hyper.to_dict()},
            "versions": versions(),
        }
        self._circuit = self.circuit_of(self.best, facts)

    def evidence(self) -> dict[str, Any]:
        """Sufficiency, necessity of the circuit's nodes, faithfulness."""
        return evidence(self.problem, self.circuit, self.best.job.seed)

    def write(
        self, directory: pathlib.Path, base: Mapping[str, Any], history: Mapping[str, np.ndarray]
    ) -> None:
        """Saves the circuit and draws it, and how it was found."""
        run, best = self.run, self.best
        self.circuit.save(directory / "circuit", run.model)
        title = f"{run.task.name} on {run.model.name}"
        labels = [self.label(c.job) for c in self.candidates]
        plot_loss_vs_k(
            directory / "loss_vs_k.png",
            [
                {"label": label, "curve": c.choice.curve, "k": c.choice.selection.k}
                for label, c in zip(labels, self.candidates, strict=True)
            ],
            target=run.prune.target_loss,
            title=f"{title}: validation loss of the first k {self.unit}",
            unpruned=base["loss_unpruned"],
            chosen=self.candidates.index(best),
            unit=f"{self.unit} kept, k",
        )
        if history:
            plot_training(
                directory / "training.png",
                history,
                labels,
                target=run.prune.target_loss,
                title=f"{title}: training of the gates",
                unit=f"open {self.unit}",
            )
        draw_circuit(
            directory / "circuit.png",
            run.model,
            self.circuit,
            f"{title}: {best.nodes} nodes, {best.edges} edges",
        )

    def summary(self, base: Mapping[str, Any], history: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The report's own fields."""
        run, best = self.run, self.best
        trained = [round(float(k)) for k in history["k"][:, -1]] if history else []
        rows = [
            _job_row(c, trained[index] if trained else None)
            for index, c in enumerate(self.candidates)
        ]
        mine = rows[self.candidates.index(best)]
        params = jax.tree.map(np.asarray, dict(self.problem.params))
        return {
            "reached": best.choice.reached,
            "loss_validation": best.choice.loss,
            "method": self.unit,
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
            **{name: mine[name] for name in ("k_after_training", "k_inside", "k_after")},
            **self.own_fields(mine),
            "calibration": {
                "mode": run.prune.calibrate,
                "scale": best.choice.scale,
                "shift": best.choice.shift,
            },
            "jobs": rows,
        }


def _job_row(found: Candidate, k_trained: int | None) -> dict[str, Any]:
    choice = found.choice
    return {
        "seed": found.job.seed,
        "hyper": found.job.hyper.to_dict(),
        "reached": choice.reached,
        "rough": choice.rough,
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
