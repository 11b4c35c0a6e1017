"""Runs of edges, of weights and of baselines: the same directory, resumable, with a full report."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib import image

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.circuit.find_edges import default_edge_jobs
from circuitjax.circuit.find_weights import default_weight_jobs
from circuitjax.prune.baselines import Baseline
from circuitjax.prune.residual import EdgeConfig
from circuitjax.prune.train import Job
from circuitjax.report import edge_run
from circuitjax.report.baseline_run import BaselineRun
from circuitjax.report.edge_run import EdgeRun
from circuitjax.report.run_directory import run_pruning
from circuitjax.report.table import summary_lines
from circuitjax.report.weight_run import WeightRun
from tests.prune.planted import PRUNE, TASK, planted_model

SETTINGS = EdgeConfig(
    steps=40, batch_size=16, chunk=20, train_examples=64, validation_examples=24, test_examples=40
)
FIELDS = {
    *("method", "model", "task", "seed", "ablation", "status", "loss_unpruned", "loss_empty"),
    *("loss_circuit", "loss_circuit_uncalibrated", "loss_without_circuit", "loss_without_random"),
    *("kl_to_model", "accuracy_unpruned", "accuracy_circuit", "nodes", "nodes_total", "edges"),
    *("edges_total", "calibration", "jobs", "seconds", "config", "versions"),
}


def edge_run_in(directory, **changes) -> EdgeRun:
    jobs = default_edge_jobs(SETTINGS, [0], target_sparsity=0.9)
    fields = {"model": planted_model(), "task": TASK, "settings": SETTINGS, "jobs": jobs, **changes}
    return EdgeRun(directory=directory, **fields)


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    run = edge_run_in(tmp_path_factory.mktemp("runs") / "edges")
    return run, run_pruning(run)


def test_the_report_of_edges(edges):
    run, report = edges
    assert set(report) >= FIELDS | {"sparsity", "edges_of_positions", "target_value"}
    assert report == json.loads((run.directory / "report.json").read_text())
    assert report["status"] == "reached"
    assert report["method"] == "edges"
    assert report["loss_circuit"] <= 0.2 < report["loss_without_circuit"]
    assert report["edges"] == EdgeCircuit.load(run.directory / "circuit").num_edges
    assert len(report["loss_without_random"]) == SETTINGS.random_controls
    job = report["jobs"][0]
    assert job["sparsity_requested"] == pytest.approx(0.9)
    assert 0 < job["sparsity_expected"] < 1
    assert "target 0.15" in summary_lines(report)
    for name in ("kl_vs_edges.png", "loss_vs_k.png", "training.png"):
        assert image.imread(run.directory / name).std() > 0


def test_edges_again_is_read_and_another_setting_refused(edges, monkeypatch):
    run, report = edges

    def forbidden(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(edge_run, "make_edge_problem", forbidden)
    assert run_pruning(run) == report
    other = default_edge_jobs(SETTINGS, [1])
    with pytest.raises(ValueError, match="holds another run"):
        run_pruning(edge_run_in(run.directory, jobs=other))


def test_a_trivial_target_is_told(tmp_path):
    settings = EdgeConfig(**{**SETTINGS.to_dict(), "target": "kl", "target_value": 50.0})
    report = run_pruning(edge_run_in(tmp_path / "trivial", settings=settings))
    assert report["status"] == "trivial"
    assert report["edges"] == 0


def test_the_report_of_weights(tmp_path):
    jobs = default_weight_jobs(1000, [0], k_coef=0.01)
    run = WeightRun(planted_model(), TASK, PRUNE, jobs, tmp_path / "weights")
    report = run_pruning(run)
    assert set(report) >= FIELDS | {"started_from"}
    circuit = Circuit.load(run.directory / "circuit")
    assert circuit.weights is not None
    assert len(circuit.edges(planted_model())) == report["edges"] < report["edges_total"]
    assert report["started_from"] == "model"
    for name in ("loss_vs_k.png", "training.png", "circuit.png"):
        assert np.std(image.imread(run.directory / name)) > 0
    assert run_pruning(run) == report


def test_the_report_of_a_baseline(tmp_path):
    jobs = [Job(seed, Baseline("integrated", points=4)) for seed in (5,)]
    run = BaselineRun(planted_model(), TASK, PRUNE, jobs, tmp_path / "baseline")
    said = []
    report = run_pruning(run, say=said.append)
    assert set(report) >= FIELDS - {"jobs"} | {"nodes_before_cleanup", "ranking"}
    assert report["status"] == "reached"
    assert report["ranking"] == "integrated"
    assert report["loss_circuit"] <= 0.2 < report["loss_without_circuit"]
    assert report["k_after_training"] is None
    assert report["jobs"][0]["hyper"] == {"ranking": "integrated", "pairs": 512, "points": 4}
    assert "ranking" in report["seconds"]
    assert "training" not in report["seconds"]
    assert "ranked by integrated" in summary_lines(report)
    assert any("ranking without training" in line for line in said)
    circuit = Circuit.load(run.directory / "circuit")
    assert circuit.provenance["ranking"] == "integrated"
    # What only training reads is no part of what the run is.
    other = dataclasses.replace(PRUNE, steps=PRUNE.steps + 1, batch_size=3, chunk=7)
    again = BaselineRun(planted_model(), TASK, other, jobs, tmp_path / "baseline")
    assert run_pruning(again) == report
    random = [Job(5, Baseline("random"))]
    with pytest.raises(ValueError, match="holds another run"):
        run_pruning(BaselineRun(planted_model(), TASK, PRUNE, random, tmp_path / "baseline"))
    with pytest.raises(ValueError, match="a run has one ranking"):
        BaselineRun(planted_model(), TASK, PRUNE, jobs + random, tmp_path / "mixed")


def test_a_task_without_a_circuit_has_an_empty_baseline(tmp_path):
    easy = dataclasses.replace(PRUNE, target_loss=0.8)
    jobs = [Job(0, Baseline("variance"))]
    report = run_pruning(BaselineRun(planted_model(), TASK, easy, jobs, tmp_path / "easy"))
    assert (report["status"], report["nodes"]) == ("trivial", 0)
