"""Finding a circuit at any grain: train gates, rank, cut, clean up, keep the smallest.

    problem -> train_gates (J jobs, one program) -> rank -> cut, per job -> clean -> best -> Circuit

Jobs are the product of seeds and settings. Rankings without training take the place of the first step.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.record import Model
from circuitjax.prune.candidates import Candidate, candidates_of, certified, pick
from circuitjax.prune.capabilities import refuse, refuse_unused
from circuitjax.prune.certify import Certificate
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search, default_jobs, default_search
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.rank import Baseline, scores_without_training
from circuitjax.prune.train import Job, MaskState, OnChunk
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask

__all__ = ["as_circuit", "facts_of", "find_circuit", "prepare", "refuse_search"]


def as_circuit(problem: Problem, found: Candidate, provenance: Mapping[str, Any]) -> Circuit:
    """The candidate as a value that can be saved and run."""
    return Circuit.of(
        problem.model,
        problem.whole.grain,
        found.part.opened,
        ablation=problem.whole.ablation,
        held=found.part.held,
        scale=found.choice.scale,
        shift=found.choice.shift,
        provenance=dict(provenance),
    )


def facts_of(
    task: Task | ContrastTask,
    search: Search,
    found: Candidate,
    certificate: Certificate | None = None,
) -> dict[str, Any]:
    """What the record of a circuit says of how it was found."""
    loss = found.choice.loss
    known = {} if certificate is None else {"certificate": certificate.to_dict()}
    return {
        **known,
        "task": task.name,
        "search": search.to_dict(),
        "chosen": {"seed": found.job.seed, **found.job.hyper.to_dict()},
        "reached": found.choice.reached,
        "validation_loss": loss if math.isfinite(loss) else None,
    }


def refuse_search(model: Model, task: Task | ContrastTask, search: Search) -> None:
    """Refuses a search that cannot be made of this model and task; see `capabilities.refuse`."""
    refuse(
        search.choices,
        search.selection,
        model.config,
        task,
        has_means=model.means is not None,
        batch_size=search.train.batch_size,
    )


def prepare(
    model: Model, task: Task | ContrastTask, search: Search, start: Circuit | None = None
) -> Problem:
    """Checks the search against model and task, and draws the data.

    Raises:
      ValueError: a combination that the table of capabilities refuses; see also `make_problem`.

    Examples:
      >>> sizes = {"train": 64, "validation": 32, "test": 32}
      >>> problem = cj.prepare(model, task, cj.default_search("nodes", **sizes))
      >>> problem.test.tokens.shape[:2]  # two prompts of each pair, each with its corrupted one
      (64, 2)
    """
    refuse_search(model, task, search)
    problem = make_problem(model, task, search.choices, search.data, start=start)
    nodes, edges = problem.whole.totals()
    limit = {"edges": edges, "nodes": nodes}.get(search.selection.target)
    if limit is not None and search.selection.value > limit:
        raise ValueError(
            f"target_{search.selection.target} is {search.selection.value:g}, but only {limit} can "
            f"matter: ask for at most {limit}"
        )
    return problem


def find_circuit(
    model: Model,
    task: Task | ContrastTask,
    *,
    search: Search | None = None,
    start: Circuit | None = None,
    seed: int = 0,
    jobs: Sequence[Job] | None = None,
    on_chunk: OnChunk = lambda state, metrics: None,
    **settings: Any,
) -> Circuit:
    """Finds the smallest circuit of a task, in one call, at any grain.

    Args:
      model: the frozen network.
      task: a binary task, or one of clean and corrupted prompts.
      search: everything static at once; None makes it of `settings`.
      start: a circuit of nodes, whose weights are then pruned (grain weights).
      seed: of gates and batches; the data have their own fixed seed.
      jobs: runs to choose from; None for the defaults at `seed`.
      on_chunk: told of the training; see `train.run_chunks`.
      **settings: `grain`, `gate`, `ablation`, `minimise`, `control`, `ranking`, `target_loss` (or
        `target_kl`, `target_edges`, `target_nodes`), `steps`, `batch_size`, ...: fields of
        `Search`'s parts, and hyperparameters (fields of `Hyper`).

    Returns:
      The circuit; `provenance["reached"]` says whether it meets the target on validation.

    Raises:
      ValueError: a combination that cannot be, an unknown setting, or a task that the model cannot be
        asked.

    Examples:
      >>> import circuitjax as cj
      >>> model, task = cj.load_model("tiny-python"), cj.tasks.get("while_return_true")
      >>> circuit = cj.find_circuit(model, task, ranking="attribution", validation=64, test=64)
      >>> circuit.grain, circuit.provenance["reached"]
      ('nodes', True)
    """
    hypers = {field.name for field in dataclasses.fields(Hyper)}
    changes = {name: settings.pop(name) for name in list(settings) if name in hypers}
    if search is None:
        search = default_search(paired=isinstance(task, Task), config=model.config, **settings)
    elif settings:
        raise ValueError(f"{sorted(settings)[0]} and `search` are both given: choose one")
    refuse_unused(search.choices, changes)
    problem = prepare(model, task, search, start)
    if search.choices.ranking != "learned":
        jobs = jobs or [Job(seed, Baseline.of(search.choices))]
        state: MaskState | np.ndarray = np.stack(
            [
                scores_without_training(problem, job.hyper, job.seed, search.choices.loss)
                for job in jobs
            ]
        )
    else:
        count = int(problem.whole.exists().sum())
        if search.choices.units != "channel":  # what is open is counted in nodes
            count = problem.whole.work()
        jobs = jobs or default_jobs(search, count, [seed], started=start is not None, **changes)
        state = train_gates(problem, search, initial_state(problem, search, jobs), on_chunk)
    found = pick(candidates_of(problem, search, jobs, state), search)
    found, certificate = certified(problem, search, found)
    return as_circuit(problem, found, facts_of(task, search, found, certificate))
