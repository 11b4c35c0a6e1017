"""The pretraining binary: one command trains, again it resumes, bad input is one line."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from circuitjax.core.checkpoints import load_arrays
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.train import init_state
from experiments.command import exit_on_bad_input
from tests.experiments.drive import drive
from tests.pretrain.synthetic import write_corpus

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = {
    "model": {
        "num_layers": 1, "d_model": 8, "num_heads": 1, "d_head": 8, "d_mlp": 8,
        "vocab_size": 2048, "context_length": 8,
    },
    "steps": 3, "batch_size": 4, "length": 8, "density": 0.5, "eval_rows": 32,
}  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.pretrain", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_it_trains_and_resumes(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    corpus = write_corpus(tmp_path / "corpus")
    arguments = [f"--recipe={tmp_path}/recipe.json", f"--corpus={corpus}", f"--out={tmp_path}/run"]
    for _ in range(2):
        done = run(*arguments, "--steps=2", "--seed=4")
        assert done.returncode == 0, done.stderr
    config = PretrainConfig.from_dict({**RECIPE, "steps": 2, "seed": 4})
    params = load_arrays(tmp_path / "run" / "params", init_state(config).params)
    assert np.isfinite(params["embed"]).all()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    other = run(*arguments, "--steps=2", "--seed=5")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1].startswith("error: ")
    assert "holds another run" in other.stderr


BAD = {
    "no recipe": (None, "there is no file"),
    "no JSON": ("{", "is not JSON"),
    "a list": ("[]", "holds a JSON list; it must be an object"),
    "steps": (json.dumps({**RECIPE, "steps": -1}), "steps is -1"),
    "no corpus": (json.dumps(RECIPE), "manifest.json is missing"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    root, calls = tmp_path_factory.mktemp("bad"), []
    for number, (recipe, _) in enumerate(BAD.values()):
        path = root / f"{number}.json"
        if recipe is not None:
            path.write_text(recipe)
        calls.append([f"--recipe={path}", f"--corpus={root}/none", f"--out={root}/run"])
    found = dict(zip(BAD, drive("pretrain", calls, root), strict=True))
    assert not (root / "run").exists()
    return found


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(outcomes, name):
    code, _, message = outcomes[name]
    assert code == 2
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert BAD[name][1] in message


@pytest.mark.parametrize(
    ("argv", "error", "code"),
    [
        (["x", "stray"], None, 2),
        (["x"], ValueError("two\nlines"), 2),
        (["x"], FloatingPointError("nan"), 1),
    ],
)
def test_errors_become_one_line_and_an_exit_code(argv, error, code, capsys):
    @exit_on_bad_input
    def main(argv):
        if error:
            raise error

    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == code
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_other_errors_are_not_hidden():
    @exit_on_bad_input
    def main(argv):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        main(["x"])
