"""The cells of a suite of pruning runs, and how each is run: what `experiments.suite` does.

    names -> models, tasks -> cells -> units -> run_cell: a pruning run, or a study and its winner

Everything that can be told to be wrong without computing is told when a `Plan` is made.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.host import alone_in
from circuitjax.gated.grains import GRAINS
from circuitjax.prune.capabilities import answers
from circuitjax.prune.train import Job
from circuitjax.report.suite_table import record_of
from circuitjax.run.directory import SUITE, holds
from circuitjax.run.prune import run_pruning
from circuitjax.run.search import PruneRun, pool_digest
from circuitjax.run.shared import Shared, can_share
from circuitjax.run.study import Study, run_study
from circuitjax.run.suite import Cell, Suite, outcome_of, outcomes
from circuitjax.run.winner import run_winner
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.named import find_task
from circuitjax.tune import carbs
from circuitjax.tune.pruning_space import Centre
from circuitjax.zoo.load import load_model
from experiments.limits import MOST_JOBS
from experiments.pruning_flags import build_run
from experiments.task_names import is_file, task_for

__all__ = ["Plan", "Tuning"]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How cells of ranking `learned` are tuned.

    Attributes:
      rounds: of the search.
      jobs: runs of a round.
      fresh_seeds: the winner is run with.
      search_pairs, centre: see `run.study.Study`.
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
            if field.name in ("jobs", "fresh_seeds") and value > MOST_JOBS:
                raise ValueError(f"{field.name} is {value}; it must be at most {MOST_JOBS}")


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
        grains: Sequence[str],
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
          grains, rankings, targets, seeds: what to combine.
          from_nodes: learned weights start from the nodes cell of the same target and seed.
          tuning: of learned cells that start from no circuit; None: fixed settings.
          out: directory of the suite; None: one named after what the suite combines.

        Raises:
          ValueError: an unknown name, a combination that does not exist, a setting out of its limits.
        """
        for what, given in (("grain", grains), ("ranking", rankings)):
            for name in given:
                if name not in (known := answers()[what]):
                    raise ValueError(f"there is no {what} {name!r}: choose of {', '.join(known)}")
        grains = sorted(grains, key=list(GRAINS).index)  # weights may start from nodes
        if from_nodes and not ({"nodes", "weights"} <= set(grains) and "learned" in rankings):
            raise ValueError(
                "--start_from_nodes takes grains nodes and weights, and ranking learned"
            )
        if tuning and "learned" not in rankings:
            raise ValueError("--rounds tunes ranking learned, and the suite has none")
        for name in tasks:  # before a model is loaded
            if not is_file(name):
                find_task(name)
        self.seeds = tuple(seeds)
        self._from_nodes, self._tuning = from_nodes, tuning
        self._models = {pathlib.Path(one.name).name: one for one in map(load_model, models)}
        if len(self._models) < len(models):
            raise ValueError(f"two of the models {', '.join(models)} have the same name")
        self._tasks: dict[tuple[str, str], Task | ContrastTask] = {}
        for (name, loaded_model), file in itertools.product(self._models.items(), tasks):
            loaded = task_for(file, loaded_model)
            if (name, loaded.name) in self._tasks:
                raise ValueError(f"two tasks are called {loaded.name!r}: name each once")
            self._tasks[name, loaded.name] = loaded
        cells = [
            Cell(model, task, grain, ranking, target, seed)
            for grain, ranking, (model, task), target, seed in itertools.product(
                grains, rankings, self._tasks, targets, seeds
            )
        ]
        units: dict[str, list[Cell]] = {}
        settings: dict[str, Any] = {}
        for cell in cells:
            run = self._run(cell, pathlib.Path())  # every one: it refuses what cannot be
            settings.setdefault(f"{cell.model}, {cell.grain} {cell.ranking}", run.identity())
            units.setdefault(self._unit(cell, run), []).append(cell)
        words = [*self._models, *(grain for grain in grains if grains != ["nodes"])]
        words += [ranking for ranking in rankings if list(rankings) != ["learned"]]
        words += ["tuned"] if tuning else []
        identity = {
            "models": {name: model.hash for name, model in self._models.items()},
            "tasks": {name: pool_digest(task) for (_, name), task in self._tasks.items()},
            "grains": list(grains),
            "rankings": list(rankings),
            "targets": list(targets),
            "seeds": list(seeds),
            "start_from_nodes": from_nodes,
            "tuning": None if tuning is None else dataclasses.asdict(tuning),
            "settings": settings,
        }
        self.suite = Suite(out or pathlib.Path(f"runs/suite/{'-'.join(words)}"), units, identity)
        self._shared: tuple[pathlib.Path, Shared] | None = None

    def _follows(self, cell: Cell) -> bool:
        """Whether the cell starts from the circuit of another."""
        return self._from_nodes and (cell.grain, cell.ranking) == ("weights", "learned")

    def _unit(self, cell: Cell, run: PruneRun) -> str:
        """Cells of one training, or that start from each other, are one unit."""
        where = f"{cell.model}/{cell.task}"
        if self._follows(cell):
            nodes = dataclasses.replace(cell, grain="nodes")
            return self._unit(nodes, self._run(nodes, pathlib.Path()))
        how = cell.grain if cell.ranking == "learned" else f"{cell.grain}-{cell.ranking}"
        if self._is_tuned(cell):
            how = f"{how}-tuned"
        elif self._shares(cell, run):
            return f"{where}/{how}"
        return f"{where}/{how}-target_{cell.target}-seed_{cell.seed}"

    def _shares(self, cell: Cell, run: PruneRun) -> bool:
        """Whether the cell's training, or its scores, are those of other targets and seeds too."""
        return can_share(run.search) and not (self._follows(cell) or self._is_tuned(cell))

    def _run(
        self, cell: Cell, directory: pathlib.Path, start: pathlib.Path | None = None
    ) -> PruneRun:
        chosen = {
            "grain": cell.grain,
            "ranking": cell.ranking,
            "target_loss": cell.target,
            "seed": cell.seed,
        }
        model, task = self._models[cell.model], self._tasks[cell.model, cell.task]
        return build_run(model, task, directory, chosen=chosen, start=start)

    def _is_tuned(self, cell: Cell) -> bool:
        return bool(self._tuning) and cell.ranking == "learned" and not self._follows(cell)

    def circuit(self, cell: Cell) -> pathlib.Path:
        """Directory of a finished cell's circuit."""
        directory = self.suite.run_directory(cell)
        return directory / "winner" / "circuit" if self._is_tuned(cell) else directory / "circuit"

    def check_finished(self) -> None:
        """Makes sure that the circuits of finished cells are those that their records speak of.

        Raises:
          ValueError: one that is gone, damaged, or another: the line says what to remove. Or another
            suite's directory.
        """
        holds(SUITE, self.suite.directory, self.suite.identity)
        for one in outcomes(self.suite):
            named = None if one.record is None else one.record.get("circuit")
            if named is None:
                continue
            place = self.suite.directory / "cells" / one.cell.key
            mend = f"remove {place}, and the same command does the cell again"
            try:
                found = Circuit.load(self.circuit(one.cell)).content_hash
            except ValueError as error:
                raise ValueError(
                    f"a finished cell has lost its circuit ({error}): {mend}"
                ) from None
            if found != named:
                raise ValueError(
                    f"the circuit in {place} is not the one its cell.json names: {mend}"
                )

    def run_cell(self, cell: Cell, directory: pathlib.Path, unit: pathlib.Path) -> dict[str, Any]:
        """Does a cell, or what is left of it; a `run.suite.RunCell`.

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
        if self._follows(cell):
            nodes = dataclasses.replace(cell, grain="nodes")
            found = outcome_of(self.suite, nodes)
            if found.record is None:
                raise ValueError(f"the circuit of {nodes.key}, to start from, is not there")
            if found.record["status"] == "not_reached":
                return _without_circuit("the node circuit to start from missed the target")
            start = self.circuit(nodes) if found.record["status"] == "reached" else None
        run = self._run(cell, directory, start)
        if self._is_tuned(cell):
            return self._run_tuned(run)
        if self._shares(cell, run):
            run = dataclasses.replace(run, shared=self._shared_in(unit, cell))
        return record_of(run_pruning(run))

    def _shared_in(self, unit: pathlib.Path, cell: Cell) -> Shared:
        """What the unit's runs share; the last unit's is let go of."""
        if self._shared is None or self._shared[0] != unit / cell.grain:
            jobs: list[Job] = []
            for seed in self.seeds if cell.ranking == "learned" else ():
                one = dataclasses.replace(cell, seed=seed)
                jobs += self._run(one, self.suite.run_directory(one)).jobs
            self._shared = (unit / cell.grain, Shared(unit, jobs))
        return self._shared[1]

    def _run_tuned(self, run: PruneRun) -> dict[str, Any]:
        assert self._tuning is not None
        tuning, seed = self._tuning, run.jobs[0].seed
        study = Study(
            run.model,
            run.task,
            run.search,
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
