"""The notebook: it names what exists, holds no output but pictures, and runs from start to end."""

import ast
import json
import pathlib
import re
import time

import pytest

import circuitjax as cj

NOTEBOOK = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "colab.ipynb"
#: The cell of settings sets these.
SETTINGS = ["import", "OUT", "STEPS", "PAIRS", "AUDIT", "TUNE_ROUNDS", "TASK"]


def cells(kind: str) -> list[dict]:
    """The notebook's cells of one kind."""
    every = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    """A cell's text."""
    return "".join(cell["source"])


def test_every_cell_is_python_and_names_what_exists():
    settings = [c for c in cells("code") if "parameters" in c["metadata"].get("tags", ())]
    assert len(settings) == 1
    assert re.findall(r"^(\w+)", source(settings[0]), re.M) == SETTINGS
    for cell in cells("code"):
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cj":
                assert hasattr(cj, node.attr), node.attr


def test_it_leads_with_what_holds_and_names_the_package_alone():
    code = [source(cell) for cell in cells("code")]
    searches = re.findall(r"cj\.(?:default_search|find_circuit)\((.*)", "\n".join(code))
    assert searches[0].startswith('**cj.PRESETS["faithful"]')
    imported = {
        name.split(".")[0]
        for cell in code
        for node in ast.walk(ast.parse(cell))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported <= {"circuitjax", "jax", "IPython", "importlib", "subprocess", "sys", "pathlib"}
    assert not re.search(r"circuitjax\.\w|from circuitjax", "\n".join(code))


def test_only_pictures_are_stored():
    for cell in cells("code"):
        for output in cell["outputs"]:
            assert "image/png" in output.get("data", {})


@pytest.mark.slow
def test_it_runs_from_start_to_end(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook, began = nbformat.read(NOTEBOOK, as_version=4), time.monotonic()
    nbclient.NotebookClient(
        notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    print(
        f"the notebook took {time.monotonic() - began:.0f} s"
    )  # 15 minutes on two cores left alone
    made = {path.name for path in (tmp_path / "runs" / "colab").iterdir()}
    assert made >= {"prune", "tune", "my_model", "my_circuit", "circuit.html", "exported"}
    shown = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o]
    assert sum("iframe" in o["data"].get("text/html", "") for o in shown) == 3
    assert sum("image/png" in o["data"] for o in shown) == 1
