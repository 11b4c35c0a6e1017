"""The cells of a suite of pruning runs, and how each is run: what `experiments.suite` does.

    names -> models, tasks -> cells -> units -> run_cell: a pruning run, or a study and its winner

Everything that can be told to be wrong without computing is told when a `Plan` is made.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from circuitjax.core.host import alone_in
from circuitjax.model.record import Model
from circuitjax.prune.baselines import RANKINGS
from circuitjax.prune.train import Job
from circuitjax.report.pair_work import pool_digest
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import run_pruning
from circuitjax.report.shared import Shared
from circuitjax.report.suite_table import record_of
from circuitjax.tasks import jsonl
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.tune import carbs
from circuitjax.tune.pruning_space import Centre
from circuitjax.tune.study import Study, run_study
from circuitjax.tune.suite import Cell, Suite, outcome_of
from circuitjax.zoo.load import load_model
from experiments.pruning_flags import build_run
from experiments.task_names import find_task
from experiments.tuned_run import run_winner

__all__ = ["Plan", "Tuning"]

_METHODS = ("nodes", "weights", "edges")


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How cells of method nodes are tuned.

    Attributes:
      rounds: of the search.
      jobs: runs of a round.
      fresh_seeds: the winner is run with.
      search_pairs, centre: see `tune.study.Study`.
    """

    rounds: int
    jobs: int
    fresh_seeds: int
    search_pairs: int = Study.search_pairs
    centre: Centre = Study.centre

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{field.name} is {value}; it must be at least 1")


class Plan:
    """A suite of pruning runs.

    Attributes:
      suite: its cells, in units.
      seeds: of cells.
    """

    def __init__(
        self,
        *,
        models: Sequence[str],
        tasks: Sequence[str],
        methods: Sequence[str],
        rankings: Sequence[str],
        targets: Sequence[float | None],
        seeds: Sequence[int],
        from_nodes: bool = False,
        tuning: Tuning | None = None,
        out: pathlib.Path | None = None,
    ) -> None:
        """Loads models and tasks and makes the cells.

        Args:
          models: built-in ones or paths of directories.
          tasks: built-in ones or paths of .jsonl files.
          methods, rankings, targets, seeds: what to combine; rankings are for method nodes.
          from_nodes: weights start from the circuit of the nodes cell of the same target and seed.
          tuning: of nodes cells with learned masks; None: fixed settings.
          out: directory of the suite; None: one named after what the suite combines.

        Raises:
          ValueError: an unknown name, a combination that does not exist, a setting out of its limits.
        """
        for method in methods:
            if method not in _METHODS:
                raise ValueError(f"there is no method {method!r}: choose of {', '.join(_METHODS)}")
        for ranking in rankings:
            if ranking not in ("learned", *RANKINGS):
                known = ", ".join(("learned", *RANKINGS))
                raise ValueError(f"there is no ranking {ranking!r}: choose of {known}")
        methods = sorted(methods, key=_METHODS.index)  # weights may start from nodes
        if "nodes" not in methods and list(rankings) != ["learned"]:
            raise ValueError(
                f"rankings {', '.join(rankings)} are for method nodes, which is not asked for"
            )
        kinds = [(m, r) for m in methods for r in (rankings if m == "nodes" else ("learned",))]
        if from_nodes and not {("nodes", "learned"), ("weights", "learned")} <= set(kinds):
            raise ValueError(
                "--start_from_nodes takes methods nodes and weights, and ranking learned"
            )
        if tuning and ("nodes", "learned") not in kinds:
            raise ValueError("--rounds tunes learned masks of nodes, and the suite has none")
        self._check_names(tasks, methods)
        self.seeds = tuple(seeds)
        self._from_nodes, self._tuning = from_nodes, tuning
        self._models = {pathlib.Path(one.name).name: one for one in map(load_model, models)}
        if len(self._models) < len(models):
            raise ValueError(f"two of the models {', '.join(models)} have the same name")
        self._tasks: dict[tuple[str, str], Task | ContrastTask] = {}
        for (name, loaded_model), file in itertools.product(self._models.items(), tasks):
            loaded = _load_task(file, loaded_model, methods)
            if (name, loaded.name) in self._tasks:
                raise ValueError(f"two tasks are called {loaded.name!r}: name each once")
            self._tasks[name, loaded.name] = loaded
        units: dict[str, list[Cell]] = {}
        for (method, ranking), (model, task), target, seed in itertools.product(
            kinds, self._tasks, targets, seeds
        ):
            cell = Cell(model, task, method, ranking, target, seed)
            units.setdefault(self._unit(cell), []).append(cell)
        words = [*self._models, *(m for m in methods if methods != ["nodes"])]
        words += [ranking for ranking in rankings if rankings != ["learned"]]
        directory = out or pathlib.Path(
            f"runs/suite/{'-'.join([*words, *['tuned'] * bool(tuning)])}"
        )
        identity = {
            "models": {name: model.hash for name, model in self._models.items()},
            "tasks": {name: _digest(task) for (_, name), task in self._tasks.items()},
            "methods": list(methods),
            "rankings": list(rankings),
            "targets": list(targets),
            "seeds": list(seeds),
            "start_from_nodes": from_nodes,
            "tuning": None if tuning is None else dataclasses.asdict(tuning),
            "settings": self._settings([cell for cells in units.values() for cell in cells]),
        }
        self.suite = Suite(directory, units, identity)
        self._shared: tuple[pathlib.Path, Shared] | None = None

    @staticmethod
    def _check_names(tasks: Sequence[str], methods: Sequence[str]) -> None:
        """Tells an unknown task before a model is loaded."""
        for name, method in itertools.product(tasks, methods):
            if not name.endswith(".jsonl"):
                find_task(name, method)

    def _unit(self, cell: Cell) -> str:
        """Cells of one training, or that start from each other, are one unit."""
        apart = f"target_{cell.target}-seed_{cell.seed}"
        where = f"{cell.model}/{cell.task}"
        follows = cell.method == "weights" and self._from_nodes
        if cell.ranking != "learned":
            return f"{where}/{cell.ranking}"
        if cell.method == "nodes" or follows:
            return f"{where}/tuned-{apart}" if self._tuning else f"{where}/learned"
        return f"{where}/{cell.method}-{apart}"

    def _settings(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Of each model, method and ranking: the identity of its first cell's run, sizes and all."""
        found: dict[str, Any] = {}
        for cell in cells:
            run = self._run(cell, pathlib.Path())  # every one: it refuses what cannot be
            name = f"{cell.model}, {cell.method} {cell.ranking}"
            found.setdefault(name, run.identity())
        return found

    def _run(self, cell: Cell, directory: pathlib.Path, start: pathlib.Path | None = None) -> Any:
        chosen = {
            "method": cell.method,
            "ranking": cell.ranking,
            "target_loss": cell.target,
            "seed": cell.seed,
        }
        model, task = self._models[cell.model], self._tasks[cell.model, cell.task]
        return build_run(model, task, directory, chosen=chosen, start=start)

    def _is_tuned(self, cell: Cell) -> bool:
        return bool(self._tuning) and (cell.method, cell.ranking) == ("nodes", "learned")

    def circuit(self, cell: Cell) -> pathlib.Path:
        """Directory of a finished cell's circuit."""
        directory = self.suite.run_directory(cell)
        return directory / "winner" / "circuit" if self._is_tuned(cell) else directory / "circuit"

    def run_cell(self, cell: Cell, directory: pathlib.Path, unit: pathlib.Path) -> dict[str, Any]:
        """Does a cell, or what is left of it; a `tune.suite.RunCell`.

        Args:
          cell: one of the suite's.
          directory: its own.
          unit: what its unit shares.

        Returns:
          What `report.suite_table.record_of` keeps of its report.

        Raises:
          ValueError: the cell it starts from has failed.
        """
        start = None
        if cell.method == "weights" and self._from_nodes:
            nodes = dataclasses.replace(cell, method="nodes")
            found = outcome_of(self.suite, nodes)
            if found.record is None:
                raise ValueError(f"the circuit of {nodes.key}, to start from, is not there")
            if found.record["status"] == "not_reached":
                return _without_circuit("the node circuit to start from missed the target")
            start = self.circuit(nodes) if found.record["status"] == "reached" else None
        run = self._run(cell, directory, start)
        if self._is_tuned(cell):
            return self._run_tuned(run)
        if isinstance(run, PruneRun):
            run = dataclasses.replace(run, shared=self._shared_in(unit, cell))
        return record_of(run_pruning(run))

    def _shared_in(self, unit: pathlib.Path, cell: Cell) -> Shared:
        """What the unit's runs share; the last unit's is let go of."""
        if self._shared is None or self._shared[0] != unit:
            jobs: list[Job] = []
            for seed in self.seeds if cell.ranking == "learned" else ():
                one = dataclasses.replace(cell, seed=seed)
                jobs += self._run(one, self.suite.run_directory(one)).jobs
            self._shared = (unit, Shared(unit, jobs))
        return self._shared[1]

    def _run_tuned(self, run: PruneRun) -> dict[str, Any]:
        assert self._tuning is not None
        tuning, seed = self._tuning, run.jobs[0].seed
        study = Study(
            run.model,
            run.task,
            run.prune,
            run.directory,
            tuning.rounds,
            tuning.jobs,
            seed,
            search_pairs=tuning.search_pairs,
            centre=tuning.centre,
        )
        with alone_in(study.directory):
            state = run_study(study)
            if carbs.best(state) is None:
                return _without_circuit(f"none of {len(state.observations)} runs met the target")
            return record_of(run_winner(study, state, tuning.fresh_seeds)[1])


def _without_circuit(why: str) -> dict[str, Any]:
    """The record of a cell that ended without one."""
    return {"status": "not_reached", "note": why}


def _load_task(name: str, model: Model, methods: Sequence[str]) -> Task | ContrastTask:
    if name.endswith(".jsonl"):
        return jsonl.load(name, Tokenizer.from_json(model.tokenizer_json))
    return find_task(name, methods[0])


def _digest(task: Task | ContrastTask) -> str | None:
    """Of a file's pairs; a built-in task is known by its name."""
    return pool_digest(task.pool) if isinstance(task, Task) and task.pool else None
