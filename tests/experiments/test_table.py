"""The table over tasks: one row per run, an interrupted table goes on, bad names are one line."""

import csv
import importlib
import json
import math

import pytest

from circuitjax.circuit.find import default_jobs
from circuitjax.prune.config import PruneConfig
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import claim
from circuitjax.tasks import suite
from tests.experiments.drive import drive
from tests.prune.planted import planted_model


def report(name: str, status: str, edges: int) -> dict:
    figures = {"loss_unpruned": 0.01, "loss_circuit": 0.12, "nodes": 9, "kl_to_model": 0.2}
    return figures | {
        "task": name,
        "status": status,
        "edges": edges,
        "loss_without_circuit": 0.7,
        "loss_without_random": [0.02, 0.3, 0.1],
        "seconds": {"training": 1.2, "selection": 2.4},
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Three tasks whose runs are finished, so that the table only reads them."""
    root = tmp_path_factory.mktemp("table")
    model = planted_model()
    model.save(root / "model")
    rows = [("with_as", "reached", 4), ("for_while", "not_reached", 90), ("var_if", "reached", 9)]
    for name, status, edges in rows:
        jobs = default_jobs(model.config.num_nodes, [0])
        run = PruneRun(model, suite.get(name), PruneConfig(), jobs, root / "out" / name)
        claim(run)
        (run.directory / "report.json").write_text(json.dumps(report(name, status, edges)))
    common = [f"--model={root}/model", f"--out={root}/out"]
    calls = [
        [*common, "--tasks=with_as,for_while,var_if"],
        [*common, "--tasks=with_os"],
        [*common, "--tasks=with_as", "--target_loss=nan"],
        [*common, "--tasks=with_as", "--steps=7"],
    ]
    return root / "out", drive("table", calls, root)


def test_rows_and_the_geometric_mean(outcomes):
    out, results = outcomes
    code, text, err = results[0]
    assert code == 0, err
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == ["with_as", "for_while", "var_if"]
    assert [row["random_low"] for row in rows] == ["0.02"] * 3
    assert [row["random_high"] for row in rows] == ["0.3"] * 3
    assert [row["seconds"] for row in rows] == ["4"] * 3
    assert f"2 of 3 tasks reached the target; geometric mean of their edges {6:.1f}." in text
    assert math.sqrt(4 * 9) == 6
    markdown = (out / "table.md").read_text()
    assert markdown.strip() in text
    assert len({len(line) for line in markdown.splitlines() if line.startswith("|")}) == 1


def test_bad_input_is_one_line(outcomes):
    named = ("did you mean with_as", "target_loss is nan", "holds another run")
    for (code, _, err), message in zip(outcomes[1][1:], named, strict=True):
        assert code == 2
        last = err.replace("\r", "\n").rstrip("\n").split("\n")[-1]
        assert last.startswith("error: ")
        assert message in last


def test_the_binary_is_importable_without_its_flags_being_parsed():
    assert importlib.util.find_spec("experiments.table") is not None
