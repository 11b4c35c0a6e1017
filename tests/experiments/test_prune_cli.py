"""The pruning binary: one command finds a circuit, again it shows it; bad input is one line."""

import json
import pathlib

import pytest

from circuitjax.tasks import suite
from circuitjax.tasks.english import suite as english
from tests.experiments.drive import drive
from tests.prune.planted import LETTERS, planted_model

ROW = {"positive_completion": "x", "negative_completion": "y"}
QUICK = ("--steps=4", "--k_coef=0.01", "--batch_size=4")

# name: (arguments, what the message says); %s is the folder of the fixtures.
BAD = {
    "no task": ([], "--task is missing"),
    "unknown task": (["--task=single_double_qote"], "did you mean single_double_quote"),
    "unknown model": (["--task=with_as", "--model=tiny-pyton"], "did you mean tiny-python"),
    "stray argument": (["with_as"], "unexpected argument 'with_as'"),
    "target 0": (["--task=%s/good.jsonl", "--target_loss=0"], "target_loss is 0.0"),
    "target nan": (["--task=%s/good.jsonl", "--target_loss=nan"], "target_loss is nan"),
    "target negative": (["--task=%s/good.jsonl", "--target_loss=-1"], "target_loss is -1"),
    "no steps": (["--task=%s/good.jsonl", "--steps=0"], "steps is 0"),
    "endless": (["--task=%s/good.jsonl", "--steps=" + "9" * 30], "it must be at most 10000000"),
    "no batch": (["--task=%s/good.jsonl", "--batch_size=0"], "batch_size is 0"),
    "lr nan": (["--task=%s/good.jsonl", "--lr=nan"], "lr is nan; it must be in (0, inf)"),
    "lr negative": (["--task=%s/good.jsonl", "--lr=-0.1"], "lr is -0.1"),
    "wd negative": (["--task=%s/good.jsonl", "--wd=-1"], "wd is -1"),
    "k_coef nan": (["--task=%s/good.jsonl", "--k_coef=nan"], "k_coef is nan"),
    "bias 16": (["--task=%s/good.jsonl", "--init_noise_bias=16"], "in [-15, 15]"),
    "beta": (["--task=%s/good.jsonl", "--inv_beta2=0"], "inv_beta2 is 0"),
    "warm-up": (["--task=%s/good.jsonl", "--lr_warmup_frac=1"], "lr_warmup_frac is 1"),
    "cold": (["--task=%s/good.jsonl", "--heaviside_temp=0"], "heaviside_temp is 0"),
    "no seeds": (["--task=%s/good.jsonl", "--num_seeds=0"], "--num_seeds=0"),
    "seed": (["--task=%s/good.jsonl", "--seed=-1"], "--seed=-1"),
    "huge seed": (["--task=%s/good.jsonl", "--seed=4294967296"], "--seed=4294967296 must be below"),
    "no file": (["--task=%s/none.jsonl"], "cannot read the task"),
    "bad lines": (["--task=%s/bad.jsonl"], "2 bad lines: line 2: not JSON"),
    "too few": (["--task=%s/few.jsonl"], "fell into this split): give more pairs"),
    "foreign": (["--task=%s/good.jsonl", "--out=%s/mine"], "no run of ours"),
    "foreign, overwrite": (
        ["--task=%s/good.jsonl", "--out=%s/mine", "--overwrite"],
        "no run of ours",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("cli")
    planted_model().save(root / "model")
    texts = [a + b + c for a in LETTERS[:4] for b in LETTERS[:4] for c in LETTERS[:4]]
    rows = [{"positive": f"A-{t}", "negative": f"B-{t}", **ROW} for t in texts]
    lines = [json.dumps(row) for row in rows]
    (root / "good.jsonl").write_text("\n".join(lines))
    (root / "few.jsonl").write_text(lines[0])
    bad = json.dumps({**rows[1], "negative": "B-aaaa"})
    (root / "bad.jsonl").write_text("\n".join([lines[0], "{", bad]))
    (root / "mine").mkdir()
    (root / "mine" / "thesis.txt").write_text("mine")
    return root


@pytest.fixture(scope="module")
def outcomes(folder):
    def full(arguments):
        given = [argument.replace("%s", str(folder)) for argument in arguments]
        named = any(argument.startswith("--model") for argument in given)
        return given if named else [f"--model={folder}/model", *given]

    before = sorted(str(path) for path in folder.rglob("*"))
    good = [f"--task={folder}/good.jsonl", f"--out={folder}/run", *QUICK]
    calls = {name: full(arguments) for name, (arguments, _) in BAD.items()}
    calls["list"] = ["--list_tasks"]
    found = dict(zip(calls, drive("prune", list(calls.values()), folder), strict=True))
    kept = [path for path in before if ".cache" not in path]
    after = sorted(str(path) for path in folder.rglob("*") if ".cache" not in str(path))
    calls = {"first": full(good), "again": full(good), "other": full([*good, "--seed=1"])}
    found |= zip(calls, drive("prune", list(calls.values()), folder), strict=True)
    return {**found, "files": (kept, after)}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(outcomes, name):
    code, _, err = outcomes[name]
    assert code == 2, err
    assert err.count("\n") == 1
    last = err.split("\r")[-1]  # a progress bar wipes itself
    assert last.startswith("error: ")
    assert BAD[name][1] in last


def test_bad_input_writes_nothing(outcomes):
    before, after = outcomes["files"]
    assert before == after


def test_one_command_finds_a_circuit_and_again_shows_it(outcomes, folder):
    code, out, err = outcomes["first"]
    assert code == 0, err
    report = json.loads((folder / "run" / "report.json").read_text())
    assert report["task"] == "good"
    assert report["config"]["search"]["train"]["steps"] == 4
    assert "nodes" in out
    assert f"{report['nodes']} of {report['nodes_total']}" in out
    code, again, err = outcomes["again"]
    assert code == 0, err
    assert "already finished" in again
    assert f"{report['nodes']} of {report['nodes_total']}" in again
    code, _, err = outcomes["other"]
    assert code == 2
    assert "holds a run with another jobs" in err


def test_the_tasks_are_listed(outcomes):
    code, out, _ = outcomes["list"]
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        *suite.names(),
        *english.names(),
    ]
