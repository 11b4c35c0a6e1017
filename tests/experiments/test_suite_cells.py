"""The cells of a suite of pruning runs: which run each is, what it shares, what it starts from."""

import json

import numpy as np
import pytest
from absl import flags

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.sites import kept_addresses, shapes
from circuitjax.report.baseline_run import BaselineRun
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.weight_run import WeightRun
from circuitjax.tune.suite import run_suite
from experiments import suite_cells
from experiments.suite_cells import Plan, Tuning
from tests.prune.planted import LETTERS, planted_model


def some_circuit(model) -> Circuit:
    """A node in every site."""
    wanted = shapes(model.config)
    mask = {site: np.arange(np.prod(shape)).reshape(shape) < 3 for site, shape in wanted.items()}
    fills = {site: np.zeros(shape, np.float32) for site, shape in wanted.items()}
    return Circuit(model.name, model.hash, model.config, mask, fills)


class Runs:
    """Stands for `run_pruning`: notes the runs, and leaves a circuit where one is started from."""

    def __init__(self, missed=()) -> None:
        self.seen, self.missed = [], missed

    def __call__(self, run):
        self.seen.append(run)
        if type(run) is PruneRun:
            some_circuit(run.model).save(run.directory / "circuit", run.model)
        status = "not_reached" if run.task.name in self.missed else "reached"
        return {"status": status, "edges": 5, "loss_without_random": [0.1], "seconds": {}}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Paths of a model and of two tasks."""
    root = tmp_path_factory.mktemp("cells")
    flags.FLAGS(["suite"])
    planted_model().save(root / "model")
    texts = [a + b + c for a in LETTERS[:4] for b in LETTERS[:4] for c in LETTERS[:4]]
    answers = {"positive_completion": "x", "negative_completion": "y"}
    rows = [{"positive": f"A-{t}", "negative": f"B-{t}", **answers} for t in texts]
    for name in ("one", "two"):
        (root / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return {"models": [f"{root}/model"], "tasks": [f"{root}/one.jsonl", f"{root}/two.jsonl"]}


def plan_of(names, out, **changes) -> Plan:
    combined = {
        "methods": ["weights", "nodes"],
        "rankings": ["learned", "random"],
        "targets": [0.15, 0.4],
        "seeds": [0, 1],
        "from_nodes": True,
    }
    return Plan(**{**names, **combined, "out": out, **changes})


def test_every_cell_is_its_own_run(names, tmp_path, monkeypatch):
    runs = Runs()
    monkeypatch.setattr(suite_cells, "run_pruning", runs)
    plan = plan_of(names, tmp_path / "s")
    found = run_suite(plan.suite, plan.run_cell)
    assert [one.error for one in found] == [None] * 24
    kinds = [type(run) for run in runs.seen]
    # Nodes come first whatever the order asked for; weights follow in the same unit.
    assert kinds == ([PruneRun] * 4 + [WeightRun] * 4) * 2 + [BaselineRun] * 8
    for run, one in zip(runs.seen, found, strict=True):
        cell = one.cell
        assert run.directory == plan.suite.run_directory(cell)
        assert (run.task.name, run.prune.target_loss) == (cell.task, cell.target)
        assert {job.seed for job in run.jobs} == {cell.seed}
    expected = kept_addresses(planted_model().config, some_circuit(planted_model()).mask)
    assert all(run.start.nodes == expected for run in runs.seen if isinstance(run, WeightRun))


def test_a_unit_shares_and_the_next_does_not(names, tmp_path, monkeypatch):
    runs = Runs()
    monkeypatch.setattr(suite_cells, "run_pruning", runs)
    plan = plan_of(names, tmp_path / "s", methods=["nodes"], from_nodes=False)
    run_suite(plan.suite, plan.run_cell)
    shared = {}
    for run in runs.seen:
        key = (run.task.name, type(run).__name__)
        shared.setdefault(key, set()).add(id(run.shared))
        if type(run) is PruneRun:
            assert set(run.jobs) <= set(run.shared._jobs)
            assert {job.seed for job in run.shared._jobs} == {0, 1}
    assert all(len(ids) == 1 for ids in shared.values())
    assert len(plan.suite.units) == len(shared) == 4


def test_weights_without_a_circuit_to_start_from(names, tmp_path, monkeypatch):
    runs = Runs(missed=["one"])
    monkeypatch.setattr(suite_cells, "run_pruning", runs)
    plan = plan_of(names, tmp_path / "s", rankings=["learned"], targets=[0.15], seeds=[0])
    found = {(one.cell.task, one.cell.method): one for one in run_suite(plan.suite, plan.run_cell)}
    assert found["one", "weights"].record["status"] == "not_reached"
    assert "missed the target" in found["one", "weights"].record["note"]
    assert found["two", "weights"].record["status"] == "reached"
    assert [type(run) for run in runs.seen] == [PruneRun, PruneRun, WeightRun]


def test_weights_whose_nodes_failed_fail_too(names, tmp_path, monkeypatch):
    def fail(run):
        raise FloatingPointError("no")

    monkeypatch.setattr(suite_cells, "run_pruning", fail)
    plan = plan_of(names, tmp_path / "s", rankings=["learned"], targets=[0.15], seeds=[0])
    errors = {
        (one.cell.task, one.cell.method): one.error for one in run_suite(plan.suite, plan.run_cell)
    }
    assert errors["one", "nodes"] == "FloatingPointError: no"
    assert "to start from, is not there" in errors["one", "weights"]


def test_tuned_cells_are_units_of_their_own(names, tmp_path):
    tuned = plan_of(names, tmp_path / "s", tuning=Tuning(2, 3, 1))
    assert len(tuned.suite.units) == 2 * 2 * 2 + 2  # tasks, targets, seeds; random by task
    cell = next(cell for cell in tuned.suite.cells if cell.ranking == "learned")
    assert tuned.circuit(cell).parts[-2:] == ("winner", "circuit")
    assert tuned.suite.identity["tuning"] == {
        "rounds": 2,
        "jobs": 3,
        "fresh_seeds": 1,
        "search_pairs": 256,
        "centre": "published",
    }


def test_what_tells_two_suites_apart(names, tmp_path):
    plain = plan_of(names, tmp_path / "s").suite.identity
    assert plain == plan_of(names, tmp_path / "elsewhere").suite.identity
    for changes in (
        {"targets": [0.15]},
        {"seeds": [0]},
        {"from_nodes": False},
        {"rankings": ["learned"]},
    ):
        assert plan_of(names, tmp_path / "s", **changes).suite.identity != plain
    json.dumps(plain, allow_nan=False)


def test_names_of_directories(names):
    assert (
        str(plan_of(names, None).suite.directory)
        == "runs/suite/planted-nodes-weights-learned-random"
    )
    small = plan_of(names, None, methods=["nodes"], rankings=["learned"], from_nodes=False)
    assert str(small.suite.directory) == "runs/suite/planted"
