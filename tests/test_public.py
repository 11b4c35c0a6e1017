"""What a user types: names that are there, names that say what replaced them, examples that run."""

import doctest
import inspect
import pathlib
import re

import numpy as np
import pytest

import circuitjax as cj
import circuitjax.prune.find  # a package of that name is importable beside the names
from circuitjax.prune.defaults import default_search

CHANGELOG = (pathlib.Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
EXAMPLES = [name for name in cj.__all__ if ">>>" in (inspect.getdoc(getattr(cj, name)) or "")]


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> dict:
    """What examples may use: a model, a task, a small search and the circuit that it finds."""
    model, task = cj.load_model("tiny-python"), cj.tasks.get("while_return_true")
    search = default_search("nodes", ranking="attribution", train=32, validation=32, test=32)
    problem = cj.prepare(model, task, search)
    circuit = cj.find_circuit(model, task, search=search)
    return {"cj": cj, "model": model, "task": task, "search": search, "problem": problem} | {
        "circuit": circuit
    }


def test_every_name_is_there_and_none_shadows_a_package():
    assert all(hasattr(cj, name) for name in cj.__all__)
    assert inspect.ismodule(cj.prune)
    assert circuitjax.prune.find.find_circuit is cj.find_circuit


def test_a_name_that_went_says_what_stands_in_its_place():
    rows = CHANGELOG.split("| before | now |")[1].split("\n\n")[0].splitlines()[2:]
    first = " ".join(row.split("|")[1] for row in rows)
    before = set(re.findall(r"`(?:cj\.)?(\w+)[(`]", first))
    went = before - set(cj.__all__) - {"prune", "method", "init"}  # a package now, a field, a flag
    assert went >= {"find_edge_circuit", "EdgeCircuit", "GateHyper", "total_edges", "polish_edges"}
    for name in went:
        with pytest.raises(
            AttributeError, match=rf"^circuitjax has no '{name}' any more: use cj\."
        ) as said:
            getattr(cj, name)
        assert hasattr(cj, re.split(r"\W", str(said.value).split("use cj.")[1])[0]), name
    assert went == set(cj._GONE)
    with pytest.raises(AttributeError, match=r"^module 'circuitjax' has no attribute 'nonsense'$"):
        cj.nonsense  # noqa: B018
    with pytest.raises(TypeError, match=r"^cj.prune is a package now: call cj.find_circuit"):
        cj.prune(None, None)


def test_most_of_what_is_called_has_an_example():
    called = [name for name in cj.__all__ if inspect.isfunction(getattr(cj, name))]
    without = sorted(set(called) - set(EXAMPLES))
    assert len(EXAMPLES) >= 15
    # What takes minutes, or a directory of its own, has its example in the documents.
    assert without == ["audit_circuit", "polish", "run_audit", "run_pruning", "run_study"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder(recurse=False).find(getattr(cj, name), name, globs=dict(names))
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    runner = doctest.DocTestRunner(optionflags=flags)
    with np.printoptions(precision=4):
        results = [runner.run(one) for one in found]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0
