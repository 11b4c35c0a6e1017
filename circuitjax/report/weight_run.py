"""Weight pruning as a run in a directory: its identity, stages, pictures and report."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from circuitjax.audit.evidence import baseline, evidence
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import Job, empty_candidate, pick
from circuitjax.circuit.find_weights import (
    WeightCandidate,
    WeightJob,
    as_weight_circuit,
    initial_weights,
    train_weights,
    weight_candidates,
    weight_problem,
)
from circuitjax.circuit.graph import edge_masks, total_edges
from circuitjax.model.record import Model
from circuitjax.prune.config import PruneConfig, default_hyper
from circuitjax.prune.opening import Control, GateKind
from circuitjax.prune.problem import make_problem
from circuitjax.prune.train import MaskState, OnChunk
from circuitjax.report.drawing import draw_circuit
from circuitjax.report.plots import plot_loss_vs_k, plot_training
from circuitjax.report.prune_run import pool_digest
from circuitjax.report.run_directory import versions
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
    jobs: Sequence[WeightJob]
    directory: pathlib.Path
    start: Circuit | None = None
    gate: GateKind = "heaviside"
    control: Control = "count"
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


class WeightWork:
    """The stages of weight pruning; a `Work`."""

    metrics = ("loss", "task", "k", "gradient_rms")

    def __init__(self, run: WeightRun) -> None:
        """Draws the task's data and puts a gate on every weight."""
        self._run = run
        if run.start is not None:
            run.start.check_model(run.model)
        self._problem = make_problem(run.model, run.task, run.prune)
        self._work = weight_problem(
            self._problem,
            run.start,
            gate=run.gate,
            control=run.control,
            node_gates=run.node_gates,
        )
        self._candidates: list[WeightCandidate] = []
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
        return initial_weights(self._work, self._run.jobs)

    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Trains the gates."""
        return train_weights(self._work, state, on_chunk)

    def select(self, state: MaskState | None) -> None:
        """Selects and cleans up every job's circuit, and keeps the best."""
        run = self._run
        if state is None:
            job = run.jobs[0]
            empty = empty_candidate(
                self._problem, Job(job.seed, default_hyper(run.model.config.num_nodes))
            )
            params = jax.tree.map(np.asarray, dict(self._problem.params))
            weights = edge_masks(run.model.config, params, empty.mask)
            self._candidates = [
                WeightCandidate(job, empty.choice, empty.mask, empty.fills, weights, {}, 0)
            ]
        else:
            self._candidates = weight_candidates(self._work, run.jobs, state)
        facts = {**run.identity(), "versions": versions()}
        self._circuit = as_weight_circuit(run.model, self.best, facts)

    @property
    def best(self) -> WeightCandidate:
        """The candidate that became the circuit."""
        return pick(self._candidates)

    @property
    def circuit(self) -> Circuit:
        """The circuit, once selected."""
        assert self._circuit is not None, "select comes first"
        return self._circuit

    def evidence(self) -> dict[str, Any]:
        """Sufficiency, necessity (of the circuit's nodes), faithfulness."""
        return evidence(self._problem, self.circuit, self.best.job.seed)

    def write(
        self, directory: pathlib.Path, base: Mapping[str, Any], history: Mapping[str, np.ndarray]
    ) -> None:
        """Saves the circuit and draws it."""
        run, best = self._run, self.best
        self.circuit.save(directory / "circuit", run.model)
        title = f"{run.task.name} on {run.model.name}"
        labels = [_label(run, candidate.job) for candidate in self._candidates]
        plot_loss_vs_k(
            directory / "loss_vs_k.png",
            [
                {"label": label, "curve": c.choice.curve, "k": c.choice.selection.k}
                for label, c in zip(labels, self._candidates, strict=True)
            ],
            target=run.prune.target_loss,
            title=f"{title}: validation loss of the first k weights",
            unpruned=base["loss_unpruned"],
            chosen=self._candidates.index(best),
            unit="weights kept, k",
        )
        if history:
            plot_training(
                directory / "training.png",
                history,
                labels,
                target=run.prune.target_loss,
                title=f"{title}: training of the gates",
                unit="open weights",
            )
        draw_circuit(
            directory / "circuit.png",
            run.model,
            self.circuit,
            f"{title}: {best.nodes} nodes, {best.edges} edges",
        )

    def summary(self, base: Mapping[str, Any], history: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The report's own fields."""
        run, best = self._run, self.best
        params = jax.tree.map(np.asarray, dict(self._problem.params))
        trained = history["k"][:, -1] if history else np.zeros(len(self._candidates))
        rows = [
            _job_row(c, round(float(k))) for c, k in zip(self._candidates, trained, strict=True)
        ]
        mine = rows[self._candidates.index(best)]
        return {
            "reached": best.choice.reached,
            "loss_validation": best.choice.loss,
            "method": "weights",
            "model": run.model.name,
            "model_hash": run.model.hash,
            "task": run.task.name,
            "seed": best.job.seed,
            "ablation": run.prune.ablation,
            "target_loss": run.prune.target_loss,
            "started_from": "model" if run.start is None else f"{run.start.num_nodes} nodes",
            "nodes": best.nodes,
            "nodes_total": run.model.config.num_nodes,
            "edges": best.edges,
            "edges_total": total_edges(run.model.config, params),
            **{name: mine[name] for name in ("k_after_training", "k_inside", "k_after")},
            "calibration": {
                "mode": run.prune.calibrate,
                "scale": best.choice.scale,
                "shift": best.choice.shift,
            },
            "jobs": rows,
        }


def _label(run: WeightRun, job: WeightJob) -> str:
    text = f"k_coef {float(job.hyper.k_coef):.2g}"
    return f"seed {job.seed}, {text}" if len({j.seed for j in run.jobs}) > 1 else text


def _job_row(found: WeightCandidate, k_trained: int) -> dict[str, Any]:
    choice = found.choice
    return {
        "seed": found.job.seed,
        "hyper": found.job.hyper.to_dict(),
        "reached": choice.reached,
        "nodes": found.nodes,
        "edges": found.edges,
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
