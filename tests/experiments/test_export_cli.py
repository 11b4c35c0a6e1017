"""The export binary: every format from one command; bad input is one line and writes nothing."""

import importlib.util
import json

import pytest

from circuitjax.circuit.circuit import Circuit
from circuitjax.prune.defaults import default_search
from tests.audit.planted_audit import mask_of
from tests.experiments.drive import drive
from tests.prune.planted import LETTERS, PLANTED, planted_model

# What the command lacks or has beside a circuit, and what is said; %s is the folder.
BAD = {
    "unknown format": (["--format=json,svg"], "there is no format 'svg'"),
    "no format": (["--format="], "no format"),
    "no circuit": (["--circuit=%s/nowhere"], "nowhere holds no readable circuit"),
    "another model": (["--model=%s/other"], "load the model it was found in"),
    "no model": (["--model=%s/none"], "no model"),
    "an empty circuit": (["--circuit=%s/empty"], "is empty: there is nothing to export"),
    "a task for nothing": (["--task=with_as"], "--task has no meaning without --format=viewer"),
    "out is a file": (["--out=%s/file"], "file is a file: choose another --out, a directory"),
}
# The viewer's files are PyTorch's, which is no package of ours.
TORCH = importlib.util.find_spec("torch") is not None
BAD["an unknown task" if TORCH else "no PyTorch"] = (
    ["--format=viewer", "--task=with_os"],
    "did you mean with_as" if TORCH else "pip install 'circuitjax[torch]'",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    model = planted_model()
    model.save(root / "model")
    planted_model(2.0, "other").save(root / "other")
    facts = {"task": "t"}
    circuit = Circuit.of(model, "nodes", {"mask": mask_of(())}, held=model.means, provenance=facts)
    circuit.save(root / "empty", model)
    search = default_search(train=8, validation=8, test=8)
    facts = {"task": "pairs", "search": search.to_dict()}
    circuit.changed(model, {"mask": mask_of(PLANTED)}, provenance=facts).save(
        root / "circuit", model
    )
    ends = {"positive_completion": "x", "negative_completion": "y"}
    texts = [a + b + c for a in LETTERS[:4] for b in LETTERS[:4] for c in LETTERS[:4]]
    rows = [{"positive": f"A-{t}", "negative": f"B-{t}", **ends} for t in texts]
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "file").write_text("mine")
    return root


@pytest.fixture(scope="module")
def outcomes(folder):
    def full(arguments):
        base = {"--circuit": f"{folder}/circuit", "--model": f"{folder}/model"}
        base["--out"] = f"{folder}/bad"
        given = [argument.replace("%s", str(folder)) for argument in arguments]
        return [f"{k}={v}" for k, v in (base | dict(a.split("=", 1) for a in given)).items()]

    calls = {name: full(arguments) for name, (arguments, _) in BAD.items()}
    calls["unnamed model"] = [f"--circuit={folder}/circuit", f"--out={folder}/bad"]
    viewer = ["--format=json,graphml,dot,benchmark,viewer", "--task=%s/pairs.jsonl"]
    plain = ["--format=json,graphml,dot,benchmark"]
    calls["good"] = full([*(viewer if TORCH else plain), "--out=%s/out"])
    return dict(zip(calls, drive("export", list(calls.values()), folder), strict=True))


@pytest.mark.parametrize("name", [*BAD, "unnamed model"])
def test_bad_input_is_one_line(outcomes, folder, name):
    code, out, err = outcomes[name]
    assert code == 2, err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    expected = BAD[name][1] if name in BAD else "can be given by --model"
    assert expected in err
    assert out == ""
    assert not (folder / "bad").exists()
    assert (folder / "file").read_text() == "mine"


def test_one_command_writes_every_format(outcomes, folder):
    code, out, err = outcomes["good"]
    assert code == 0, err
    out_folder = folder / "out"
    written = {str(p.relative_to(out_folder)) for p in out_folder.rglob("*") if p.is_file()}
    viewer = {"viz/planted/pairs/circuitjax/k_optim/viz_data.pt", "models/planted/final_model.pt"}
    plain = {"graph.json", "graph.graphml", "graph.dot", "benchmark.json"}
    assert written == (plain | viewer if TORCH else plain)
    assert all(name in out for name in written)
    graph = json.loads((out_folder / "graph.json").read_text())
    assert {node["id"] for node in graph["nodes"]} == set(PLANTED)
