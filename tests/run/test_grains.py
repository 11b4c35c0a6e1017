"""Runs of every grain, ranking and kind of task: one directory, one report, a circuit that loads."""

import dataclasses
import pathlib

import numpy as np
import pytest
from matplotlib import image

from circuitjax.circuit.circuit import load_circuit
from circuitjax.prune.defaults import default_jobs, default_search
from circuitjax.prune.rank import Baseline
from circuitjax.prune.train import Job
from circuitjax.report.table import summary_lines
from circuitjax.run.prune import run_pruning
from circuitjax.run.report import read_report
from circuitjax.run.search import PruneRun, gates_of
from circuitjax.tasks.contrast import ContrastTask, from_pairs
from tests.prune.planted import TASK, planted_model
from tests.run.runs import changed, run_in

SIZES = {"steps": 40, "batch_size": 16, "chunk": 20, "train": 64, "validation": 24, "test": 40}


def contrast_task() -> ContrastTask:
    """The planted pairs as examples of a contrast task."""
    import random

    rng = random.Random(0)
    pairs = [TASK.sample(rng) for _ in range(400)]
    return ContrastTask("letters", "the same", pool=tuple(dict.fromkeys(from_pairs(pairs))))


def run_of(directory: pathlib.Path, grain: str, task=TASK, **given) -> PruneRun:
    settings = {"ablation": "zero", **SIZES, **given}
    search = default_search(grain, paired=task is TASK, **settings)
    jobs = default_jobs(search, gates_of(planted_model(), search), [0])[:1]
    return PruneRun(planted_model(), task, search, jobs, directory)


CASES = {
    "weights": ("weights", {}),
    "edges": ("edges", {"ablation": "interchange"}),
    "edges, counted": ("edges", {"gate": "heaviside", "ablation": "mean", "target_kl": 0.2}),
    "nodes, interchange": ("nodes", {"ablation": "interchange"}),
    "nodes, hard concrete": ("nodes", {"gate": "hard_concrete", "control": "lagrangian"}),
}


_SLOW = tuple(case for case in CASES if case not in ("weights", "edges"))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c in _SLOW else c for c in CASES],
)
def test_a_run_of_any_grain(case, tmp_path):
    grain, given = CASES[case]
    run = run_of(tmp_path / "run", grain, **given)
    report = run_pruning(run)
    assert report == read_report(run.directory / "report.json") == run_pruning(run)
    assert (report.grain, report.status) == (grain, "reached")
    aimed = report.kl_to_model if report.target == "kl" else report.loss_circuit
    assert aimed <= report.target_value + 0.1
    assert report.loss_circuit < report.loss_without_circuit
    circuit = load_circuit(run.directory)
    assert (circuit.num_nodes, circuit.num_edges) == (report.nodes, report.edges)
    assert circuit.provenance["chosen"] == {"seed": 0, **report.jobs[0].hyper}
    assert (report.kl_validation is not None) == (grain == "edges")
    names = ["loss_vs_k.png", "training.png", "circuit.png"] + ["kl_vs_k.png"] * (grain == "edges")
    for name in names:
        assert np.std(image.imread(run.directory / name)) > 0
    assert f"grain {grain}" in summary_lines(report)


@pytest.mark.parametrize(
    "grain", ["nodes", *(pytest.param(g, marks=pytest.mark.slow) for g in ("weights", "edges"))]
)
def test_a_contrast_task_of_any_grain(grain, tmp_path):
    run = run_of(tmp_path / "run", grain, contrast_task(), ablation="interchange")
    report = run_pruning(run)
    assert report.status == "reached"
    assert (report.calibration.scale, report.calibration.shift) == (1.0, 0.0)
    assert report.config["task_file"] is not None
    assert report.correlation_within is None


@pytest.mark.parametrize(
    ("grain", "ranking"),
    [
        ("nodes", "integrated"),
        pytest.param("weights", "attribution", marks=pytest.mark.slow),
        pytest.param("edges", "random", marks=pytest.mark.slow),
    ],
)
def test_a_ranking_without_training(grain, ranking, tmp_path):
    search = default_search(grain, ranking=ranking, ablation="zero", **SIZES)
    jobs = [Job(5, Baseline(ranking, points=4))]
    run = PruneRun(planted_model(), TASK, search, jobs, tmp_path / "run")
    said: list[str] = []
    report = run_pruning(run, say=said.append)
    assert (report.status, report.ranking) == ("reached", ranking)
    assert report.k_after_training is None
    assert "ranking" in report.seconds
    assert "training" not in report.seconds
    assert f"ranked by {ranking}" in summary_lines(report)
    assert any("ranking without training" in line for line in said)
    # What only training reads is no part of what the run is.
    again = dataclasses.replace(run, search=changed(search, steps=9, batch_size=3, chunk=7))
    assert run_pruning(again) == report
    other = [Job(6, Baseline(ranking, points=4))]
    with pytest.raises(ValueError, match="a run with another jobs"):
        run_pruning(dataclasses.replace(run, jobs=other))
    with pytest.raises(ValueError, match="a run has one ranking"):
        run_in(tmp_path / "mixed", jobs=jobs)


def test_a_trivial_target_of_kl(tmp_path):
    report = run_pruning(run_of(tmp_path / "run", "edges", target_kl=50.0))
    assert (report.status, report.edges, report.target_loss) == ("trivial", 0, None)


def test_what_cannot_be_is_refused_before_any_work(tmp_path):
    search = default_search("weights", ranking="variance", **SIZES)
    with pytest.raises(ValueError, match="ranking=variance with grain weights or edges cannot be"):
        PruneRun(planted_model(), TASK, search, [Job(0, Baseline("variance"))], tmp_path / "run")
    with pytest.raises(ValueError, match="control=hold without a loss or a KL"):
        run_of(tmp_path / "run", "nodes", control="hold", target_edges=3)
    assert not (tmp_path / "run").exists()
