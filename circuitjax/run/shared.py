"""What pruning runs of one model, one task and one search but for its target need only once.

    data on the device, figures of the whole model    in memory, for as long as this object lives
    gates of all jobs, trained as one program         in memory, and on disk from chunk to chunk
    answers of the first k gates of a ranking         in memory

A run that shares has the same identity and the same outcome as one that does not: training does not
depend on the target unless it holds the loss there, and an answer that is remembered is the answer.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from circuitjax.model.record import Model
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.defaults import Search
from circuitjax.prune.find import prepare
from circuitjax.prune.jobs import initial_state, objective_of, train_gates
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import Job, MaskState
from circuitjax.run.training import History, Progress, train_in
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask

__all__ = ["Shared", "can_share", "train_jobs"]

_Made = TypeVar("_Made")


def train_jobs(
    folder: pathlib.Path,
    problem: Problem,
    search: Search,
    jobs: Sequence[Job],
    progress: Progress = lambda step, metrics: None,
) -> tuple[MaskState, History]:
    """Trains J jobs, or goes on; their state and metrics `[J, steps]`. See `training.train_in`."""
    names = objective_of(problem, search).metrics
    return train_in(
        folder,
        initial_state(problem, search, jobs),
        {name: np.zeros((len(jobs), search.train.steps), np.float32) for name in names},
        lambda state, on_chunk: train_gates(problem, search, state, on_chunk),
        progress,
    )


def can_share(search: Search) -> bool:
    """Whether runs that differ in the value of their target train alike: not where it is held."""
    return search.choices.control != "hold" or search.choices.ranking != "learned"


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

    def problem(self, model: Model, task: Task | ContrastTask, search: Search) -> Problem:
        """The data of a run, drawn once.

        Raises:
          ValueError: another model or task than before, a search that differs in more than the value of
            its target, or one whose training holds that value.
        """
        aim = dataclasses.replace(search.selection, value=1.0)
        asked = (model.identity, model.means_hash, task, dataclasses.replace(search, selection=aim))
        if not can_share(search) or self.keep("what", lambda: asked) != asked:
            raise ValueError(
                f"the run of task {task.name!r} on model {model.name!r} cannot share with runs that "
                "differ in more than the value of their target and their jobs"
            )
        return self.keep("problem", lambda: prepare(model, task, search))

    def keep(self, name: Hashable, make: Callable[[], _Made]) -> _Made:
        """What was made under this name before, or makes it now."""
        if name not in self._kept:
            self._kept[name] = make()
        made: _Made = self._kept[name]
        return made

    def trained(
        self, problem: Problem, search: Search, jobs: Sequence[Job]
    ) -> tuple[MaskState, History]:
        """Trained gates `[J]` of some of the jobs and their metrics `[J, steps]`.

        Trains all jobs on the first call, or goes on with what a process that ended left of that.

        Args:
          problem, search: of any of the runs.
          jobs: J of the jobs this object was made with.

        Raises:
          ValueError: a job it was not made with.
          FloatingPointError: see `prune.train.run_chunks`.
        """
        for job in jobs:
            if job not in self._jobs:
                raise ValueError(f"the job with seed {job.seed} is none of those trained together")
        folder = self._directory / "training"
        state, history = self.keep(
            "trained", lambda: train_jobs(folder, problem, search, self._jobs)
        )
        rows = np.array([self._jobs.index(job) for job in jobs])
        own = jax.tree.map(lambda leaf: leaf[rows], state)
        return own, {name: values[rows] for name, values in history.items()}
