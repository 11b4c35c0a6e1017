"""Figures of a suite show exactly their records; its files are the same whoever writes them."""

import csv
import math

import numpy as np
import pytest
from matplotlib import image

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.residual_graph import residual_graph
from circuitjax.report.statistics import bootstrap_interval
from circuitjax.report.suite_figures import edges_by_series, loss_vs_edges, necessity, stability
from circuitjax.report.suite_report import Parts, overlaps_of, parts_of, pictures_of, write_report
from circuitjax.report.suite_table import Point
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import CONFIG, PLANTED, planted_model
from tests.report.suite_rows import RANDOM, row, suite_rows

CELL = ("model", "task", "grain", "ranking", "target", "seed")


def lines_of(figure):
    """(label, x, y) of every line of data."""
    (axes,) = figure.axes
    return [
        (line.get_label(), list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.get_lines()
    ]


def labelled(figure, label):
    return next((x, y) for name, x, y in lines_of(figure) if name == label)


def test_loss_against_edges():
    points = {
        "sparse": [Point(0.05, 40.0, 20.0, 80.0, 3), Point(0.5, 10.0, 5.0, 20.0, 4)],
        "dense": [Point(0.05, 400.0, 200.0, 800.0, 3), Point(0.5, 90.0, math.nan, math.nan, 1)],
    }
    figure = loss_vs_edges(points, "title")
    assert labelled(figure, "sparse") == ([40.0, 10.0], [0.05, 0.5])
    assert labelled(figure, "dense") == ([400.0, 90.0], [0.05, 0.5])
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "edges" in axes.get_xlabel()
    assert "nats" in axes.get_ylabel()
    lines = axes.get_lines()
    assert (
        len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 2
    )
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 0].min() == 20 * 0.25 == 5
    assert band[:, 0].max() == 80


def test_edges_of_every_task():
    edges = {"learned": {"a": 10.0, "b": 4.0, "c": 7.0}, "random": {"a": 100.0, "b": 400.0}}
    missed = {"learned": ["d"], "random": ["d"]}  # c was not asked of random
    figure = edges_by_series(edges, missed, "title")
    # Rows by the first series: b, c, a, d, then the mean of a and b.
    assert labelled(figure, "learned") == ([4.0, 7.0, 10.0], [0, 1, 2])
    assert labelled(figure, "random") == ([400.0, 100.0], [0, 2])
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["b", "c", "a", "d", "geometric mean of 2"]
    drawn = lines_of(figure)
    means = [x[0] for _, x, y in drawn if y == [4] and len(x) == 1]
    assert means == pytest.approx([math.sqrt(40), 200])
    intervals = [tuple(x) for _, x, y in drawn if y == [4, 4]]
    assert (4.0, 10.0) in [pytest.approx(one) for one in intervals]
    assert bootstrap_interval([10.0, 4.0]) == pytest.approx((4, 10))
    crosses = [round(one) for _, x, y in drawn if 0.985 in x for one in y]
    assert crosses == [3, 3]
    left, right = axes.get_xlim()
    assert left < 4
    assert right > 400


def test_necessity():
    rows = [row("a", 5, loss_without_circuit=0.5), row("b", 6, loss_unpruned=0.2)]
    figure = necessity(rows, "title")
    assert labelled(figure, "without the circuit") == ([1.5, 0.5], [0, 1])
    assert labelled(figure, "whole model") == ([0.2, 0.01], [0, 1])
    x, y = labelled(figure, "without a random set of its size")
    assert (x, y) == (RANDOM * 2, [0] * 3 + [1] * 3)
    assert labelled(figure, "chance (ln 2)")[0] == pytest.approx([math.log(2)] * 2)


def test_stability():
    lines = [
        {"task": "a", "nodes": [0.5, 0.7], "edges": [0.1, 0.3]},
        {"task": "b", "nodes": [1.0], "edges": [0.9]},
    ]
    figure = stability(lines, "title")
    x, y = labelled(figure, "nodes: mean (open: pairs of seeds)")
    assert (x, np.round(y).tolist()) == ([1.0, pytest.approx(0.6)], [0, 1])
    x, _ = labelled(figure, "edges: mean (open: pairs of seeds)")
    assert x == pytest.approx([0.9, 0.2])


def test_parts_of_saved_circuits(tmp_path):
    circuit = circuit_of(PLANTED)
    circuit.save(tmp_path / "nodes", planted_model())
    pairs = frozenset((source, target) for source, target, _ in circuit.edges())
    assert parts_of(tmp_path / "nodes") == Parts(frozenset(PLANTED), pairs)
    kept = np.arange(residual_graph(CONFIG).num_edges) < 2
    edges = Circuit.of(planted_model(), "edges", {"kept": kept}, ablation="interchange")
    edges.save(tmp_path / "edges", planted_model())
    named = {tuple(name.split("->")) for name in residual_graph(CONFIG).names[:2]}
    assert parts_of(tmp_path / "edges").edges == named


def test_overlaps_of_seeds():
    one = Parts(frozenset({"n1", "n2"}), frozenset({("n1", "n2"), ("n2", "n3")}))
    two = Parts(frozenset({"n2", "n3"}), frozenset({("n1", "n2")}))
    rows = [row("a", 4, seed=seed) for seed in range(3)] + [row("a", None, seed=3)]
    circuits = {
        tuple(one_row[name] for name in CELL): parts
        for one_row, parts in zip(rows, (one, two, one, two), strict=True)
    }
    (found,) = overlaps_of(rows, circuits)
    assert found["seeds"] == 3
    assert found["nodes"] == pytest.approx([1 / 3, 1, 1 / 3])
    assert found["edges"] == pytest.approx([1 / 2, 1, 1 / 2])
    assert overlaps_of(rows[:1], circuits) == []


def test_which_figures_there_are():
    names = [picture.name for picture in pictures_of(suite_rows())]
    assert sorted(names) == [
        "edges_by_models_nodes_learned_0.15",
        "edges_by_rankings_sparse_nodes_0.15",
        "loss_vs_edges_of_models_nodes_learned",
        "necessity_dense_nodes_learned_0.15",
        "necessity_sparse_nodes_learned_0.15",
    ]
    assert pictures_of([row("a", None)]) == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same report, written twice with other times."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    rows = [one for one in suite_rows() if one["model"] == "sparse"]
    rows += [
        row("easy", 4, seed=1),
        row("hard", 9, seed=1),
        {**row("middle", None, seed=1), "status": "failed"},
    ]
    parts = Parts(frozenset("ab"), frozenset())
    circuits = {tuple(one[name] for name in CELL): parts for one in rows}
    for clock, folder in enumerate(folders):
        mine = [{**one, "seconds_by_stage": {"training": clock}} for one in rows]
        timings = [{"task": one["task"], "seconds": clock} for one in rows]
        write_report(folder, mine, {"sparse/middle": "ValueError: no"}, timings, circuits)
    return folders


def test_every_file_is_there_and_shows_something(written):
    folder = written[0]
    names = {path.name for path in folder.iterdir()}
    assert names == {"suite.csv", "suite.md", "summary.csv", "timings.csv", "figures"}
    stems = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {stem.split("_")[0] for stem in stems} == {"edges", "loss", "necessity", "stability"}
    for path in (folder / "figures").glob("*.png"):
        assert image.imread(path).std() > 0.01
        content = path.with_suffix(".pdf").read_bytes()
        assert content.startswith(b"%PDF")
        assert b"/FontFile2" in content  # letters, not outlines
        with path.with_suffix(".csv").open() as file:
            assert len(list(csv.DictReader(file))) >= 2
    assert not list(folder.rglob(".*"))


def test_files_are_the_same_whoever_writes_them(written):
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in written
    )
    assert one.keys() == two.keys()
    different = {str(name) for name in one if one[name] != two[name]}
    assert different == {"timings.csv"}


def test_the_table_holds_failures(written):
    with (written[0] / "suite.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [one["status"] for one in rows].count("failed") == 1
    assert "ValueError: no" in (written[0] / "suite.md").read_text()
