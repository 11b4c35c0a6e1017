"""Runs that share a training end exactly as runs that do not, and train once."""

import dataclasses
import json

import numpy as np
import pytest

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import Job
from circuitjax.prune.baselines import Baseline
from circuitjax.prune.config import Hyper
from circuitjax.report import shared as shared_module
from circuitjax.report.baseline_run import BaselineRun
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import run_pruning
from circuitjax.report.shared import Shared
from tests.prune.planted import PRUNE, TASK, planted_model

HYPER = Hyper(0.01, init_noise_scale=0.05, lr=0.02)
JOBS = [Job(seed, HYPER) for seed in (0, 1)]
TARGETS = (0.15, 0.4)


def run_in(directory, target=0.15, jobs=JOBS, shared=None, kind=PruneRun):
    prune = dataclasses.replace(PRUNE, target_loss=target)
    return kind(planted_model(), TASK, prune, jobs, directory, shared)


def figures(report):
    return json.dumps({name: value for name, value in report.items() if name != "seconds"})


def check_alike(one, other, name="report"):
    """Equal but for rounding: a program of other jobs beside this one may add in another order."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            check_alike(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), name
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            check_alike(left, right, f"{name}[{index}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4), name
    else:
        assert one == other, name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    root = tmp_path_factory.mktemp("alone")
    return {
        (target, job.seed): run_pruning(run_in(root / f"{target}_{job.seed}", target, [job]))
        for target in TARGETS
        for job in JOBS
    }


@pytest.mark.slow
def test_targets_and_seeds_of_one_training(alone, tmp_path, monkeypatch):
    shared, trained = Shared(tmp_path / "unit", JOBS), []
    train = shared_module.train_masks

    def counted(*args, **kwargs):
        trained.append(1)
        return train(*args, **kwargs)

    monkeypatch.setattr(shared_module, "train_masks", counted)
    for (target, seed), expected in alone.items():
        folder = tmp_path / f"{target}_{seed}"
        report = run_pruning(run_in(folder, target, [JOBS[seed]], shared))
        check_alike(report, expected)
        assert (folder / "training.png").stat().st_size > 1000
        assert not (folder / "training").exists()
    assert len(trained) == 1
    assert (tmp_path / "unit/training").exists()
    # A process that starts anew finds the training on disk, and remembers no answer.
    again = Shared(tmp_path / "unit", JOBS)
    found = run_pruning(run_in(tmp_path / "again", 0.15, [JOBS[1]], again))
    held = json.loads((tmp_path / "0.15_1/report.json").read_text())
    assert figures(found) == figures(held)
    circuit = Circuit.load(tmp_path / "again/circuit")
    first = Circuit.load(tmp_path / "0.15_1/circuit")
    assert all(np.array_equal(circuit.mask[site], first.mask[site]) for site in first.mask)


@pytest.mark.slow
def test_a_target_that_was_looked_at_before_looks_up_little(tmp_path, monkeypatch):
    from circuitjax.prune import evaluate

    shared, looked = Shared(tmp_path / "unit", JOBS), []
    look = evaluate.Prober._look

    def counted(self, pairs, ranking, ks):
        looked.extend(ks)
        return look(self, pairs, ranking, ks)

    monkeypatch.setattr(evaluate.Prober, "_look", counted)
    run_pruning(run_in(tmp_path / "one", 0.15, JOBS, shared))
    first = len(looked)
    run_pruning(run_in(tmp_path / "two", 0.151, JOBS, shared))
    assert first > 10
    assert len(looked) - first <= first // 5


def test_rankings_without_training_share_their_scores(tmp_path, monkeypatch):
    from circuitjax.report import baseline_run

    shared, scored = Shared(tmp_path / "unit"), []
    score = baseline_run.score_jobs

    def counted(*args):
        scored.append(1)
        return score(*args)

    monkeypatch.setattr(baseline_run, "score_jobs", counted)
    jobs = [Job(0, Baseline("attribution"))]
    for target in TARGETS:
        mine = run_in(tmp_path / f"{target}", target, jobs, shared, BaselineRun)
        own = run_in(tmp_path / f"{target}_alone", target, jobs, None, BaselineRun)
        assert figures(run_pruning(mine)) == figures(run_pruning(own))
    assert len(scored) == 1 + len(TARGETS)


def test_what_cannot_be_shared_is_refused(tmp_path):
    shared = Shared(tmp_path / "unit", JOBS[:1])
    run_in(tmp_path / "one", 0.15, JOBS[:1], shared).begin()
    work = run_in(tmp_path / "two", 0.15, JOBS[1:], shared).begin()
    with pytest.raises(ValueError, match="seed 1 is none of those trained together"):
        shared.trained(work.problem, JOBS[1:])
    other = dataclasses.replace(run_in(tmp_path / "three", 0.15, JOBS, shared), task=TASK)
    for changes in (
        {"prune": dataclasses.replace(PRUNE, steps=9)},
        {"task": dataclasses.replace(TASK, name="another")},
        {"model": planted_model(5.0, "another")},
    ):
        with pytest.raises(ValueError, match="cannot share"):
            dataclasses.replace(other, **changes).begin()
