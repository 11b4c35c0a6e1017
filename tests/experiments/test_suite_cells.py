"""The cells of a suite of pruning runs: which run each is, what it shares, what it starts from."""

import json
import shutil
import types

import pytest
from absl import flags
from absl.testing import flagsaver

from circuitjax.run.suite import run_suite
from experiments import suite_cells
from experiments.suite_cells import Plan, Tuning
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import LETTERS, PLANTED, planted_model

CIRCUIT = circuit_of(PLANTED, planted_model(), ablation="mean").content_hash


class Runs:
    """Stands for `run_pruning`: notes the runs, and leaves a circuit where one is started from."""

    def __init__(self, missed=()) -> None:
        self.seen, self.missed = [], missed

    def __call__(self, run):
        self.seen.append(run)
        if kind_of(run) == ("nodes", "learned"):
            found = circuit_of(PLANTED, run.model, ablation="mean")
            found.save(run.directory / "circuit", run.model)
        report = dict.fromkeys(
            (*("status", "nodes", "edges", "nodes_total", "edges_total", "loss_unpruned"),
             *("loss_empty", "loss_validation", "loss_circuit", "loss_without_circuit"),
             *("accuracy_circuit", "kl_to_model")), 5
        )  # fmt: skip
        report["status"] = "not_reached" if run.task.name in self.missed else "reached"
        return types.SimpleNamespace(
            **report, loss_without_random=[0.1], circuit=CIRCUIT, seconds={}, necessity=None
        )


def kind_of(run):
    return run.search.choices.grain, run.search.choices.ranking


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
        "grains": ["weights", "nodes"],
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
    assert [one.error for one in found] == [None] * 32
    kinds = [kind_of(run) for run in runs.seen]
    # Nodes come first whatever the order asked for; weights follow in the same unit. Both hold their
    # target, so that a unit is of one target and seed.
    learned = [("nodes", "learned"), ("weights", "learned")] * 8
    assert [kind for kind in kinds if kind[1] == "learned"] == learned
    assert kinds.count(("nodes", "random")) == kinds.count(("weights", "random")) == 8
    for run, one in zip(runs.seen, found, strict=True):
        cell = one.cell
        assert run.directory == plan.suite.run_directory(cell)
        assert kind_of(run) == (cell.grain, cell.ranking)
        assert (run.task.name, run.search.selection.value) == (cell.task, cell.target)
        assert {job.seed for job in run.jobs} == {cell.seed}
        follows = kind_of(run) == ("weights", "learned")
        assert (run.start.nodes() if follows else run.start) == (list(PLANTED) if follows else None)


def test_a_unit_shares_and_the_next_does_not(names, tmp_path, monkeypatch):
    runs = Runs()
    monkeypatch.setattr(suite_cells, "run_pruning", runs)
    with flagsaver.flagsaver(control="count"):
        plan = plan_of(names, tmp_path / "s", grains=["nodes", "edges"], from_nodes=False)
        run_suite(plan.suite, plan.run_cell)
    shared = {}
    for run in runs.seen:
        key = (run.task.name, *kind_of(run))
        shared.setdefault(key, set()).add(id(run.shared))
        if run.search.choices.ranking == "learned":
            assert set(run.jobs) <= set(run.shared._jobs)
            assert {job.seed for job in run.shared._jobs} == {0, 1}
    assert all(len(ids) == 1 for ids in shared.values())
    assert len(plan.suite.units) == len(shared) == 8


def test_what_holds_its_target_shares_nothing(names, tmp_path, monkeypatch):
    runs = Runs()
    monkeypatch.setattr(suite_cells, "run_pruning", runs)
    plan = plan_of(
        names, tmp_path / "s", grains=["weights"], rankings=["learned"], from_nodes=False
    )
    run_suite(plan.suite, plan.run_cell)
    assert all(run.shared is None for run in runs.seen)
    assert len(plan.suite.units) == 8


def test_weights_without_a_circuit_to_start_from(names, tmp_path, monkeypatch):
    runs = Runs(missed=["one"])
    monkeypatch.setattr(suite_cells, "run_pruning", runs)
    plan = plan_of(names, tmp_path / "s", rankings=["learned"], targets=[0.15], seeds=[0])
    found = {(one.cell.task, one.cell.grain): one for one in run_suite(plan.suite, plan.run_cell)}
    assert found["one", "weights"].record["status"] == "not_reached"
    assert "missed the target" in found["one", "weights"].record["note"]
    assert found["two", "weights"].record["status"] == "reached"
    assert [kind_of(run)[0] for run in runs.seen] == ["nodes", "nodes", "weights"]


def test_weights_whose_nodes_failed_fail_too(names, tmp_path, monkeypatch):
    def fail(run):
        raise FloatingPointError("no")

    monkeypatch.setattr(suite_cells, "run_pruning", fail)
    plan = plan_of(names, tmp_path / "s", rankings=["learned"], targets=[0.15], seeds=[0])
    errors = {
        (one.cell.task, one.cell.grain): one.error for one in run_suite(plan.suite, plan.run_cell)
    }
    assert errors["one", "nodes"] == "FloatingPointError: no"
    assert "to start from, is not there" in errors["one", "weights"]


def test_tuned_cells_are_units_of_their_own(names, tmp_path):
    tuned = plan_of(names, tmp_path / "s", tuning=Tuning(2, 3, 1))
    # Tasks, targets, seeds; random by grain and task.
    assert len(tuned.suite.units) == 2 * 2 * 2 + 2 * 2
    cell = next(
        cell for cell in tuned.suite.cells if (cell.grain, cell.ranking) == ("nodes", "learned")
    )
    assert tuned.circuit(cell).parts[-2:] == ("winner", "circuit")
    assert tuned.suite.identity["tuning"] == {
        "rounds": 2,
        "jobs": 3,
        "fresh_seeds": 1,
        "search_pairs": 256,
        "centre": "published",
    }


def test_a_finished_cell_that_lost_its_circuit_is_told(names, tmp_path, monkeypatch):
    monkeypatch.setattr(suite_cells, "run_pruning", Runs())
    asked = {"grains": ["nodes"], "rankings": ["learned"], "from_nodes": False}
    plan = plan_of(names, tmp_path / "s", **asked)
    plan.check_finished()
    run_suite(plan.suite, plan.run_cell)
    plan.check_finished()
    place = plan.circuit(plan.suite.cells[0])
    circuit_of(PLANTED[1:], planted_model(), ablation="mean").save(place, planted_model())
    with pytest.raises(ValueError, match=r"is not the one its cell\.json names: remove"):
        plan.check_finished()
    shutil.rmtree(place)
    with pytest.raises(ValueError, match=r"has lost its circuit .*: remove"):
        plan.check_finished()
    with pytest.raises(ValueError, match="holds a suite with another"):
        plan_of(names, tmp_path / "s", **asked, seeds=[5]).check_finished()


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
    small = plan_of(names, None, grains=["nodes"], rankings=["learned"], from_nodes=False)
    assert str(small.suite.directory) == "runs/suite/planted"
