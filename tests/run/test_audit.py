"""An audit in a directory: it says everything, is read back, and refuses what is not its own."""

import dataclasses

import numpy as np
import pytest
from matplotlib import image

from circuitjax.audit.audit import AuditConfig
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.host import alone_in
from circuitjax.prune.config import Hyper
from circuitjax.report.audit_plots import PICTURES
from circuitjax.report.audit_table import read_audit
from circuitjax.report.audit_text import audit_markdown, check_lines
from circuitjax.run import audit as module
from circuitjax.run.audit import run_audit
from tests.audit.planted_audit import DISTRACTORS, circuit_of, jammed_model
from tests.prune.planted import PLANTED, SEARCH, TASK, planted_model
from tests.run.runs import changed, forbidden

CONFIG = AuditConfig(pairs=24, fractions=(0.5,), sets=2, search_steps=3)
HYPER = {"k_coef": 0.01, "init_noise_scale": 0.05, "lr": 0.02}


def job():
    return {"seed": 0, **Hyper(**HYPER).to_dict()}


def audited() -> Circuit:
    facts = {"task": TASK.name, "search": SEARCH.to_dict(), "chosen": job()}
    return circuit_of((*PLANTED, *DISTRACTORS), provenance=facts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("audit") / "here"
    return directory, run_audit(planted_model(), TASK, audited(), directory, CONFIG)


def test_the_audit_says_everything(finished):
    directory, figures = finished
    assert read_audit(directory / "audit.json") == figures
    groups = {check.group for check in figures.checks}
    assert groups == {
        *("sufficiency", "necessity", "minimality", "faithfulness", "robustness"),
        *("controls", "stability"),
    }
    checks = {check.name: check for check in figures.checks}
    assert len(checks) == len(figures.checks)
    assert checks["test loss"].passed
    assert checks["resample replacement"].passed
    assert checks["random supersets, worst mean over fractions"].passed
    assert checks["adversarial superset"].passed
    assert checks["size of shuffled labels, of the task's"].passed
    # Five of its twelve nodes do nothing, and calibration can spare one neuron of two.
    assert not checks[next(n for n in checks if n.startswith("nodes whose removal"))].passed
    assert figures.polish.nodes_after == 6
    assert "one template only" in figures.skipped["templates"]
    assert checks["templates held out from a search of its own"].passed is None
    assert [run.world for run in figures.runs][:5] == ["task"] * 5
    assert figures.settings["hyper"]["lr"] == pytest.approx(0.02)
    assert np.shape(figures.stability.matrix) == (6, 6)
    polished = Circuit.load(directory / "polished")
    polished.check_model(planted_model())
    assert polished.num_nodes == 6


def test_a_directory_that_another_process_holds_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "audit_circuit", forbidden)
    with alone_in(tmp_path), pytest.raises(ValueError, match="another process works in"):
        run_audit(planted_model(), TASK, audited(), tmp_path, CONFIG)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="lies below a file"):
        run_audit(planted_model(), TASK, audited(), tmp_path / "file" / "out", CONFIG)


def test_the_report_for_people_has_every_check(finished):
    directory, figures = finished
    text = (directory / "audit.md").read_text()
    lines = check_lines(figures.checks)
    for check in figures.checks:
        assert check.name.replace("|", "\\|") in text  # a bar would end the cell
        assert check.name in lines
    assert "no total score" in text
    assert len(lines.splitlines()) == len(figures.checks)


def test_the_report_names_seeds_that_went_astray(finished):
    _, figures = finished

    def told(sizes):
        runs = list(figures.runs)
        for index, size in enumerate(sizes):  # of the task, then of the controls
            runs[index] = dataclasses.replace(runs[index], size=size)
        return audit_markdown(dataclasses.replace(figures, runs=runs))

    assert "astray" not in told([7, 70, 9, 8, 7, 1000])
    found = told([7, 71, 9, 1000, 70])
    assert "Seeds 1, 3 went astray: more than 10 times the nodes of the smallest" in found
    assert "With k_coef=0.01" in found
    own, given = SEARCH.train.batch_size, figures.settings["audit"]["batch_size"]
    assert (f"`--batch_size=0` searches with {own} items" in found) == (given < own)


def test_the_report_says_that_polish_was_cut_short(finished):
    _, figures = finished
    assert "there was more to try" not in audit_markdown(figures)
    polish = dataclasses.replace(figures.polish, finished=False)
    cut = dataclasses.replace(figures, polish=polish)
    assert "there was more to try" in audit_markdown(cut)


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_show_something(finished, name):
    pixels = image.imread(finished[0] / f"{name}.png")
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].std() > 0.02
    assert "<svg" in (finished[0] / f"{name}.svg").read_text()


def test_a_finished_audit_is_only_read_and_another_is_refused(finished, monkeypatch):
    directory, figures = finished
    monkeypatch.setattr(module, "audit_circuit", forbidden)
    again = run_audit(planted_model(), TASK, audited(), directory, CONFIG)
    assert again == figures
    other = dataclasses.replace(CONFIG, seed=1)
    with pytest.raises(ValueError, match="holds an audit with another audit: choose another --out"):
        run_audit(planted_model(), TASK, audited(), directory, other)
    with pytest.raises(AssertionError, match="computed again"):
        run_audit(planted_model(), TASK, audited(), directory, other, overwrite=True)
    assert (directory / "audit.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_left_alone(tmp_path, monkeypatch, overwrite):
    monkeypatch.setattr(module, "audit_circuit", forbidden)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"such as 'thesis\.txt'"):
        run_audit(planted_model(), TASK, audited(), tmp_path, CONFIG, overwrite=overwrite)
    with pytest.raises(ValueError, match="is a file"):
        run_audit(planted_model(), TASK, audited(), tmp_path / "thesis.txt", CONFIG)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_what_cannot_be_audited_is_refused_and_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    for circuit, model, message in (
        (circuit_of(()), planted_model(), "keeps no node"),
        (audited(), jammed_model(), "load the model it was found in"),
        (circuit_of(PLANTED, provenance={}), planted_model(), "does not say by what search"),
    ):
        with pytest.raises(ValueError, match=message):
            run_audit(model, TASK, circuit, out, CONFIG)
    search = changed(loss="vocabulary", calibrate="off")
    with pytest.raises(ValueError, match="needs loss='binary'"):
        run_audit(planted_model(), TASK, audited(), out, CONFIG, search=search)
    assert not out.exists()
