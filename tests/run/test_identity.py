"""A result is shown for the question that was asked, and for no other that looks like it."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest

from circuitjax.audit.audit import AuditConfig
from circuitjax.core import checkpoints
from circuitjax.prune.config import Hyper
from circuitjax.prune.train import Job
from circuitjax.run import audit as audit_module
from circuitjax.run import prune as prune_module
from circuitjax.run import search as search_module
from circuitjax.run.audit import run_audit
from circuitjax.run.prune import finished_report, run_pruning
from circuitjax.run.search import asked_of
from circuitjax.run.second_try import Trained, all_collapsed, kept_first, second_job
from circuitjax.run.study import Study, run_study
from circuitjax.run.suite import Cell, Suite, outcome_of, run_suite
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import PLANTED, SEARCH, TASK, planted_model
from tests.run.runs import JOBS, changed, forbidden, run_in


def swapped_tokenizer(model):
    """Two of its tokens have each other's ids."""
    fields = json.loads(model.tokenizer_json)
    vocabulary = fields["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.get)[2:4]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    return dataclasses.replace(model, tokenizer_json=json.dumps(fields))


def other_means(model):
    means = {site: np.asarray(value) + 0.5 for site, value in model.means.items()}
    return dataclasses.replace(model, means=means)


OTHERS = {"tokenizer": swapped_tokenizer, "means": other_means}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("runs") / "one", jobs=JOBS[:1])
    return run, run_pruning(run)


@pytest.mark.parametrize("name", OTHERS)
def test_another_tokenizer_or_means_is_another_question(name, finished, tmp_path):
    """The network's own hash is the same."""
    run, _ = finished
    model = OTHERS[name](run.model)
    assert model.hash == run.model.hash
    other = run_in(run.directory, jobs=JOBS[:1], model=model)
    with pytest.raises(ValueError, match=f"holds a run with another {name}"):
        run_pruning(other)
    study = Study(run.model, TASK, SEARCH, tmp_path, rounds=1, jobs=2)
    again = dataclasses.replace(study, model=model)
    assert study.identity() != again.identity()
    assert {k for k, v in asked_of(model, TASK).items() if v != asked_of(run.model, TASK)[k]} == {
        name
    }


def circuit_at(target):
    """The same gates, cut at another target."""
    facts = {
        "task": TASK.name,
        "search": changed(value=target).to_dict(),
        "chosen": {"seed": 0, **Hyper(0.01, init_noise_scale=0.05, lr=0.02).to_dict()},
    }
    return circuit_of(PLANTED, provenance=facts)


def test_an_audit_of_the_same_gates_at_another_target_is_another(tmp_path, monkeypatch):
    config = AuditConfig(pairs=16, search=False, polish=False, sets=1, search_steps=1)
    assert circuit_at(0.15).content_hash == circuit_at(0.6).content_hash
    run_audit(planted_model(), TASK, circuit_at(0.15), tmp_path, config)
    monkeypatch.setattr(audit_module, "audit_circuit", forbidden)
    assert run_audit(planted_model(), TASK, circuit_at(0.15), tmp_path, config).target == 0.15
    with pytest.raises(ValueError, match="holds an audit with another search"):
        run_audit(planted_model(), TASK, circuit_at(0.6), tmp_path, config)


CELL, OTHER = Cell("m", "a"), Cell("m", "b")


def test_a_cell_that_was_copied_is_told(tmp_path):
    suite = Suite(tmp_path, {"one": [CELL], "two": [OTHER]}, {"seeds": [0]})
    run_suite(suite, lambda cell, own, unit: {"status": "reached"})
    cells = tmp_path / "cells"
    shutil.copy(cells / CELL.key / "cell.json", cells / OTHER.key / "cell.json")
    with pytest.raises(ValueError, match=r"is of another cell, .*: remove it, and the same"):
        outcome_of(suite, OTHER)


def test_a_directory_that_was_moved_away_holds_the_whole_run_in_the_end(tmp_path, monkeypatch):
    """What is written after that is finished, and known as what it is."""
    run, moved = run_in(tmp_path / "out", jobs=JOBS[:1]), tmp_path / "moved"

    def evidence(*args):
        run.directory.rename(moved)
        return found(*args)

    found = prune_module.evidence
    monkeypatch.setattr(prune_module, "evidence", evidence)
    report = run_pruning(run)
    monkeypatch.setattr(prune_module, "evidence", found)
    assert finished_report(run) == report
    monkeypatch.setattr(search_module, "prepare", forbidden)
    assert run_pruning(run) == report


def test_a_changed_checkpoint_names_its_mend_and_can_be_done_anew(finished, tmp_path):
    run = run_in(tmp_path / "out", jobs=JOBS[:1])

    def stop(step, metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pruning(run, progress=stop)
    training = run.directory / "training"
    step = training / f"step_{checkpoints.latest_step(training)}"
    largest = max(
        (path for path in step.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ValueError, match=r"remove .*training, and the same command"):
        run_pruning(run)
    report = run_pruning(run, overwrite=True)
    assert report.circuit == finished[1].circuit


def test_a_study_that_was_moved_away_stops_and_goes_on_once_it_is_back(tmp_path):
    study = Study(planted_model(), TASK, SEARCH, tmp_path / "out", rounds=2, jobs=2)
    seen = []

    def progress(number, step, edges):
        if number == 1 and not seen:
            seen.append(step)
            study.directory.rename(tmp_path / "moved")

    with pytest.raises(ValueError, match="was moved or removed while its study ran: put it back"):
        run_study(study, progress=progress)
    shutil.rmtree(study.directory)
    (tmp_path / "moved").rename(study.directory)
    assert len(run_study(study).observations) == 4


def test_a_collapse_of_training_gets_a_second_try(tmp_path):
    """A step and a price under which training closes everything; the order of scores still cuts."""
    bad = Job(0, Hyper(1000.0, lr=0.5, init_noise_scale=0.05))
    said = []
    search = changed(control="count", eliminate=False)
    run = run_in(tmp_path / "out", jobs=[bad], search=search)
    report = run_pruning(run, say=said.append)
    assert any("once more, with the next seed and default settings" in one for one in said)
    collapsed, again = report.jobs
    assert collapsed.reached
    assert (collapsed.k_after_training, again.seed, report.seed) == (0, 1, 1)
    assert collapsed.k > 200
    assert report.edges == again.edges < collapsed.edges / 100
    (line,) = [check for check in report.checks if check.group == "search"]
    assert line.passed
    assert finished_report(run) == report


def test_a_size_that_was_asked_for_needs_no_second_try(tmp_path):
    """It is kept whatever training did; seen at residual edges cut to what soft gates expect."""
    bad = Job(0, Hyper(1000.0, lr=0.5, init_noise_scale=0.05))
    search = changed(control="count", eliminate=False, target="edges", value=40)
    report = run_pruning(run_in(tmp_path / "out", jobs=[bad], search=search))
    assert [job.seed for job in report.jobs] == [0]
    assert not [check for check in report.checks if check.group == "search"]


def test_a_second_try_under_a_lagrangian_closes_gates(tmp_path):
    search = changed(control="lagrangian", gate="hard_concrete")
    job = second_job(run_in(tmp_path / "out", search=search))
    assert (job.seed, job.hyper.target_sparsity) == (2, 0.9)


def ended(loss, trained, started, reached=True):
    choice = types.SimpleNamespace(reached=reached)
    found = types.SimpleNamespace(choice=choice, trained=trained, started=started)
    return Trained(found, loss, chance=0.69)


def test_what_a_collapse_is():
    """The figures of issue reports: 12 gates open at chance, a cut at 7,800; and sound ones."""
    collapsed = ended(0.69, 12, 7800)
    sound = ended(0.12, 90, 150)
    missed = ended(0.69, 0, 8000, reached=False)
    assert [one.collapsed for one in (collapsed, sound, missed)] == [True, False, False]
    assert not ended(0.69, 100, 200).collapsed  # as far as elimination may reach back
    assert not ended(0.3, 12, 7800).collapsed  # training did not fail
    assert all_collapsed([collapsed, missed])
    assert not all_collapsed([collapsed, sound])
    assert not all_collapsed([missed])
    assert kept_first([collapsed, sound]) == [sound.found]
    assert kept_first([collapsed, missed]) == [collapsed.found, missed.found]
    check = collapsed.check()
    assert check.passed is False
    assert "7800 for 12 open after training, which ended at 0.690 nats" in check.note
    assert "the order of scores, not training, carried the circuit" in check.note
    assert sound.check().passed
