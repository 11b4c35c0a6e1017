"""Figures of several suites: rows of all, each once; bad input is one line."""

import csv
import pathlib

import pytest

from circuitjax.run.suite import Cell, Suite, run_suite
from tests.audit.planted_audit import circuit_of
from tests.experiments.drive import drive
from tests.prune.planted import PLANTED, planted_model
from tests.report.suite_rows import row


def made(directory: pathlib.Path, model: str, seeds: int = 2) -> None:
    """A suite whose cells are made up, with circuits that share one of three nodes."""
    units = {f"{model}/easy/learned": [Cell(model, "easy", seed=seed) for seed in range(seeds)]}

    def run_cell(cell, run_directory, unit):
        mine = circuit_of((PLANTED[0], PLANTED[1 + cell.seed]))
        mine.save(run_directory / "circuit", planted_model())
        return {name: row("easy", 7)[name] for name in ("status", "edges", "random", "note")} | {
            "loss_without_circuit": 1.5,
            "loss_unpruned": 0.01,
        }

    run_suite(Suite(directory, units, {"model": model}), run_cell)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    root = tmp_path_factory.mktemp("figures")
    made(root / "one", "sparse")
    made(root / "two", "dense")
    (root / "none").mkdir()
    (root / "none/suite.json").write_text("{}")
    both = f"--suites={root}/one,{root}/two"
    calls = [
        [both, f"--out={root}/out"],
        [f"--suites={root}/one,{root}/one", f"--out={root}/bad"],
        [f"--suites={root}/nowhere", f"--out={root}/bad"],
        [f"--out={root}/bad"],
        [both, f"--out={root}/one"],
        [f"--suites={root}/none", f"--out={root}/bad"],
    ]
    return root, drive("figures", calls, root)


def test_rows_and_figures_of_both(outcomes):
    root, results = outcomes
    assert results[0][0] == 0, results[0]
    with (root / "out/suite.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(one["model"], one["seed"], one["edges"]) for one in rows] == [
        (model, seed, "7") for model in ("sparse", "dense") for seed in ("0", "1")
    ]
    names = {path.stem for path in (root / "out/figures").glob("*.png")}
    assert "edges_by_models_nodes_learned_0.15" in names
    with (root / "out/figures/stability_dense_nodes_learned_0.15.csv").open() as file:
        (pair,) = csv.DictReader(file)
    assert pair["nodes"] == "0.333333"


def test_bad_input_is_one_line(outcomes):
    root, results = outcomes
    named = (
        "sparse/easy/nodes/learned/0.15/0 is in two of the suites",
        "holds no suite",
        "--suites is missing",
        "is a suite: choose another --out",
        "none of the suites has finished a cell",
    )
    for (code, _, err), message in zip(results[1:], named, strict=True):
        assert code == 2
        assert message in err
        assert len(err.splitlines()) == 1
    assert not (root / "bad").exists()
    assert not (root / "one/suite.csv").exists()
