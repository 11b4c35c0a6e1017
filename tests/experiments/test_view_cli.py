"""The view binary: a page from one command; bad input is one line and writes nothing."""

import dataclasses
import json
import re
import shutil
import typing

import pytest

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.records import seal
from circuitjax.core.schema import from_json
from circuitjax.report.viewer.groups import Group, write_groups
from circuitjax.report.viewer.page import MOST_BYTES
from circuitjax.run import report
from tests.experiments.drive import drive
from tests.prune.planted import LETTERS, PLANTED, planted_model
from tests.report.viewer_pages import AUDIT, REPORT, planted_circuit

GROUPS = (Group("which letter", PLANTED[:2]),)
# What the command has beside --run, and what is said; %s is the folder.
BAD = {
    "nothing there": (["--run=%s/nowhere"], "nowhere holds neither a run nor a circuit"),
    "a run that is not finished": (["--run=%s/begun"], "is a run without a circuit yet"),
    "a damaged circuit": (["--run=%s/damaged"], "holds no readable circuit"),
    "another model": (["--model=%s/other"], "load the model it was found in"),
    "no model": (["--model=%s/none"], "no model"),
    "an unnamed model": (["--model="], "can be given by --model"),
    "an empty circuit": (["--run=%s/empty"], "is empty: there is nothing to show"),
    "an unknown task": (["--task=with_os"], "did you mean with_as"),
    "no corpus": (["--corpus=%s/none"], "none"),
    "a damaged report": (["--run=%s/broken"], "report.json is not JSON"),
    "out is in a file": (["--out=%s/file/page.html"], "lies below a file"),
    "out is a directory": (["--out=%s/model"], "is a directory: choose another --out, a file"),
    "an argument": (["extra"], "unexpected argument 'extra'"),
    "a report of another circuit": (
        ["--run=%s/copied"],
        "copied/report.json is of another circuit",
    ),
    "a report that is a directory": (["--run=%s/folder"], "cannot read"),
    "compared with nothing": (
        ["--compare=%s/nowhere"],
        "nowhere holds neither a run nor a circuit",
    ),
    "compared with another model's": (["--compare=%s/foreign"], "compare circuits of one model"),
    "groups that are none": (["--groups=%s/pairs.jsonl"], "pairs.jsonl is not JSON"),
    "groups of another circuit": (["--groups=%s/others.json"], "from this circuit's page"),
}


def whole_report() -> dict:
    """`report.json` with the figures of `REPORT`, the rest made up."""
    made_up = {str: "x", int: 1, float: 0.5, bool: False}

    def filled(cls, given):
        found = {}
        for field in dataclasses.fields(cls):
            empty = {} if typing.get_origin(field.type) is dict else None
            found[field.name] = given.get(field.name, made_up.get(field.type, empty))
        return found

    fields = filled(report.Report, REPORT | {"format": report.FORMAT, "checks": AUDIT["checks"]})
    circuit = planted_circuit()
    fields["circuit"], fields["model_hash"] = circuit.content_hash, circuit.model_hash
    fields["nodes"], fields["edges"] = circuit.num_nodes, circuit.num_edges
    fields["loss_without_random"] = [0.4, 0.5]
    fields["calibration"] = {"mode": "inside", "scale": 1.0, "shift": 0.0}
    fields["jobs"] = [filled(report.JobReport, job) for job in REPORT["jobs"]]
    return from_json(report.Report, fields, "the report", older=True).to_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("view")
    model = planted_model()
    model.save(root / "model")
    ends = {"positive_completion": "x", "negative_completion": "y"}
    texts = [a + b + c for a in LETTERS[:5] for b in LETTERS[:5] for c in LETTERS[:5]]
    rows = [{"positive": f"A-{t}", "negative": f"B-{t}", **ends} for t in texts]
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "file").write_text("mine")
    for name in ("run", "broken", "folder"):
        planted_circuit().save(root / name / "circuit", model)
    (root / "folder" / "report.json").mkdir()
    other = planted_model(2.0, "other")
    other.save(root / "other")
    foreign = Circuit.of(other, "nodes", planted_circuit().opened, held=other.means)
    foreign.save(root / "foreign", other)
    write_groups(root / "mine.json", planted_circuit(), GROUPS)
    write_groups(root / "others.json", planted_circuit(PLANTED), GROUPS)
    planted_circuit(()).save(root / "empty", model)
    (root / "run" / "report.json").write_text(json.dumps(seal(whole_report())))
    (root / "broken" / "report.json").write_text("{")
    planted_circuit(PLANTED).save(root / "copied" / "circuit", model)
    shutil.copy(root / "run" / "report.json", root / "copied" / "report.json")
    for name in ("begun", "damaged"):
        (root / name).mkdir()
    (root / "begun" / "run.json").write_text("{}")
    (root / "damaged" / "circuit.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def outcomes(folder):
    def full(arguments):
        named = {"--run": f"{folder}/run", "--model": f"{folder}/model"}
        named["--out"] = f"{folder}/bad.html"
        given = [argument.replace("%s", str(folder)) for argument in arguments]
        named |= dict(a.split("=", 1) for a in given if "=" in a)
        flags = [f"{k}={v}" for k, v in named.items() if v]
        return flags + [a for a in given if "=" not in a]

    calls = {name: full(arguments) for name, (arguments, _) in BAD.items()}
    calls["run"] = [*full([f"--task={folder}/pairs.jsonl"])[:2], f"--task={folder}/pairs.jsonl"]
    calls["circuit"] = full([f"--run={folder}/run/circuit", f"--out={folder}/circuit.html"])
    calls["both"] = full([f"--compare={folder}/run/circuit", f"--out={folder}/both.html"])
    calls["both"].append(f"--groups={folder}/mine.json")
    calls["after"] = full([f"--out={folder}/after.html"])
    return dict(zip(calls, drive("view", list(calls.values()), folder), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(outcomes, folder, name):
    code, out, err = outcomes[name]
    assert code == 2, err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert BAD[name][1] in err
    assert out == ""
    assert not (folder / "bad.html").exists()
    assert (folder / "file").read_text() == "mine"


def page_data(path):
    text = path.read_text()
    assert len(text.encode()) < MOST_BYTES
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_a_run_becomes_a_page(outcomes, folder):
    code, out, err = outcomes["run"]
    assert code == 0, err
    assert out.startswith(f"{folder}/run/circuit.html (")
    data = page_data(folder / "run" / "circuit.html")
    assert len(data["nodes"]) == 11
    assert data["curve"]["jobs"][0]["k"] == 7
    assert data["audit"]["passed"] == [True, False]
    assert data["prompts"]["pairs"] > 3
    assert data["note"] == ""
    assert "the task's training prompts" in data["contexts"]["source"]


def test_a_circuit_alone_becomes_a_page(outcomes, folder):
    """Beside its run's report it has the figures; its task is unknown, and the page says so."""
    code, _, err = outcomes["circuit"]
    assert code == 0, err
    data = page_data(folder / "circuit.html")
    assert data["figures"]
    assert "there is no task 'first_letter'" in data["note"]
    assert data["prompts"] is None


def test_circuits_are_compared_and_groups_are_kept(outcomes, folder):
    code, _, err = outcomes["both"]
    assert code == 0, err
    data = page_data(folder / "both.html")
    assert data["compared"]["nodes"] == [11, 0, 0]
    assert [group["name"] for group in data["groups"]] == ["which letter"]
    code, _, err = outcomes["after"]
    assert code == 0, err
    assert page_data(folder / "after.html")["groups"] == data["groups"]  # from beside the circuit
