"""The suite's binary: bad input is one line; two shards end as one process; targets, seeds, starts."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest

from tests.experiments.drive import ROOT, drive, environment
from tests.prune.planted import LETTERS, planted_model

QUICK = ("--steps=40", "--batch_size=16", "--ablation=zero", "--k_coef=0.01", "--lr=0.02")
BAD = {
    "unknown task": (["--tasks=with_as,with_ass"], "did you mean with_as"),
    "unknown model": (["--models=tiny-pyton"], "did you mean tiny-python"),
    "unknown grain": (["--grains=nodes,knots"], "there is no grain 'knots'"),
    "unknown ranking": (["--rankings=learned,alphabet"], "there is no ranking 'alphabet'"),
    "shard 3/2": (["--shard=3/2"], "shard 3/2 does not exist"),
    "shard of words": (["--shard=first"], "not of the form i/n"),
    "a task twice": (["--tasks=%s/one.jsonl,%s/one.jsonl"], "two tasks are called 'one'"),
    "a model twice": (["--models=%s/model,%s/model"], "have the same name"),
    "a target twice": (["--targets=0.1,0.1"], "twice: name everything once"),
    "target nan": (["--targets=0.1,nan"], "target_loss is nan"),
    "target of letters": (["--targets=low"], "--targets has 'low', which is no float"),
    "seed of letters": (["--seeds=0,one"], "--seeds has 'one', which is no int"),
    "negative seed": (["--seeds=0,-1"], "--seed=-1 must be at least 0"),
    "target and targets": (["--targets=0.1", "--target_loss=0.2"], "both given: choose one"),
    "lr nan": (["--lr=nan"], "lr is nan"),
    "start": (["--start=%s/mine"], "use --start_from_nodes"),
    "start without nodes": (
        ["--methods=weights", "--start_from_nodes"],
        "takes grains nodes and weights",
    ),
    "tuning of rankings": (["--rankings=random", "--rounds=2"], "the suite has none"),
    "tuning of lr": (["--rounds=2", "--lr=0.1"], "--lr has no meaning with --rounds"),
    "no tasks": (["--tasks="], "name at least one of everything"),
    "a round's size without rounds": (["--round_size=3"], "--round_size has no meaning without"),
    "a centre without rounds": (["--centre=default"], "--centre has no meaning without --rounds"),
    "runs without end": (["--rounds=1", "--round_size=100000000"], "at most 1000"),
    "no rounds": (["--rounds=0"], "--rounds=0 must be at least 1"),
    "ranking of weights": (["--method=weights", "--ranking=variance"], "only nodes have"),
    "foreign": (["--out=%s/mine"], "no suite of ours"),
    "stray argument": (["with_as"], "unexpected argument 'with_as'"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("suite")
    planted_model().save(root / "model")
    planted_model(6.0, "other").save(root / "other")
    texts = [a + b + c for a in LETTERS[:5] for b in LETTERS[:5] for c in LETTERS[:5]]
    for name, first, second in (("one", "A", "B"), ("two", "B", "A")):
        answers = ("x", "y") if first == "A" else ("y", "x")
        rows = [
            {
                "positive": f"{first}-{text}",
                "negative": f"{second}-{text}",
                "positive_completion": answers[0],
                "negative_completion": answers[1],
            }
            for text in texts
        ]
        (root / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (root / "mine").mkdir()
    (root / "mine" / "thesis.txt").write_text("mine")
    return root


def completed(arguments, folder):
    given = [argument.replace("%s", str(folder)) for argument in arguments]
    for name, value in (
        ("--models", f"{folder}/model"),
        ("--tasks", f"{folder}/one.jsonl"),
        ("--out", f"{folder}/bad"),
    ):
        if not any(argument.startswith(name) for argument in given):
            given.append(f"{name}={value}")
    return given


@pytest.fixture(scope="module")
def bad(folder):
    calls = [completed(arguments, folder) for arguments, _ in BAD.values()]
    return dict(zip(BAD, drive("suite", calls, folder), strict=True))


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_no_suite(bad, folder, case):
    code, out, err = bad[case]
    assert code == 2, out + err
    assert BAD[case][1] in err
    assert len(err.splitlines()) == 1
    assert not (folder / "bad").exists()
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


def rows_of(directory):
    with (directory / "suite.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(folder):
    """Nodes at two targets and with two seeds, weights from them, a ranking: one process."""
    arguments = [
        *QUICK,
        f"--models={folder}/model",
        f"--tasks={folder}/one.jsonl,{folder}/two.jsonl",
        "--methods=nodes,weights",
        "--start_from_nodes",
        "--rankings=learned,random",
        "--targets=0.15,0.4",
        "--seeds=0,1",
    ]
    call = [*arguments, f"--out={folder}/whole"]
    calls = [call, call, [*call, "--steps=41"], [*call, f"--models={folder}/other"]]
    return arguments, drive("suite", calls, folder)


@pytest.mark.slow
def test_the_whole_suite(whole, folder):
    _, outcomes = whole
    assert [code for code, _, _ in outcomes] == [0, 0, 2, 2], outcomes
    rows = rows_of(folder / "whole")
    assert len(rows) == 2 * (2 + 2) * 2 * 2
    assert {row["status"] for row in rows} == {"reached"}
    by_grain = {
        grain: [
            int(row["edges"])
            for row in rows
            if row["grain"] == grain and row["ranking"] == "learned"
        ]
        for grain in ("nodes", "weights")
    }
    assert all(
        0 < few <= many for few, many in zip(by_grain["weights"], by_grain["nodes"], strict=True)
    )
    names = {path.stem.split("_")[0] for path in (folder / "whole/figures").glob("*.pdf")}
    assert names == {"edges", "loss", "necessity", "stability"}
    assert outcomes[1][1] == outcomes[0][1]  # everything is read
    assert "holds a suite with another settings" in outcomes[2][2]
    assert "holds a suite with another models" in outcomes[3][2]
    assert not list((folder / "whole/units").rglob("training"))


@pytest.mark.slow
def test_two_processes_end_as_one(whole, folder):
    """Both shards at once, as processes of their own; one of them finds the other's work done."""
    arguments, _ = whole
    command = [sys.executable, "-m", "experiments.suite", *arguments, f"--out={folder}/parts"]
    processes = [
        subprocess.Popen(
            [*command, f"--shard={index}/2"],
            cwd=folder,
            env=environment(folder) | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (1, 2)
    ]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for name in ("suite.csv", "suite.md", "summary.csv"):
        one, two = ((folder / where / name).read_bytes() for where in ("whole", "parts"))
        assert one == two
    assert len(rows_of(folder / "parts")) == 32


@pytest.mark.slow
def test_a_failed_cell_is_told_and_retried(whole, folder):
    """The model's directory cannot be asked a task of longer prompts than its context."""
    arguments, _ = whole
    long = [json.loads(line) for line in (folder / "one.jsonl").read_text().splitlines()]
    for row in long:
        for side in ("positive", "negative"):
            row[side] = row[side] + "-" * 9
    (folder / "long.jsonl").write_text("\n".join(json.dumps(row) for row in long))
    few = [a for a in arguments if not a.startswith(("--tasks", "--targets", "--seeds", "--rank"))]
    call = [*few, f"--tasks={folder}/long.jsonl,{folder}/one.jsonl", f"--out={folder}/failing"]
    (code, out, err), again, retried = drive("suite", [call, call, [*call, "--retry"]], folder)
    assert code == again[0] == retried[0] == 1
    assert "error: 2 of 4 cells failed" in err
    assert "above the context length of 8" in err
    assert "to start from, is not there" in err
    rows = rows_of(folder / "failing")
    assert sorted(row["status"] for row in rows) == ["failed", "failed", "reached", "reached"]
    assert "prompts of" in out


@pytest.mark.slow
def test_tuned_cells(folder):
    call = [
        f"--models={folder}/model",
        f"--tasks={folder}/one.jsonl",
        "--methods=nodes,weights",
        "--start_from_nodes",
        "--rounds=1",
        "--round_size=3",
        "--num_seeds=2",
        "--steps=60",
        "--batch_size=16",
        "--ablation=zero",
        f"--out={folder}/tuned",
    ]
    ((code, out, err),) = drive("suite", [call], folder)
    assert code == 0, out + err
    rows = rows_of(folder / "tuned")
    assert [row["grain"] for row in rows] == ["nodes", "weights"]
    run = next((folder / "tuned").rglob("tune.json")).parent
    report = json.loads((run / "winner/report.json").read_text())
    assert rows[0]["edges"] == str(report["edges"])
    assert len(report["jobs"]) == 2 + 2  # fresh seeds, and the best runs once more
    assert rows[1]["status"] == "reached"
