"""The tuning binary: one command tunes, again it computes nothing; bad input is one line."""

import json
import pathlib

import pytest

from tests.experiments.drive import drive
from tests.prune.planted import LETTERS, planted_model

QUICK = ("--rounds=2", "--num_jobs=3", "--steps=60", "--batch_size=16", "--fresh_seeds=3")
BAD = {
    "no task": ([], "--task is missing"),
    "unknown task": (["--task=with_ass"], "did you mean with_as"),
    "nothing to tune": (["--task=%s/good.jsonl", "--ranking=random"], "has nothing to tune"),
    "lr": (["--task=%s/good.jsonl", "--lr=0.1"], "--lr has no meaning in a study"),
    "no rounds": (["--task=%s/good.jsonl", "--rounds=0"], "--rounds=0 must be at least 1"),
    "no jobs": (["--task=%s/good.jsonl", "--num_jobs=0"], "--num_jobs=0 must be at least 1"),
    "seed": (["--task=%s/good.jsonl", "--seed=-1"], "--seed=-1 must be at least 0"),
    "fresh seeds without end": (
        ["--task=%s/good.jsonl", "--fresh_seeds=100000000"],
        "--fresh_seeds=100000000 must be at most 1000",
    ),
    "seeds of a run": (["--task=%s/good.jsonl", "--num_seeds=3"], "give --fresh_seeds"),
    "no fresh seeds": (["--task=%s/good.jsonl", "--fresh_seeds=0"], "--fresh_seeds=0"),
    "no search pairs": (["--task=%s/good.jsonl", "--search_pairs=0"], "--search_pairs=0 must be"),
    "target nan": (["--task=%s/good.jsonl", "--target_loss=nan"], "target_loss is nan"),
    "trivial": (["--task=%s/good.jsonl", "--target_loss=0.7"], "there is nothing to tune"),
    "foreign": (["--task=%s/good.jsonl", "--out=%s/mine"], "no study of ours"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("tune")
    planted_model().save(root / "model")
    texts = [a + b + c for a in LETTERS[:5] for b in LETTERS[:5] for c in LETTERS[:5]]
    answers = {"positive_completion": "x", "negative_completion": "y"}
    rows = [{"positive": f"A-{t}", "negative": f"B-{t}", **answers} for t in texts]
    (root / "good.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (root / "mine").mkdir()
    (root / "mine" / "thesis.txt").write_text("mine")
    return root


@pytest.fixture(scope="module")
def bad(folder):
    calls = []
    for arguments, _ in BAD.values():
        given = [a.replace("%s", str(folder)) for a in arguments]
        out = [] if any(a.startswith("--out") for a in given) else [f"--out={folder}/bad"]
        calls.append([f"--model={folder}/model", *given, *out])
    return dict(zip(BAD, drive("tune", calls, folder), strict=True))


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_no_study(bad, folder, case):
    code, out, err = bad[case]
    assert code == 2, out + err
    assert BAD[case][1] in err
    assert len(err.splitlines()) == 1
    assert not (folder / "bad" / "study.json").exists()
    assert (folder / "mine" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_study_and_its_winner(folder):
    call = [
        f"--model={folder}/model",
        f"--task={folder}/good.jsonl",
        f"--out={folder}/study",
        *QUICK,
    ]
    more = [*call, "--rounds=3"]
    other = [*call, "--seed=1"]
    answers = drive("tune", [call, call, more, other], folder)
    assert [code for code, _, _ in answers] == [0, 0, 0, 2], answers
    assert answers[0][1] == answers[1][1]
    assert "holds a study with another seed" in answers[3][2]
    lines = (folder / "study/observations.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["round"] for row in rows] == [0] * 3 + [1] * 3 + [2] * 3
    result = json.loads((folder / "study/tune.json").read_text())
    reached = [row["edges"] for row in rows if not row["failed"]]
    assert result["fewest_edges"] == min(reached)
    assert result["runs"] == 9
    assert result["failed"] == 9 - len(reached)
    report = json.loads((folder / "study/winner/report.json").read_text())
    fresh, again = report["jobs"][:3], report["jobs"][3:]
    assert not {job["seed"] for job in fresh} & {row["seed"] for row in rows}
    assert len({job["seed"] for job in fresh}) == 3
    for job in fresh:
        mine = {name: job["hyper"][name] for name in result["winner"]}
        assert mine == pytest.approx(result["winner"], rel=1e-6)
    best = sorted((row for row in rows if not row["failed"]), key=lambda row: row["edges"])[:2]
    for job, row in zip(again, best, strict=True):
        assert job["seed"] == row["seed"]
        mine = {name: job["hyper"][name] for name in row["params"]}
        assert mine == pytest.approx(row["params"], rel=1e-6)
    edges = [job["edges"] if job["reached"] else None for job in report["jobs"]]
    assert (result["fresh_seeds_edges"], result["best_runs_edges"]) == (edges[:3], edges[3:])
    whole = [e for e, rough in zip(edges, result["rough"], strict=True) if e and not rough]
    assert report["edges"] == result["circuit_edges"] == min(whole)
    assert (folder / "study/progress.png").stat().st_size > 1000
