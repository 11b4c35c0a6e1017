"""The runner of a suite, with cells that compute nothing: who does what, once, whatever ends."""

import collections
import dataclasses
import errno
import itertools
import json

import pytest

from circuitjax.core.host import alone_in
from circuitjax.core.records import seal
from circuitjax.run.suite import Cell, Shard, Suite, outcome_of, outcomes, read_cell, run_suite

TASKS = ("a", "b", "c", "d", "e")


def suite_in(directory, identity=None) -> Suite:
    """Five units of three cells: two targets of nodes, and weights that follow."""
    units = {}
    for task in TASKS:
        nodes = [Cell("m", task, target=target) for target in (0.1, 0.2)]
        units[f"m/{task}/learned"] = [*nodes, Cell("m", task, "weights", target=0.1)]
    return Suite(directory, units, identity or {"models": {"m": "hash"}, "steps": 3})


class Runner:
    """Counts its calls; fails or dies where it is told to."""

    def __init__(self, fails=(), dies=()) -> None:
        self.calls, self.fails, self.dies = collections.Counter(), set(fails), set(dies)

    def __call__(self, cell, directory, unit):
        self.calls[cell.key] += 1
        (unit / "training").mkdir(parents=True, exist_ok=True)
        if cell.key in self.dies:
            raise KeyboardInterrupt
        if cell.key in self.fails:
            raise FloatingPointError("left the\nfinite numbers")
        directory.mkdir(parents=True, exist_ok=True)
        return {"status": "reached", "edges": len(cell.key)}


def records(suite):
    return [(one.cell, one.record, one.error) for one in outcomes(suite)]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device [OS error 28]"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
)
def test_a_disk_that_gives_out_is_no_cells_failure(tmp_path, error):
    """It ends the suite; the same call goes on, and no cell is told to have failed."""
    suite = suite_in(tmp_path / "suite")
    runner, key = Runner(), suite.cells[4].key

    def full(cell, directory, unit):
        if cell.key == key:
            raise error
        return runner(cell, directory, unit)

    with pytest.raises(type(error), match=str(error.args[-1])[:9]):
        run_suite(suite, full)
    assert not any(one.error for one in outcomes(suite))
    found = run_suite(suite, runner)
    assert all(one.record is not None for one in found)
    assert set(runner.calls.values()) == {1}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_a_partition(count):
    units = [f"unit {index}" for index in range(20)]
    parts = [Shard(index, count).of(units) for index in range(1, count + 1)]
    assert sorted(itertools.chain(*parts)) == sorted(units)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3/2", "shard 3/2 does not exist"),
        ("0/2", "the first is 1/2, the last 2/2"),
        ("1/0", "at least 1 shard"),
        ("2", "not of the form i/n"),
        ("-1/2", "not of the form i/n"),
        ("1/2/3", "not of the form i/n"),
    ],
)
def test_shards_that_do_not_exist(text, message):
    with pytest.raises(ValueError, match=message):
        Shard.parse(text)


def test_a_finished_cell_is_never_done_again(tmp_path):
    suite, runner = suite_in(tmp_path / "s"), Runner()
    found = run_suite(suite, runner)
    assert set(runner.calls) == {cell.key for cell in suite.cells}
    assert set(runner.calls.values()) == {1}
    assert all(one.record["edges"] == len(one.cell.key) for one in found)
    assert run_suite(suite, runner, retry=True) == found
    assert set(runner.calls.values()) == {1}


def test_cells_of_a_unit_go_in_order(tmp_path):
    suite, order = suite_in(tmp_path / "s"), []

    def note(cell, directory, unit):
        order.append(cell)
        return {}

    run_suite(suite, note)
    assert order == suite.cells


def test_a_process_that_dies_loses_nothing(tmp_path):
    suite = suite_in(tmp_path / "s")
    whole = suite_in(tmp_path / "whole")
    run_suite(whole, Runner())
    calls = collections.Counter()
    for fatal in (suite.cells[1].key, suite.cells[6].key, suite.cells[14].key):
        runner = Runner(dies=[fatal])
        with pytest.raises(KeyboardInterrupt):
            run_suite(suite, runner)
        calls += runner.calls
        assert not outcome_of(suite, next(c for c in suite.cells if c.key == fatal)).settled
    runner = Runner()
    run_suite(suite, runner)
    calls += runner.calls
    assert records(suite) == records(whole)
    assert sorted(calls.values()) == [1] * 12 + [2] * 3


def test_a_failure_stops_no_other_and_is_retried_on_request(tmp_path):
    suite = suite_in(tmp_path / "s")
    bad = suite.cells[4].key
    said, done = [], []
    found = run_suite(suite, Runner(fails=[bad]), say=said.append, done=done.append)
    failed = [one for one in found if one.error]
    assert [one.cell.key for one in failed] == [bad]
    assert failed[0].error == "FloatingPointError: left the finite numbers"
    assert said == [f"{bad} failed: FloatingPointError: left the finite numbers"]
    assert [one.cell for one in done] == suite.cells
    again = Runner()
    assert run_suite(suite, again) == found
    assert not again.calls
    mended = run_suite(suite, again, retry=True)
    assert dict(again.calls) == {bad: 1}
    assert all(one.record is not None and one.error is None for one in mended)
    assert not list((tmp_path / "s").rglob("failed.json"))


def test_a_record_that_is_no_json_is_a_failure(tmp_path):
    suite = suite_in(tmp_path / "s")
    found = run_suite(suite, lambda cell, directory, unit: {"loss": float("nan")})
    assert all("ValueError" in one.error for one in found)


def test_what_a_unit_shares_goes_when_it_is_finished(tmp_path):
    suite = suite_in(tmp_path / "s")
    bad = suite.cells[4]
    run_suite(suite, Runner(fails=[bad.key]))
    left = [path.parent.parent.name for path in (tmp_path / "s/units").rglob("training")]
    assert left == [bad.task]
    run_suite(suite, Runner(), retry=True)
    assert not list((tmp_path / "s/units").rglob("training"))


def test_two_shards_end_as_one_process(tmp_path):
    whole, parts = suite_in(tmp_path / "whole"), suite_in(tmp_path / "parts")
    run_suite(whole, Runner())
    first, second = Runner(), Runner()
    found = run_suite(parts, first, Shard(2, 2))
    assert 0 < sum(one.settled for one in found) < len(found)
    run_suite(parts, second, Shard(1, 2))
    assert not set(first.calls) & set(second.calls)
    assert records(parts) == records(whole)
    # Any other split finds everything done.
    third = Runner()
    run_suite(parts, third, Shard(1, 3))
    assert not third.calls


def test_two_processes_on_one_shard(tmp_path):
    runner = Runner()
    other = suite_in(tmp_path / "t")
    run_suite(other, runner, Shard(2, 2))
    before = records(other)
    with (
        alone_in(tmp_path / "t/shards/1_of_2"),
        pytest.raises(ValueError, match="another process does shard 1/2 of"),
    ):
        run_suite(other, runner, Shard(1, 2))
    assert records(other) == before


def test_a_unit_that_another_process_is_at_is_left_to_it(tmp_path):
    suite, runner, said = suite_in(tmp_path / "s"), Runner(), []
    run_suite(suite, runner, Shard(5, 5))
    with alone_in(tmp_path / "s/units/m/b/learned"):
        found = run_suite(suite, runner, say=said.append)
    assert {one.cell.task for one in found if not one.settled} == {"b"}
    assert said == ["m/b/learned: another process is at it, left to it"]
    assert all(one.settled for one in run_suite(suite, runner))
    assert set(runner.calls.values()) == {1}


@pytest.mark.parametrize("name", ["models", "steps"])
def test_a_directory_of_another_suite_is_refused(tmp_path, name):
    suite = suite_in(tmp_path / "s")
    run_suite(suite, Runner())
    before = records(suite)
    other = suite_in(tmp_path / "s", {**suite.identity, name: "another"})
    with pytest.raises(ValueError, match=f"holds a suite with another {name}"):
        run_suite(other, Runner())
    assert records(suite) == before


def test_a_directory_of_somebody_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="no suite of ours"):
        run_suite(suite_in(tmp_path), Runner())
    with pytest.raises(ValueError, match="is a file"):
        run_suite(suite_in(tmp_path / "thesis.txt"), Runner())
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/suite.json").write_text("{")
    with pytest.raises(ValueError, match="no suite of ours"):
        run_suite(suite_in(tmp_path / "torn"), Runner())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt", "torn"]


def test_a_suite_asks_for_everything_once(tmp_path):
    cell = Cell("m", "a")
    with pytest.raises(ValueError, match=r"m/a/nodes/target_0\.15/seed_0 twice"):
        Suite(tmp_path, {"one": [cell], "two": [dataclasses.replace(cell)]}, {})
    with pytest.raises(ValueError, match="no cells"):
        Suite(tmp_path, {}, {})


def test_a_cell_says_what_it_was(tmp_path):
    suite = suite_in(tmp_path / "s")
    run_suite(suite, Runner())
    cell = suite.cells[2]
    held = json.loads((tmp_path / "s/cells" / cell.key / "cell.json").read_text())
    assert Cell(**held["cell"]) == cell
    assert held["seconds"] >= 0


@pytest.mark.parametrize(
    "cell", [{"task": "a"}, {"model": "m", "task": "a", "more": 1}, {"model": 1, "task": "a"}, [1]]
)
def test_a_cell_of_another_kind_is_one_line(tmp_path, cell):
    path = tmp_path / "cell.json"
    held = {"format": "circuitjax-cell-2", "cell": cell, "record": {}, "seconds": 1.0}
    path.write_text(json.dumps(seal(held)))
    with pytest.raises(ValueError, match="cell") as caught:
        read_cell(path)
    assert "\n" not in str(caught.value)
