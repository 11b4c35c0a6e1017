"""What a run does, and what makes it the same run as another: a model, a task, a search, its jobs."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.grains import grain_named
from circuitjax.model.record import Model
from circuitjax.prune.defaults import Search
from circuitjax.prune.find import prepare, refuse_search
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import Baseline
from circuitjax.prune.train import Job
from circuitjax.run.shared import Shared
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask

__all__ = ["PruneRun", "asked_of", "gates_of", "is_trivial", "pool_digest"]


def pool_digest(task: Task | ContrastTask) -> str | None:
    """Hash of the texts of a task from a file; None for a built-in one, which its name says all of."""
    if not task.pool:
        return None
    return hashlib.sha256(json.dumps([list(item) for item in task.pool]).encode()).hexdigest()


def asked_of(model: Model, task: Task | ContrastTask) -> dict[str, Any]:
    """What a result is about, as every kind of work's record has it: a model and a task.

    The network alone does not say what becomes of a text: the tokenizer does its part, and so do the
    means, which closed parts hold.
    """
    return {
        "model": model.name,
        "model_hash": model.hash,
        "tokenizer": model.tokenizer_hash,
        "means": model.means_hash,
        "task": task.name,
        "task_file": pool_digest(task),
    }


def gates_of(model: Model, search: Search, start: Circuit | None = None) -> int:
    """How many gates a search is about: nodes, or edges of the model or of the circuit to start from."""
    nodes, edges = grain_named(search.choices.grain).totals(model.config, model.params)
    if search.choices.grain == "nodes":
        return nodes
    return edges if start is None else start.num_edges


@dataclasses.dataclass(frozen=True, eq=False)
class PruneRun:
    """What to do and where.

    Attributes:
      model, task: the frozen network and the task, of either kind.
      search: everything static about the search.
      jobs: what to choose from (seeds times settings); a ranking without training has a `Baseline` where
        a trained job has its hyperparameters.
      directory: of the run.
      start: a circuit of nodes whose weights are pruned further.
      shared: what it has in common with other runs; the outcome is the same without.

    Raises:
      ValueError: a combination that `capabilities.refuse` refuses, or jobs of another ranking.
    """

    model: Model
    task: Task | ContrastTask
    search: Search
    jobs: Sequence[Job]
    directory: pathlib.Path
    start: Circuit | None = None
    shared: Shared | None = None

    def __post_init__(self) -> None:
        refuse_search(self.model, self.task, self.search)
        rankings = {
            job.hyper.ranking if isinstance(job.hyper, Baseline) else "learned" for job in self.jobs
        }
        if rankings != {self.search.choices.ranking}:
            raise ValueError(
                f"the jobs rank by {', '.join(sorted(rankings)) or 'nothing'}, the search by "
                f"{self.search.choices.ranking}: a run has one ranking"
            )

    @property
    def steps(self) -> int:
        """Training steps of each job; 0 where gates are ranked without training."""
        return self.search.train.steps if self.search.choices.ranking == "learned" else 0

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run; JSON-able."""
        search = self.search.to_dict()
        if not self.steps:
            del search["train"]  # only training reads it
        return {
            **asked_of(self.model, self.task),
            "search": search,
            "start": None if self.start is None else self.start.content_hash,
            "jobs": [{"seed": job.seed, **job.hyper.to_dict()} for job in self.jobs],
        }

    def problem(self) -> Problem:
        """The data on the device, drawn anew unless runs share them."""
        if self.shared is not None:
            return self.shared.problem(self.model, self.task, self.search)
        return prepare(self.model, self.task, self.search, self.start)


def is_trivial(search: Search, base: Mapping[str, Any]) -> bool:
    """Whether the empty circuit meets the target, by the figures of `audit.evidence.baseline`."""
    selection = search.selection
    name = {"loss": "loss_empty", "kl": "kl_empty"}.get(selection.target)
    if selection.kl is not None and base["kl_empty"] > selection.kl:
        return False
    return name is not None and bool(base[name] <= selection.value)
