"""The benchmark of circuits: all ways to run one answer alike, and bad input is one line."""

import json

import pytest

from tests.audit.planted_audit import circuit_of
from tests.experiments.drive import drive
from tests.prune.planted import LETTERS, PLANTED, SEARCH, planted_model

ROW = {"positive_completion": "x", "negative_completion": "y"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    model = planted_model()
    model.save(root / "model")
    circuit_of(PLANTED, provenance={"search": SEARCH.to_dict()}).save(
        root / "run" / "circuit", model
    )
    texts = [a + b + c for a in LETTERS[:6] for b in LETTERS[:6] for c in LETTERS[:6]]
    rows = [{"positive": f"A-{t}", "negative": f"B-{t}", **ROW} for t in texts]
    (root / "good.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return root


def test_a_line_per_way_and_all_answer_alike(folder):
    flags = [f"--{name}={folder}/{of}" for name, of in (("circuits", "run"), ("model", "model"))]
    call = [*flags, f"--task={folder}/good.jsonl", "--pairs=16"]
    [(code, out, err)] = drive("bench_circuit", [call], folder)
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [line["measurement"] for line in lines] == ["whole", "one width", "own widths"]
    for line in lines:
        assert line["apart"] < 1e-4
        assert line["nodes"] == len(PLANTED)
        assert 0 < line["min"] <= line["seconds"] <= line["max"]


def test_bad_input_is_one_line(folder):
    told = {
        "--circuits is missing": [],
        "holds no readable circuit": [f"--circuits={folder}/model"],
        "give --task": [f"--circuits={folder}/run/circuit", f"--model={folder}/model"],
        "--pairs=0 must be": ["--pairs=0"],
        "--repeats=1 must be at least 5": ["--repeats=1"],
    }
    found = drive("bench_circuit", list(told.values()), folder)
    for (code, _, err), message in zip(found, told, strict=True):
        assert code == 2
        assert message in err.splitlines()[-1]
