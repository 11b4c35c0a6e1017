"""Tables of a suite against sums done by hand."""

import csv
import io
import math
import types

import pytest

from circuitjax.report.suite_table import (
    COLUMNS,
    Group,
    compare,
    csv_text,
    edges_by_task,
    groups_of,
    markdown_report,
    record_of,
    summary_rows,
    sweep,
    with_adjusted,
)
from tests.report.suite_rows import row, suite_rows

SPARSE = Group("sparse", "nodes", "learned", 0.15)


def test_edges_of_a_task_over_seeds():
    rows = [row("a", 4), row("a", 9, seed=1), row("b", 5), row("b", None, seed=1)]
    rows += [row("c", 7, status="trivial"), row("d", 6)]
    assert edges_by_task(rows) == pytest.approx({"a": 6, "d": 6})
    failed = {**row("e", None), "status": "failed", "edges": None}
    assert edges_by_task([failed]) == {}


def test_the_summary():
    lines = {tuple(line.values())[:4]: line for line in summary_rows(suite_rows())}
    assert len(lines) == 7
    at = lines[tuple(SPARSE)]
    assert (at["tasks"], at["reached"]) == (3, 3)
    assert at["edges_geometric_mean"] == pytest.approx((8 * 18 * 600) ** (1 / 3))
    assert 7.99 < at["edges_low"] < at["edges_geometric_mean"] < at["edges_high"] < 600.01
    missed = lines["sparse", "nodes", "attribution", 0.15]
    assert (missed["tasks"], missed["reached"]) == (3, 2)
    alone = summary_rows([row("a", 5)])[0]
    assert alone["edges_geometric_mean"] == pytest.approx(5)
    assert math.isnan(alone["edges_low"])


def test_groups_are_compared_on_the_tasks_that_both_reach():
    groups = groups_of(suite_rows())
    found = compare(groups[SPARSE], groups[SPARSE._replace(ranking="attribution")])
    assert found.ratio == pytest.approx(math.sqrt(10 * 100))
    assert found.tasks == 2
    assert (found.low, found.high) == pytest.approx((10, 100))
    tenfold = compare(groups[SPARSE], groups[SPARSE._replace(model="dense")])
    assert tuple(tenfold) == pytest.approx((10, 10, 10, 3))
    assert compare([row("a", 4)], [row("b", 4)]).tasks == 0


def test_a_sweep_counts_the_tasks_that_every_series_reaches():
    rows = [one for one in suite_rows() if one["ranking"] == "learned"]
    series = {
        model: [one for one in rows if one["model"] == model] for model in ("sparse", "dense")
    }
    series["dense"] = [
        one for one in series["dense"] if (one["task"], one["target"]) != ("easy", 0.5)
    ]
    found = sweep(series)
    assert [point.target for point in found["sparse"]] == [0.05, 0.15, 0.5]
    assert [point.tasks for point in found["sparse"]] == [2, 3, 2]
    means = [math.sqrt(32 * 72), (8 * 18 * 600) ** (1 / 3), math.sqrt(9 * 300)]
    assert [point.edges for point in found["sparse"]] == pytest.approx(means)
    assert [point.edges for point in found["dense"]] == pytest.approx([10 * m for m in means])
    assert sweep({"one": [row("a", None)]}) == {"one": []}


def test_the_csv():
    rows = [
        row("a, b", 4),
        {**row("c", None), "status": "failed", "edges": None, "note": "why\nso"},
    ]
    text = csv_text(COLUMNS, rows)
    read = list(csv.DictReader(io.StringIO(text)))
    assert [one["task"] for one in read] == ["a, b", "c"]
    assert read[0]["loss_circuit"] == "0.151235"
    assert read[1]["edges"] == ""
    assert read[1]["note"] == "why\nso"
    assert not any("second" in name for name in read[0])
    assert csv_text(["x", "y"], [{"x": math.nan, "y": 1e-9}]) == "x,y\n,1e-09\n"


def test_the_markdown():
    text = markdown_report(suite_rows(), {"sparse/x/nodes": "ValueError: no"})
    assert "44.2" in text  # (8 * 18 * 600) ** (1 / 3)
    assert "| dense, nodes, target 0.15" in text
    assert "10.00 (10.00 to 10.00)" in text
    assert "- `sparse/x/nodes`: ValueError: no" in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({len(line) for line in table.splitlines()}) == 1


def test_residual_edges_are_not_compared_with_weights():
    rows = [row("a", 4), row("a", 8, grain="weights"), row("a", 2, grain="edges")]
    text = markdown_report(rows, {}).split("###")[0]
    assert "2.00" in text
    assert "0.50" not in text


def test_p_values_are_adjusted_within_their_group():
    rows = [row(task, 3, necessity_p=p) for task, p in (("a", 0.01), ("b", 0.04), ("c", None))]
    rows += [row("a", 3, model="dense", necessity_p=0.04)]
    found = [one["necessity_adjusted"] for one in with_adjusted(rows)]
    assert found == [0.02, 0.04, None, 0.04]
    old = row("d", 3)
    del old["necessity_p"]  # of a cell that was finished before there were any
    assert with_adjusted([old])[0]["necessity_adjusted"] is None


def test_what_is_kept_of_a_report():
    known = row("easy", 3)
    report = types.SimpleNamespace(
        **known,
        circuit="its hash",
        loss_without_random=[0.3, 0.1, 0.7, 0.2],
        seconds={"training": 1.5},
        necessity=types.SimpleNamespace(p=0.02),
    )
    record = record_of(report)
    assert (record["edges"], record["circuit"]) == (3, "its hash")
    assert record["loss_validation"] == known["loss_validation"]
    assert record["random"] == [0.1, 0.2, 0.3, 0.7]
    assert (record["random_low"], record["random_median"], record["random_high"]) == (
        0.1,
        0.25,
        0.7,
    )
    assert record["seconds_by_stage"] == {"training": 1.5}
    assert record["necessity_p"] == 0.02
    report.loss_without_random, report.necessity = [], None
    assert record_of(report)["necessity_p"] is None
    assert record_of(report)["random_low"] is None
