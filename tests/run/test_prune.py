"""A run in a directory: it resumes, is idempotent, refuses what is not its own, and adds up."""

import json
import shutil

import jax
import numpy as np
import pytest
from matplotlib import image

from circuitjax.circuit.circuit import Circuit
from circuitjax.core import checkpoints
from circuitjax.core.host import alone_in
from circuitjax.core.records import seal
from circuitjax.report.table import summary_lines
from circuitjax.run import search as search_module
from circuitjax.run import shared as shared_module
from circuitjax.run.directory import RUN, claim
from circuitjax.run.prune import run_pruning
from circuitjax.run.report import Report, read_report
from circuitjax.tasks.base import Pair, Task
from tests.prune.planted import SEARCH, TASK, planted_problem
from tests.run.runs import JOBS, changed, forbidden, run_in


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("runs") / "whole")
    return run, run_pruning(run)


def test_the_report_says_everything(finished):
    run, report = finished
    assert read_report(run.directory / "report.json") == report
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert (report.status, report.grain, report.gate) == ("reached", "nodes", "heaviside")
    assert report.loss_circuit <= 0.15 < report.loss_empty
    assert report.nodes <= report.gates_before_cleanup <= report.nodes_total
    assert report.nodes <= 7
    assert 0 < report.edges < report.edges_total
    assert report.k == report.k_inside <= report.k_after
    assert len(report.loss_without_random) == SEARCH.selection.random_controls
    assert np.median(report.loss_without_random) < 0.1 < report.loss_without_circuit
    assert {"training", "selection", "evidence"} <= set(report.seconds)
    assert report.versions["jax"] == jax.__version__
    assert not (run.directory / "training").exists()
    assert f"{report.nodes} of {report.nodes_total}" in summary_lines(report)


def test_figures_have_their_intervals_and_necessity_its_test(finished):
    _, report = finished
    for name, (low, high) in report.intervals.items():
        assert low <= getattr(report, name) + 1e-6, name
        assert getattr(report, name) <= high + 1e-6, name
    assert {"loss_circuit", "loss_unpruned", "loss_empty", "kl_to_model"} < set(report.intervals)
    test = report.necessity
    assert test.low <= test.exceeded / test.draws <= test.high
    lines = summary_lines(report)
    assert f"{report.loss_circuit:.4f} ({report.intervals['loss_circuit'][0]:.4f} to" in lines
    assert f"{test.exceeded} of {test.draws} random sets hurt as much" in lines


def test_a_report_of_the_version_before_is_read_without_what_it_lacks(finished, tmp_path):
    _, report = finished
    fields = json.loads(json.dumps(report.to_dict()))
    del fields["intervals"], fields["necessity"]
    for check in fields["checks"]:
        del check["low"], check["high"]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(seal({**fields, "format": "circuitjax-report-2"})))
    old = read_report(path)
    assert (old.loss_circuit, old.necessity, old.intervals) == (report.loss_circuit, None, {})
    assert "necessity   " not in summary_lines(old)
    path.write_text(json.dumps(seal(fields)))
    with pytest.raises(ValueError, match="lacks field"):
        read_report(path)


def test_curves_have_the_cut(finished):
    _, report = finished
    for job in report.jobs:
        ks = [point.k for point in job.curve]
        assert ks == sorted(set(ks))
        (at,) = [point for point in job.curve if point.k == job.k]
        assert at.loss == job.loss_validation
        assert at.raw == job.loss_validation_uncalibrated
        # The greatest k below it that was looked at misses the target.
        below = [point for point in job.curve if point.k < job.k and point.items == at.items]
        assert at.loss <= 0.15 < below[-1].loss


@pytest.mark.parametrize("name", ["loss_vs_k.png", "training.png", "circuit.png"])
def test_the_pictures_show_something(finished, name):
    pixels = image.imread(finished[0].directory / name)
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].std() > 0.02
    assert len(np.unique(np.rint(pixels[..., :3] * 255) @ [65536.0, 256.0, 1.0])) > 20


def test_the_saved_circuit_gives_the_reports_loss(finished):
    run, report = finished
    circuit = Circuit.load(run.directory / "circuit")
    test = planted_problem().test
    logits = np.asarray(circuit.logits(run.model, test.tokens[:, 0], test.positions), np.float64)[
        :, 0
    ]
    rows = np.arange(len(logits))
    right, wrong = np.asarray(test.right)[:, 0], np.asarray(test.wrong)[:, 0]
    odds = logits[rows, right] - logits[rows, wrong]
    side = np.tile([1.0, -1.0], len(odds) // 2)
    loss = np.mean(np.logaddexp(0, -(circuit.scale * odds + circuit.shift * side)))
    assert report.loss_circuit == pytest.approx(loss, abs=1e-5)
    assert circuit.num_nodes == report.nodes
    assert circuit.num_edges == report.edges
    assert circuit.content_hash == report.circuit


def test_a_finished_run_is_only_read(finished, monkeypatch):
    run, report = finished
    monkeypatch.setattr(search_module, "prepare", forbidden)
    assert run_pruning(run) == report
    assert run_pruning(run, overwrite=True) == report


def test_a_report_that_is_not_of_its_run_is_not_shown(finished, tmp_path, monkeypatch):
    """A changed figure, another run's report, another circuit: each is one line, and can be redone."""
    run, _ = finished
    monkeypatch.setattr(search_module, "prepare", forbidden)
    for index, spoil in enumerate(
        (
            lambda at: (at / "report.json").write_text(
                (at / "report.json").read_text().replace('"nodes": ', '"nodes": 1')
            ),
            lambda at: claim(RUN, at, run_in(at, jobs=JOBS[:1]).identity()),
            lambda at: (
                Circuit.load(at / "circuit")
                .changed(run.model, Circuit.load(at / "circuit").opened, shift=0.5)
                .save(at / "circuit", run.model)
            ),
        )
    ):
        folder = tmp_path / str(index)
        shutil.copytree(run.directory, folder)
        kept = (folder / "report.json").read_bytes()
        spoil(folder)
        if not (folder / "report.json").exists():
            (folder / "report.json").write_bytes(kept)
            shutil.copytree(run.directory / "circuit", folder / "circuit")
        mine = run_in(folder, jobs=JOBS[:1] if index == 1 else JOBS)
        with pytest.raises(ValueError, match=r"was changed after|is damaged") as caught:
            run_pruning(mine)
        assert "\n" not in str(caught.value)
        assert "--overwrite" in str(caught.value)
        with pytest.raises(AssertionError, match="computed again"):
            run_pruning(mine, overwrite=True)


def test_a_killed_run_resumes_and_ends_alike(finished, tmp_path, monkeypatch):
    run, begun, real = run_in(tmp_path / "killed"), [], shared_module.train_gates

    def train(problem, search, state, on_chunk):
        begun.append(np.asarray(state.step).tolist())
        return real(problem, search, state, on_chunk)

    monkeypatch.setattr(shared_module, "train_gates", train)

    def kill(step, metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pruning(run, progress=kill)
    assert checkpoints.latest_step(run.directory / "training") == 20
    steps = []
    report = run_pruning(run, progress=lambda step, metrics: steps.append(step))
    assert steps == [20, 40, 60]
    assert begun == [[0, 0], [20, 20]]  # the second time it went on from where it was
    for name, value in finished[1].to_dict().items():
        if name != "seconds":
            assert report.to_dict()[name] == value, name


def test_another_run_is_refused_or_replaced(tmp_path, monkeypatch):
    first = run_in(tmp_path / "run")
    monkeypatch.setattr(search_module, "prepare", forbidden)
    with pytest.raises(AssertionError, match="computed again"):
        run_pruning(first)
    assert not first.directory.exists()  # nothing is written before the task can be asked
    claim(RUN, first.directory, first.identity())
    (first.directory / "report.json").write_text("{}")
    before = (first.directory / "run.json").read_bytes()
    for name, changes in (
        ("search", {"search": changed(steps=40)}),
        ("jobs", {"jobs": JOBS[:1]}),
        ("task", {"task": Task("other", "the same", samplers=TASK.samplers)}),
        ("task_file", {"task": Task(TASK.name, "given", pool=(Pair("A-ab", "B-ab", "x", "y"),))}),
    ):
        other = run_in(first.directory, **changes)
        with pytest.raises(ValueError, match=f"holds a run with another {name}: choose another"):
            run_pruning(other)
        assert (first.directory / "run.json").read_bytes() == before
        # With overwrite it goes on to the data, and until these are there it removes nothing.
        with pytest.raises(AssertionError, match="computed again"):
            run_pruning(other, overwrite=True)
        assert (first.directory / "report.json").exists()


def test_two_files_of_one_name_are_two_runs(tmp_path):
    """Tasks from files are known by what is in them."""
    pairs = [Pair(f"A-{c}b", f"B-{c}b", "x", "y") for c in "cde"]
    one, two = (
        run_in(tmp_path, task=Task("mine", "", pool=tuple(some))).identity()
        for some in (pairs, pairs[:2])
    )
    assert one["task"] == two["task"]
    assert one["task_file"] != two["task_file"]


def test_a_directory_is_held_while_a_run_is_in_it(tmp_path, monkeypatch):
    run = run_in(tmp_path / "run")
    monkeypatch.setattr(search_module, "prepare", forbidden)
    with alone_in(run.directory), pytest.raises(ValueError, match="another process works in"):
        run_pruning(run)
    with pytest.raises(AssertionError, match="computed again"):
        run_pruning(run)


def test_a_trivial_task_says_so(tmp_path):
    run = run_in(tmp_path / "run", search=changed(value=0.8))
    report = run_pruning(run)
    assert report.status == "trivial"
    assert report.nodes == report.edges == report.k_inside == 0
    assert report.loss_circuit <= 0.8
    assert Circuit.load(run.directory / "circuit").num_nodes == 0
    assert (run.directory / "loss_vs_k.png").exists()


def test_what_diverges_keeps_the_last_good_state(tmp_path, monkeypatch):
    run = run_in(tmp_path / "run")
    real = shared_module.train_gates

    def train(problem, search, state, on_chunk):
        params = problem.trained.params

        def after(state, metrics):
            on_chunk(state, metrics)
            params["unembed"] = params["unembed"] * np.nan

        return real(problem, search, state, after)

    monkeypatch.setattr(shared_module, "train_gates", train)
    with pytest.raises(FloatingPointError, match="at step 20"):
        run_pruning(run)
    assert checkpoints.latest_step(run.directory / "training") == 20
    assert not (run.directory / "report.json").exists()


def test_the_schema_admits_what_is_written(finished):
    """Every field that is written is described, with a type that fits it; no other is allowed."""
    _, report = finished
    schema = Report.schema()
    written = json.loads(json.dumps(report.to_dict()))
    assert set(schema["properties"]) == set(schema["required"]) == set(written)
    check(schema, written, "report")
    with pytest.raises(ValueError, match="unknown field 'method'"):
        Report.from_dict({**written, "method": "nodes"})
    with pytest.raises(ValueError, match="nodes is 'many'"):
        Report.from_dict({**written, "nodes": "many"})


def check(schema, value, where):
    """A small validator, of the parts of JSON schema that ours use."""
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            try:
                return check(one, value, where)
            except AssertionError:
                continue
        raise AssertionError(where)
    if "enum" in schema:
        assert value in schema["enum"], where
    kinds = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
        "object": dict,
        "array": list,
    }
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), where
    for name, inner in schema.get("properties", {}).items():
        check(inner, value[name], f"{where}.{name}")
    if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        for name, inner in value.items():
            check(schema["additionalProperties"], inner, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema and schema["items"]:
        for index, inner in enumerate(value):
            check(schema["items"], inner, f"{where}[{index}]")
    return None
