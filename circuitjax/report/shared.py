"""What pruning runs of one model, one task and one configuration but for the target need only once.

    data on the device, figures of the whole model    in memory, for as long as this object lives
    masks of all jobs, trained as one program         in memory, and on disk from chunk to chunk
    answers of the first k units of a ranking         in memory

A run that shares has the same identity and the same outcome as one that does not: the masks of node
pruning do not depend on the target, and an answer that is remembered is the answer.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from circuitjax.circuit.find import Job, initial_state, train_masks
from circuitjax.model.record import Model
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.train import MaskState
from circuitjax.report.run_directory import train_in
from circuitjax.tasks.base import Task

__all__ = ["METRICS", "Shared", "draw_problem"]

METRICS = ("loss", "task", "k", "gradient_rms")  # of training, on a binary task

_Made = TypeVar("_Made")
_History = dict[str, np.ndarray]


def draw_problem(shared: "Shared | None", model: Model, task: Task, prune: PruneConfig) -> Problem:
    """The problem of a run, drawn anew unless runs share it; see `prune.problem.make_problem`."""
    if shared is None:
        return make_problem(model, task, prune)
    shared.check(model, task, prune)
    problem = shared.keep("problem", lambda: make_problem(model, task, prune))
    return dataclasses.replace(problem, prune=prune)


class Shared:
    """What several runs take from each other. To be used by one process, one run after another.

    Attributes:
      memory: of answers.
    """

    def __init__(self, directory: pathlib.Path, jobs: Sequence[Job] = ()) -> None:
        """Nothing is done yet.

        Args:
          directory: where training is kept from chunk to chunk; whoever made this object removes it
            once no run needs it.
          jobs: every job that any of the runs has; they are trained together.
        """
        self._directory, self._jobs = directory, tuple(dict.fromkeys(jobs))
        self._kept: dict[Hashable, Any] = {}
        self.memory = AnswerMemory()

    def check(self, model: Model, task: Task, prune: PruneConfig) -> None:
        """Refuses a run that could not share.

        Raises:
          ValueError: another model or task than before, or a configuration that differs in more than
            the target.
        """
        asked = (model.hash, task.name, dataclasses.replace(prune, target_loss=1.0))
        if self.keep("what", lambda: asked) != asked:
            raise ValueError(
                f"the run of task {task.name!r} on model {model.name!r} cannot share with runs that "
                "differ in more than their target loss and their jobs"
            )

    def keep(self, name: Hashable, make: Callable[[], _Made]) -> _Made:
        """What was made under this name before, or makes it now."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def trained(self, problem: Problem, jobs: Sequence[Job]) -> tuple[MaskState, _History]:
        """Trained masks `[J]` of some of the jobs and their metrics `[J, steps]`.

        Trains all jobs on the first call, or goes on with what a process that ended left of that.

        Args:
          problem: of any of the runs.
          jobs: J of the jobs this object was made with.

        Raises:
          ValueError: a job it was not made with.
          FloatingPointError: as `circuit.find.train_masks`.
        """
        for job in jobs:
            if job not in self._jobs:
                raise ValueError(f"the job with seed {job.seed} is none of those trained together")
        state, history = self.keep("trained", lambda: self._train(problem))
        rows = np.array([self._jobs.index(job) for job in jobs])
        own = jax.tree.map(lambda leaf: leaf[rows], state)
        return own, {name: values[rows] for name, values in history.items()}

    def _train(self, problem: Problem) -> tuple[MaskState, _History]:
        history = {
            name: np.zeros((len(self._jobs), problem.prune.steps), np.float32) for name in METRICS
        }
        return train_in(
            self._directory / "training",
            initial_state(problem, self._jobs),
            history,
            lambda state, on_chunk: train_masks(problem, state, on_chunk),
        )
