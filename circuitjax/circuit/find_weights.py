"""Finding the weights of a circuit: gates on single weights, of the whole model or of a circuit.

    weight_problem -> train_weights (J jobs, one program) -> weight_candidates -> pick -> Circuit

Started from a circuit of nodes, training and selection run on its own small model where an exact
one exists, so that a step costs next to nothing beside one of the whole model.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.cleanup import cleanup
from circuitjax.circuit.find import Candidate, pick
from circuitjax.model.record import Model
from circuitjax.model.reduced import can_reduce
from circuitjax.model.sites import shapes
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.opening import Control, GateKind
from circuitjax.prune.packing import training_rows
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.train import Job, MaskState, OnChunk, run_chunks, start_jobs
from circuitjax.prune.weight_gates import (
    WeightData,
    WeightIndex,
    close_weights,
    reduce_weights,
    weight_index,
    whole_weights,
)
from circuitjax.prune.weight_select import choose_weights
from circuitjax.prune.weights import WeightMasks, default_weight_hyper
from circuitjax.tasks.base import Task

__all__ = [
    "WeightCandidate",
    "WeightProblem",
    "as_weight_circuit",
    "default_weight_jobs",
    "find_weight_circuit",
    "initial_weights",
    "train_weights",
    "weight_candidates",
    "weight_problem",
]

# Multiples of the default k_coef that are tried side by side where it is fixed.
K_COEF_MULTIPLES = (0.5, 1.5)


@dataclasses.dataclass(frozen=True, eq=False)
class WeightProblem:
    """A pruning problem whose gates sit on weights.

    Attributes:
      problem: model, task, data sets.
      mask, fills: {site: `[L, W]`} of the nodes to start from.
      index: where the gates sit in the model.
      data: what training looks at, on the device.
      objective: what is minimised.
    """

    problem: Problem
    mask: Mapping[str, np.ndarray]
    fills: Mapping[str, np.ndarray]
    index: WeightIndex
    data: WeightData
    objective: WeightMasks

    @property
    def num_weights(self) -> int:
        """Number of weights that have a gate."""
        return int(np.count_nonzero(np.asarray(self.index.real())))


@dataclasses.dataclass(frozen=True, eq=False)
class WeightCandidate(Candidate):
    """A job's outcome; its choice's k counts weights, its edges are open weights between kept nodes.

    Attributes:
      weights: {family name: bool `[L, in, out]`}, see `Circuit.weights`.
    """

    weights: Mapping[str, np.ndarray]


def weight_problem(
    problem: Problem,
    start: Circuit | None = None,
    *,
    gate: GateKind = "heaviside",
    control: Control = "hold",
    node_gates: bool = False,
) -> WeightProblem:
    """Puts a gate on every nonzero weight, of the whole model or of a circuit of nodes.

    Args:
      problem: model, task, data sets.
      start: a circuit of the same model, whose closed nodes stay closed at its fills.
      gate, control, node_gates: see `WeightMasks`.

    Raises:
      ValueError: no weight to prune, or a start whose weights are pruned already.
    """
    config, params = problem.config, jax.tree.map(np.asarray, dict(problem.params))
    if start is None:
        mask = {site: np.ones(shape, bool) for site, shape in shapes(config).items()}
        fills = {site: np.asarray(fill) for site, fill in problem.fills.items()}
    else:
        if start.weights is not None:
            raise ValueError(
                "the circuit to start from has closed weights: start from one of nodes"
            )
        mask, fills = dict(start.mask), dict(start.fills)
    index = weight_index(config, params, mask)
    if not np.any(np.asarray(index.real())):
        raise ValueError("there is no nonzero weight between kept nodes: nothing can be pruned")
    nodes = sum(int(kept.sum()) for kept in mask.values())
    if can_reduce(config) and 2 * nodes < config.num_nodes:
        data = reduce_weights(config, params, fills, mask, index, own_widths=True)
    else:
        data = whole_weights(problem.params, fills, mask, index)
    objective = WeightMasks(config, problem.prune, index.total, gate, control, node_gates)
    return WeightProblem(problem, mask, fills, index, data, objective)


def default_weight_jobs(
    num_weights: int,
    seeds: Sequence[int],
    gate: GateKind = "heaviside",
    control: Control = "hold",
    **changes: float,
) -> list[Job]:
    """Seeds times settings; those of `count` are several `k_coef`, or just the one in `changes`.

    Raises:
      ValueError: a hyperparameter out of range.
    """
    centre = float(default_weight_hyper(num_weights, gate, control).k_coef)
    several = control == "count" and "k_coef" not in changes
    settings = [
        default_weight_hyper(num_weights, gate, control, **{"k_coef": centre * multiple, **changes})
        for multiple in (K_COEF_MULTIPLES if several else (1.0,))
    ]
    return [Job(seed, hyper) for seed in seeds for hyper in settings]


def initial_weights(work: WeightProblem, jobs: Sequence[Job]) -> MaskState:
    """J jobs before their first step."""
    return start_jobs(work.objective, jobs)


def train_weights(
    work: WeightProblem, state: MaskState, on_chunk: OnChunk = lambda state, metrics: None
) -> MaskState:
    """Runs what is left of the training, in chunks; see `prune.train.run_chunks`."""
    problem = work.problem
    rows = training_rows(problem.train, problem.config.causal, problem.prune.batch_size)
    return run_chunks(work.objective, state, work.data, rows, problem.prune.chunk, on_chunk)


def weight_candidates(
    work: WeightProblem, jobs: Sequence[Job], state: MaskState
) -> list[WeightCandidate]:
    """Selects and cleans every trained job."""
    problem = work.problem
    config, params = problem.config, jax.tree.map(np.asarray, dict(problem.params))
    chosen = choose_weights(
        problem,
        work.objective,
        state,
        work.data,
        (work.index, work.mask, work.fills),
    )
    found = []
    for job, one in zip(jobs, chosen, strict=True):
        weights = work.index.opened(config, one.opened)
        gated = close_weights(config, params, work.fills, weights)
        mask, fills, report = cleanup(*gated, one.choice.mask, work.fills)
        found.append(
            WeightCandidate(
                job, one.choice, mask, fills, report.counts, report.edges_after, weights
            )
        )
    return found


def as_weight_circuit(
    model: Model, found: WeightCandidate, provenance: Mapping[str, Any]
) -> Circuit:
    """The candidate as a value that can be saved and run."""
    return Circuit(
        model_name=model.name,
        model_hash=model.hash,
        config=model.config,
        mask=found.mask,
        fills=found.fills,
        scale=found.choice.scale,
        shift=found.choice.shift,
        provenance=dict(provenance),
        weights=found.weights,
    )


def find_weight_circuit(
    model: Model,
    task: Task,
    prune: PruneConfig | None = None,
    *,
    start: Circuit | None = None,
    jobs: Sequence[Job] | None = None,
    gate: GateKind = "heaviside",
    control: Control = "hold",
    node_gates: bool = False,
    seed: int = 0,
    on_chunk: OnChunk = lambda state, metrics: None,
) -> Circuit:
    """Finds the fewest weights that do a task, in one call.

    Args:
      model: the frozen network.
      task: binary task.
      prune: static configuration; None for the defaults.
      start: a circuit of nodes to prune further; None for the whole model.
      jobs: runs to choose from; None for the default settings at `seed`.
      gate, control, node_gates: see `WeightMasks`.
      seed: of gates and batches; the data sets have their own fixed seed.
      on_chunk: see `prune.train.run_chunks`.

    Returns:
      The circuit; `provenance["reached"]` says whether it meets the target on validation.

    Raises:
      ValueError: a start of another model, or one without weights to prune.
    """
    prune = prune or PruneConfig()
    if start is not None:
        start.check_model(model)
    problem = make_problem(model, task, prune)
    work = weight_problem(problem, start, gate=gate, control=control, node_gates=node_gates)
    jobs = jobs or default_weight_jobs(work.num_weights, [seed], gate, control)
    state = train_weights(work, initial_weights(work, jobs), on_chunk)
    found = pick(weight_candidates(work, jobs, state))
    return as_weight_circuit(
        model,
        found,
        {
            "where": "weights",
            "task": task.name,
            "seed": found.job.seed,
            "reached": found.choice.reached,
            "gate": gate,
            "control": control,
            "node_gates": node_gates,
            "started_from_nodes": None if start is None else start.num_nodes,
            "config": prune.to_dict(),
            "hyper": found.job.hyper.to_dict(),
            "validation_loss": found.choice.loss if math.isfinite(found.choice.loss) else None,
        },
    )
