"""One setting from many studies, by the command; what cannot be compared is refused in a line."""

import json

import numpy as np
import pytest

from circuitjax.run.directory import STUDY, claim
from circuitjax.tune.pruning_space import pruning_space
from tests.experiments.drive import drive

SPACE = pruning_space(1000)


def study(directory, size, steps=100, seed=0):
    """Runs that do better the larger lr is."""
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True)
    search = {"train": {"steps": steps}}
    identity = {"model_hash": "x", "space": SPACE.to_dict(), "search": search, "jobs": 8}
    claim(STUDY, directory, identity)
    lines = []
    for number in range(16):
        params = SPACE.from_basic(0.3 * rng.normal(size=len(SPACE.names)))
        output = size - 2 * float(np.log10(params["lr"]))
        row = {
            "id": number,
            "params": params,
            "output": output,
            "failed": False,
            "origin": "sample",
        }
        row |= {"round": 0, "seed": number, "edges": 9, "nodes": 9, "cost": 1.0}
        row |= {"seconds_training_round": 1.0, "seconds_selection_round": 1.0}
        lines.append(json.dumps(row))
    (directory / "observations.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    root = tmp_path_factory.mktemp("consensus")
    for number, size in enumerate((3.0, 9.0)):
        study(root / "good" / str(number), size, seed=number)
        study(root / "mixed" / str(number), size, steps=100 + number, seed=number)
    (root / "empty").mkdir()
    calls = [[f"--suite={root}/{name}"] for name in ("good", "mixed", "empty")] + [[]]
    return drive("consensus", calls, root)


def test_it_prints_flags(outcomes):
    code, out, _ = outcomes[0]
    assert code == 0
    assert "2 tasks, 32 runs of 100 steps" in out
    line = next(line for line in out.splitlines() if line.startswith("--"))
    flags = dict(word[2:].split("=") for word in line.split())
    assert set(flags) == set(SPACE.names)
    assert f"next: circuitjax prune --task=TASK {line}" in out
    assert float(flags["lr"]) > 3e-3


@pytest.mark.parametrize(
    ("index", "words"),
    [(1, "another search"), (2, "holds no study"), (3, "--suite is missing")],
)
def test_bad_input_is_one_line(outcomes, index, words):
    code, _, error = outcomes[index]
    assert code == 2
    assert words in error
    assert len(error.strip().splitlines()) == 1
