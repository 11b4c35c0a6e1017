"""A run in a directory: it resumes, is idempotent, refuses what is not its own, and adds up."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from matplotlib import image

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import Job
from circuitjax.core import checkpoints
from circuitjax.prune.config import Hyper
from circuitjax.prune.evaluate import answers
from circuitjax.report import prune_run
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import claim, run_pruning
from circuitjax.report.table import summary_lines
from circuitjax.tasks.base import Pair, Task
from tests.prune.planted import PRUNE, TASK, planted_model, planted_problem

FIELDS = {
    *("model", "task", "seed", "ablation", "target_loss", "status", "loss_unpruned", "loss_empty"),
    *("loss_circuit", "loss_circuit_uncalibrated", "loss_without_circuit", "loss_without_random"),
    *("kl_to_model", "accuracy_unpruned", "accuracy_circuit", "nodes", "nodes_total", "edges"),
    *("edges_total", "nodes_before_cleanup", "k_after_training", "k_inside", "k_after"),
    *("calibration", "seconds", "config", "versions"),
}
HYPERS = [Hyper(c, init_noise_scale=0.05, lr=0.02) for c in (0.01, 0.02)]
JOBS = [Job(index, hyper) for index, hyper in enumerate(HYPERS)]


def run_in(directory, **changes) -> PruneRun:
    fields = {"model": planted_model(), "task": TASK, "prune": PRUNE, "jobs": JOBS, **changes}
    return PruneRun(directory=directory, **fields)


def forbidden(*args, **kwargs):
    raise AssertionError("computed again")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("runs") / "whole")
    return run, run_pruning(run)


def test_the_report_says_everything(finished):
    run, report = finished
    assert set(report) >= FIELDS
    assert report == json.loads((run.directory / "report.json").read_text())
    assert report["status"] == "reached"
    assert report["loss_circuit"] <= 0.15 < report["loss_empty"]
    assert report["nodes"] <= report["nodes_before_cleanup"] <= report["nodes_total"]
    assert report["nodes"] <= 7
    assert 0 < report["edges"] < report["edges_total"]
    assert report["k_inside"] <= report["k_after"]
    assert len(report["loss_without_random"]) == PRUNE.random_controls
    assert np.median(report["loss_without_random"]) < 0.1 < report["loss_without_circuit"]
    assert {"training", "selection", "evidence"} <= set(report["seconds"])
    assert report["versions"]["jax"] == jax.__version__
    assert not (run.directory / "training").exists()
    text = summary_lines(report)
    assert f"{report['nodes']} of {report['nodes_total']}" in text


@pytest.mark.parametrize("name", ["loss_vs_k.png", "training.png", "circuit.png"])
def test_the_pictures_show_something(finished, name):
    pixels = image.imread(finished[0].directory / name)
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].std() > 0.02
    assert len(np.unique(np.rint(pixels[..., :3] * 255) @ [65536.0, 256.0, 1.0])) > 20


def test_the_saved_circuit_gives_the_reports_loss(finished):
    run, report = finished
    circuit = Circuit.load(run.directory / "circuit")
    circuit.check_model(run.model)
    problem = planted_problem()
    fills = {site: np.asarray(fill) for site, fill in circuit.fills.items()}
    found = np.asarray(
        answers(problem, problem.test, [circuit.mask], fills).differences[0], np.float64
    )
    signed = np.array([-1.0, 1.0]) * (circuit.scale * found + circuit.shift)
    loss = np.mean(np.logaddexp(0, signed))
    assert report["loss_circuit"] == pytest.approx(loss, abs=1e-5)
    assert circuit.num_nodes == report["nodes"]
    assert len(circuit.edges(run.model)) == report["edges"]


def test_a_finished_run_is_only_read(finished, monkeypatch):
    run, report = finished
    monkeypatch.setattr(prune_run, "draw_problem", forbidden)
    assert run_pruning(run) == report
    assert run_pruning(run, overwrite=True) == report


def test_a_killed_run_resumes_and_ends_alike(finished, tmp_path):
    run = run_in(tmp_path / "killed")

    def kill(step, metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pruning(run, progress=kill)
    assert checkpoints.latest_step(run.directory / "training") == 20
    steps = []
    report = run_pruning(run, progress=lambda step, metrics: steps.append(step))
    assert steps == [20, 40, 60]
    for name, value in finished[1].items():
        if name != "seconds":
            assert report[name] == value, name


def test_another_run_is_refused_or_replaced(finished, tmp_path, monkeypatch):
    first = run_in(tmp_path / "run")
    monkeypatch.setattr(prune_run, "draw_problem", forbidden)
    with pytest.raises(AssertionError, match="computed again"):
        run_pruning(first)
    assert not first.directory.exists()  # nothing is written before the task can be asked
    claim(first)
    (first.directory / "report.json").write_text("{}")
    before = (first.directory / "run.json").read_bytes()
    for changes in (
        {"prune": dataclasses.replace(PRUNE, steps=40)},
        {"jobs": JOBS[:1]},
        {"task": dataclasses.replace(TASK, name="other")},
        {"task": Task(TASK.name, "given", pool=(Pair("A-ab", "B-ab", "x", "y"),))},
    ):
        other = run_in(first.directory, **changes)
        with pytest.raises(ValueError, match="holds another run: choose another --out"):
            run_pruning(other)
        assert (first.directory / "run.json").read_bytes() == before
        # With overwrite it goes on to the data, and until these are there it removes nothing.
        with pytest.raises(AssertionError, match="computed again"):
            run_pruning(other, overwrite=True)
        assert (first.directory / "report.json").exists()
    claim(other)
    assert not (first.directory / "report.json").exists()
    assert json.loads((first.directory / "run.json").read_text())["task"] == TASK.name


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_never_removed(tmp_path, overwrite):
    for index, files in enumerate(
        (
            {"training_notes.txt": "mine"},
            {"run.json": '{"a": 1}'},
            {"run.json": "{"},
            {"training": ""},
        )
    ):
        run = run_in(tmp_path / str(index))
        run.directory.mkdir()
        for name, text in files.items():
            (run.directory / name).write_text(text)
        with pytest.raises(ValueError, match="no run of ours"):
            run_pruning(run, overwrite=overwrite)
        for name, text in files.items():
            assert (run.directory / name).read_text() == text
    # Not even beside a run of ours.
    run = run_in(tmp_path / "both")
    claim(run)
    (run.directory / "thesis.txt").write_text("mine")
    other = run_in(run.directory, jobs=JOBS[:1])
    with pytest.raises(ValueError, match=r"such as 'thesis\.txt'"):
        run_pruning(other, overwrite=True)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        run_pruning(run_in(file), overwrite=True)


def test_a_trivial_task_says_so(tmp_path):
    run = run_in(tmp_path / "run", prune=dataclasses.replace(PRUNE, target_loss=0.8))
    report = run_pruning(run)
    assert report["status"] == "trivial"
    assert report["nodes"] == report["edges"] == report["k_inside"] == 0
    assert report["loss_circuit"] <= 0.8
    assert Circuit.load(run.directory / "circuit").num_nodes == 0
    assert (run.directory / "loss_vs_k.png").exists()


def test_what_leaves_the_finite_numbers_keeps_the_last_good_state(tmp_path, monkeypatch):
    run = run_in(tmp_path / "run")
    real = prune_run.train_masks

    def train(problem, state, on_chunk):
        bad = dict(problem.params)

        def after(state, metrics):
            on_chunk(state, metrics)
            bad["unembed"] = bad["unembed"] * np.nan

        return real(dataclasses.replace(problem, params=bad), state, after)

    monkeypatch.setattr(prune_run, "train_masks", train)
    with pytest.raises(FloatingPointError, match="at step 20"):
        run_pruning(run)
    assert checkpoints.latest_step(run.directory / "training") == 20
    assert not (run.directory / "report.json").exists()
