"""The audit binary: bad input is one line; one command audits, again it shows."""

import json
import pathlib

import pytest

from tests.audit.planted_audit import circuit_of
from tests.experiments.drive import drive
from tests.prune.planted import LETTERS, PLANTED, SEARCH, planted_model

ROW = {"positive_completion": "x", "negative_completion": "y"}
# name: (arguments, what the message says); %s is the folder of the fixtures.
BAD = {
    "no circuit": ([], "--circuit is missing"),
    "no directory": (["--circuit=%s/none"], "is no directory: find a circuit first"),
    "no circuit in it": (["--circuit=%s/mine"], "holds no readable circuit"),
    "an unfinished run": (["--circuit=%s/run"], "is not finished"),
    "empty": (["--circuit=%s/empty", "--model=%s/model"], "keeps no node"),
    "another model": (
        ["--circuit=%s/circuit", "--model=tiny-python", "--task=with_as"],
        "load the model it was found in",
    ),
    "unknown model": (["--circuit=%s/circuit", "--task=with_as"], "no model 'planted'"),
    "unknown task": (["--circuit=%s/circuit", "--model=%s/model"], "there is no task"),
    "few seeds": (["--circuit=%s/circuit", "--num_seeds=4"], "seeds is 4"),
    "steps": (["--circuit=%s/circuit", "--steps=0"], "steps is 0"),
    "batch": (["--circuit=%s/circuit", "--batch_size=-1"], "batch_size is -1"),
    "confidence": (["--circuit=%s/circuit", "--confidence=1"], "confidence is 1.0; it must be in"),
    "random sets": (["--circuit=%s/circuit", "--random_sets=0"], "random_sets is 0"),
    "polish": (["--nopolish", "--polish_at=own"], "--polish_at has no meaning with --nopolish"),
    "foreign": (
        ["--circuit=%s/circuit", "--model=%s/model", "--task=%s/good.jsonl", "--out=%s/mine"],
        "no audit of ours",
    ),
    "stray argument": (["circuit"], "unexpected argument 'circuit'"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("cli")
    model = planted_model()
    model.save(root / "model")
    facts = {"task": "good", "search": SEARCH.to_dict()}
    circuit_of(PLANTED, provenance=facts).save(root / "circuit", model)
    circuit_of(()).save(root / "empty", model)
    texts = [a + b + c for a in LETTERS[:6] for b in LETTERS[:6] for c in LETTERS[:6]]
    rows = [{"positive": f"A-{t}", "negative": f"B-{t}", **ROW} for t in texts]
    (root / "good.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (root / "mine").mkdir()
    (root / "mine" / "thesis.txt").write_text("mine")
    (root / "run").mkdir()
    (root / "run" / "run.json").write_text("{}")
    return root


def filled(arguments, folder):
    return [argument.replace("%s", str(folder)) for argument in arguments]


def test_bad_input_is_one_line_and_writes_nothing(folder):
    before = sorted(str(path) for path in folder.rglob("*"))
    calls = [filled(arguments, folder) for arguments, _ in BAD.values()]
    for name, (code, _, err) in zip(BAD, drive("audit", calls, folder), strict=True):
        assert code == 2, (name, err)
        assert err.count("\n") == 1, name
        assert err.startswith("error: "), name
        assert BAD[name][1] in err, (name, err)
    after = sorted(str(path) for path in folder.rglob("*") if ".cache" not in str(path))
    assert after == before


@pytest.mark.slow
def test_one_command_audits_and_again_shows(folder):
    good = filled(
        ["--circuit=%s/circuit", "--model=%s/model", "--task=%s/good.jsonl", "--out=%s/out"], folder
    )
    good += ["--steps=20", "--exhaustive", "--confidence=0.9", "--random_sets=50"]
    first, again = drive("audit", [good, good], folder)
    assert first[0] == 0, first[2]
    assert again[0] == 0, again[2]
    figures = json.loads((folder / "out" / "audit.json").read_text())
    for check in figures["checks"]:
        assert check["name"] in first[1]
        assert check["name"] in again[1]
    # The file's pairs are few, so all of the test split is run.
    assert figures["exhaustive"]["exact"]
    assert figures["exhaustive"]["items"] > 20
    assert figures["tests"][0]["draws"] <= 50
    assert "test loss at most, with confidence 0.9" in first[1]
    assert "sufficiency, necessity" in first[1]
    assert "sufficiency, necessity" not in again[1]
