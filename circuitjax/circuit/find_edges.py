"""Finding a circuit of residual edges: train gates, select, and keep the best of the jobs.

edge problem -> train_edges (J jobs, one program) -> choose_edges, per job -> best -> EdgeCircuit
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuitjax.circuit.edge_circuit import EdgeCircuit, flatten_writers
from circuitjax.model.record import Model
from circuitjax.prune.opening import GateHyper
from circuitjax.prune.residual import EdgeConfig, ResidualMasks, active_edges
from circuitjax.prune.residual_problem import EdgeProblem, make_edge_problem
from circuitjax.prune.residual_select import EdgeChoice, choose_edges, look_at
from circuitjax.prune.train import Job, MaskState, OnChunk, run_chunks, start_jobs
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask

__all__ = [
    "DEFAULT_SPARSITIES",
    "EdgeCandidate",
    "as_edge_circuit",
    "default_edge_hyper",
    "default_edge_jobs",
    "edge_candidates",
    "empty_edge_candidate",
    "find_edge_circuit",
    "initial_edge_state",
    "pick_edges",
    "train_edges",
]

# Fractions of edges to close that are tried side by side by default.
DEFAULT_SPARSITIES = (0.95, 0.99)


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeCandidate:
    """A job and what was selected from it."""

    job: Job
    choice: EdgeChoice

    @property
    def edges(self) -> int:
        """Connected edges kept."""
        return int(self.choice.kept.sum())


def default_edge_hyper(settings: EdgeConfig, **changes: float) -> GateHyper:
    """Hyperparameters that suit the way the gates open.

    Hard concrete: log_alpha starts at 2 (a gate is open with probability 0.97), where gates still have
    a gradient; the published start of 10 has hardly any and relies on weight decay to come down.
    Heaviside: the KL has no gradient while all gates are open, so the start must spread them, or all
    close in one step; node gates, through which a closed product passes nothing, are best left out.

    Raises:
      ValueError: a value outside its limits.
    """
    if settings.gate == "hard_concrete":
        values = {"lr": 0.3, "wd": 0.01, "inv_beta2": 0.01, "init": 2.0}
        values |= {"init_noise_scale": 0.01, "target_sparsity": 0.95}
    else:
        values = {"lr": 0.02, "k_coef": 0.01}
    hyper = GateHyper(**{**values, **changes})
    hyper.check()
    return hyper


def initial_edge_state(problem: EdgeProblem, jobs: Sequence[Job]) -> MaskState:
    """J jobs before their first step."""
    return start_jobs(ResidualMasks(problem.config, problem.settings), jobs)


def train_edges(
    problem: EdgeProblem, state: MaskState, on_chunk: OnChunk = lambda state, metrics: None
) -> MaskState:
    """Runs what is left of the training; see `prune.train.run_chunks`."""
    return run_chunks(
        ResidualMasks(problem.config, problem.settings),
        state,
        (problem.params, problem.fixed),
        problem.train,
        problem.settings.chunk,
        on_chunk,
    )


def edge_candidates(
    problem: EdgeProblem, jobs: Sequence[Job], state: MaskState
) -> list[EdgeCandidate]:
    """What is selected from every trained job."""
    choices = choose_edges(problem, state)
    return [EdgeCandidate(job, choice) for job, choice in zip(jobs, choices, strict=True)]


def empty_edge_candidate(problem: EdgeProblem, job: Job) -> EdgeCandidate:
    """The circuit without an edge, which solves a trivial task; calibrated where selection is."""
    closed = np.zeros(len(active_edges(problem.config, problem.settings.ablation)), bool)
    return EdgeCandidate(job, look_at(problem, closed))


def pick_edges(problem: EdgeProblem, candidates: Sequence[EdgeCandidate]) -> EdgeCandidate:
    """The fewest edges among those that meet the target; at a given size, the lowest loss."""

    def cost(found: EdgeCandidate) -> tuple[float, ...]:
        loss = found.choice.selection.loss
        if not found.choice.reached:
            return (1, loss, found.edges)
        if problem.settings.target in ("loss", "kl"):
            return (0, found.edges, loss)
        return (0, found.choice.kl, found.edges)

    return min(candidates, key=cost)


def as_edge_circuit(
    model: Model, problem: EdgeProblem, found: EdgeCandidate, provenance: Mapping[str, Any]
) -> EdgeCircuit:
    """The candidate as a value that can be saved and run."""
    return EdgeCircuit(
        model_name=model.name,
        model_hash=model.hash,
        config=model.config,
        kept=found.choice.kept,
        ablation=problem.settings.ablation,
        fixed=None if problem.fixed is None else flatten_writers(problem.fixed),
        scale=found.choice.scale,
        shift=found.choice.shift,
        provenance=dict(provenance),
    )


def find_edge_circuit(
    model: Model,
    task: Task | ContrastTask,
    settings: EdgeConfig | None = None,
    *,
    seed: int = 0,
    jobs: Sequence[Job] | None = None,
    on_chunk: OnChunk = lambda state, metrics: None,
) -> EdgeCircuit:
    """Finds a circuit of residual edges, in one call.

    Args:
      model: the frozen network.
      task: a contrast task, or a binary one.
      settings: static configuration; None for the defaults.
      seed: of gates and batches; the data sets have their own fixed seed.
      jobs: runs to choose from; None for the default sparsities at `seed`.
      on_chunk: see `prune.train.run_chunks`.

    Returns:
      The circuit; `provenance["reached"]` says whether it meets the target on validation.
    """
    settings = settings or EdgeConfig()
    jobs = jobs or default_edge_jobs(settings, [seed])
    problem = make_edge_problem(model, task, settings)
    state = train_edges(problem, initial_edge_state(problem, jobs), on_chunk)
    found = pick_edges(problem, edge_candidates(problem, jobs, state))
    return as_edge_circuit(
        model,
        problem,
        found,
        {
            "task": task.name,
            "seed": found.job.seed,
            "reached": found.choice.reached,
            "config": settings.to_dict(),
            "hyper": found.job.hyper.to_dict(),
        },
    )


def default_edge_jobs(settings: EdgeConfig, seeds: Sequence[int], **changes: float) -> list[Job]:
    """Seeds times target sparsities: the default ones, or just the one in `changes`."""
    held = settings.control == "lagrangian" and "target_sparsity" not in changes
    varied = [{"target_sparsity": value} for value in DEFAULT_SPARSITIES] if held else [{}]
    return [
        Job(seed, default_edge_hyper(settings, **{**changes, **more}))
        for seed in seeds
        for more in varied
    ]
