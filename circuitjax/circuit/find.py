"""Finding a circuit: train masks, select, clean up, and keep the smallest one that does the task.

    problem -> train_masks (J jobs, one program) -> choose, per job -> clean -> best by edges -> Circuit

Jobs are the product of seeds and settings: one fixed `k_coef` fails some task, so by default eight
of them run as jobs of one program and the smallest circuit that meets the target on validation wins.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.cleanup import cleanup
from circuitjax.model.record import Model
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.config import PruneConfig, default_hyper
from circuitjax.prune.evaluate import answers
from circuitjax.prune.gates import all_gates
from circuitjax.prune.masks import Choice, choose
from circuitjax.prune.nodes import NodeMasks
from circuitjax.prune.packing import training_rows
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.select import Selection
from circuitjax.prune.train import Job, MaskState, OnChunk, run_chunks, start_jobs
from circuitjax.tasks.base import Task

__all__ = [
    "Candidate",
    "Job",
    "as_circuit",
    "candidates_of",
    "clean",
    "default_jobs",
    "empty_candidate",
    "facts_of",
    "find_circuit",
    "initial_state",
    "pick",
    "train_masks",
]

# Multiples of the published centre 18 / N that are tried side by side by default.
K_COEF_MULTIPLES = (0.2, 0.4, 0.6, 0.8, 1.1, 1.5, 2.0, 3.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A job's outcome; losses on validation pairs.

    Attributes:
      job: what was run.
      choice: mask, calibration and curve before cleanup.
      mask, fills: after cleanup; the same function.
      removed: what cleanup took away, by kind.
      edges: number of edges after cleanup.
    """

    job: Job
    choice: Choice
    mask: Mapping[str, np.ndarray]
    fills: Mapping[str, np.ndarray]
    removed: Mapping[str, int]
    edges: int

    @property
    def nodes(self) -> int:
        """Number of nodes after cleanup."""
        return sum(int(m.sum()) for m in self.mask.values())


def default_jobs(num_nodes: int, seeds: Sequence[int], **changes: float) -> list[Job]:
    """Seeds times settings: every `k_coef` multiple, or just the one in `changes`.

    Raises:
      ValueError: a hyperparameter out of range.
    """
    if "k_coef" in changes:
        settings = [default_hyper(num_nodes, **changes)]
    else:
        centre = float(default_hyper(num_nodes).k_coef)
        settings = [
            default_hyper(num_nodes, k_coef=centre * multiple, **changes)
            for multiple in K_COEF_MULTIPLES
        ]
    return [Job(seed, hyper) for seed in seeds for hyper in settings]


def initial_state(problem: Problem, jobs: Sequence[Job]) -> MaskState:
    """J jobs before their first step."""
    return start_jobs(_objective(problem), jobs)


def _objective(problem: Problem) -> NodeMasks:
    """Masks do not depend on the target: runs that differ in it share compiled programs."""
    prune = dataclasses.replace(problem.prune, target_loss=PruneConfig.target_loss)
    return NodeMasks(problem.config, prune)


def train_masks(
    problem: Problem,
    state: MaskState,
    on_chunk: OnChunk = lambda state, metrics: None,
    *,
    spare: bool = False,
) -> MaskState:
    """Runs what is left of the training, in chunks.

    Args:
      problem: model, task, data.
      state: J jobs, fresh or restored.
      on_chunk: called after each chunk with the state and the metrics `[J, chunk]`.
      spare: go on for the other jobs' sake when one leaves the finite numbers.

    Raises:
      FloatingPointError: a loss, gradient or mask parameter that is not finite, with the step; the
        state handed to the last `on_chunk` is good.
    """
    return run_chunks(
        _objective(problem),
        state,
        (problem.params, problem.fills),
        training_rows(problem.train, problem.config.causal, problem.prune.batch_size),
        problem.prune.chunk,
        on_chunk,
        spare=spare,
    )


def candidates_of(
    problem: Problem,
    jobs: Sequence[Job],
    state: MaskState,
    memory: AnswerMemory | None = None,
    *,
    brief: bool = False,
) -> list[Candidate]:
    """Selects and cleans every trained job; see `prune.masks.choose` for memory and brief."""
    return clean(problem, jobs, choose(problem, state, memory, brief=brief))


def clean(problem: Problem, jobs: Sequence[Job], choices: Sequence[Choice]) -> list[Candidate]:
    """Cleans up what was chosen for each job, however its nodes were ranked."""
    params = jax.tree.map(np.asarray, dict(problem.params))
    fills = {site: np.asarray(fill) for site, fill in problem.fills.items()}
    found = []
    for job, choice in zip(jobs, choices, strict=True):
        mask, own_fills, report = cleanup(problem.config, params, choice.mask, fills)
        found.append(Candidate(job, choice, mask, own_fills, report.counts, report.edges_after))
    return found


def empty_candidate(problem: Problem, job: Job) -> Candidate:
    """The circuit that keeps nothing, calibrated unless that is off: it solves a trivial task."""
    closed = all_gates(problem.config, 0.0)
    found = answers(problem, problem.validation, [closed])
    raw = float(found.losses(problem.prune)[0])
    scale, shift, loss = 1.0, 0.0, raw
    if problem.prune.calibrate != "off":
        fit = calibrate(found.differences)
        scale, shift, loss = (float(x[0]) for x in (fit.scale, fit.shift, fit.loss))
    mask = {site: np.asarray(m) > 0.5 for site, m in closed.items()}
    choice = Choice(
        mask=mask,
        selection=Selection(k=0, reached=loss <= problem.prune.target_loss, loss=loss, curve=()),
        scale=scale,
        shift=shift,
        loss=loss,
        loss_uncalibrated=raw,
        k_inside=0,
        k_after=0 if raw <= problem.prune.target_loss else None,
        curve=((0, raw, loss, problem.validation.size),),
    )
    fills = {site: np.asarray(fill) for site, fill in problem.fills.items()}
    return Candidate(job, choice, mask, fills, {}, 0)


class Selected(Protocol):
    """What `pick` looks at."""

    @property
    def choice(self) -> Choice:
        """The cut, with its validation loss."""

    @property
    def edges(self) -> int:
        """Number of edges."""

    @property
    def nodes(self) -> int:
        """Number of nodes."""


Found = TypeVar("Found", bound=Selected)


def pick(candidates: Sequence[Found]) -> Found:
    """The fewest edges among those that meet the target; else the lowest validation loss.

    What was chosen on the first few pairs only is passed over.
    """

    def cost(found: Found) -> tuple[float, ...]:
        if found.choice.rough:
            return (2, found.choice.loss, found.edges)
        if found.choice.reached:
            return (0, found.edges, found.nodes)
        return (1, found.choice.loss, found.edges)

    return min(candidates, key=cost)


def as_circuit(model: Model, found: Candidate, provenance: Mapping[str, Any]) -> Circuit:
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
    )


def find_circuit(
    model: Model,
    task: Task,
    prune: PruneConfig | None = None,
    *,
    seed: int = 0,
    jobs: Sequence[Job] | None = None,
    on_chunk: OnChunk = lambda state, metrics: None,
) -> Circuit:
    """Finds the smallest circuit of a task, in one call.

    Args:
      model: the frozen network.
      task: binary task.
      prune: static configuration; None for the defaults.
      seed: of masks and batches; the data sets have their own fixed seed.
      jobs: pruning runs to choose from; None for the default settings at `seed`.
      on_chunk: see `train_masks`.

    Returns:
      The circuit; `provenance["reached"]` says whether it meets the target on validation.
    """
    prune = prune or PruneConfig()
    jobs = jobs or default_jobs(model.config.num_nodes, [seed])
    problem = make_problem(model, task, prune)
    state = train_masks(problem, initial_state(problem, jobs), on_chunk)
    found = pick(candidates_of(problem, jobs, state))
    return as_circuit(model, found, {**facts_of(task, prune, found), "ranking": "learned"})


def facts_of(task: Task, prune: PruneConfig, found: Candidate) -> dict[str, Any]:
    """What the record of a circuit found in one call says of how it was found."""
    return {
        "task": task.name,
        "seed": found.job.seed,
        "reached": found.choice.reached,
        "config": prune.to_dict(),
        "hyper": found.job.hyper.to_dict(),
        "validation_loss": found.choice.loss if math.isfinite(found.choice.loss) else None,
    }
