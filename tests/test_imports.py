"""The floors: an import goes to a strictly lower floor or stays within its own folder."""

import ast
import itertools
import pathlib
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLOORS = {
    "core": 0,
    "model": 1,
    "tasks": 1,
    "gated": 2,
    "pretrain": 2,
    "importers": 2,
    "zoo": 2,
    "circuit": 3,
    "prune": 4,
    "audit": 5,
    "report": 6,
    "tune": 6,
    "export": 6,
    "benchmarks": 6,
    "run": 7,
}
ROOT_FLOOR, EXPERIMENTS_FLOOR = 8, 9
MOST_LINES = 400


def room(parts: tuple[str, ...]) -> tuple[str, int]:
    """(name, floor) of a dotted module name of ours."""
    if parts[0] == "experiments":
        return "experiments", EXPERIMENTS_FLOOR
    if len(parts) == 1:
        return "circuitjax", ROOT_FLOOR
    if parts[1] not in FLOORS:
        raise ValueError(f"circuitjax/{parts[1]} stands on no floor: add it to the table")
    return parts[1], FLOORS[parts[1]]


def imported(path: pathlib.Path, root: pathlib.Path) -> list[tuple[str, ...]]:
    """Dotted names of our own modules that a file imports, at any depth of nesting."""
    package = path.relative_to(root).parent.parts
    names: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            # `from circuitjax import model` names a folder only in what follows.
            short = len(module) == 1 and module[0] == "circuitjax"
            folders = [a.name for a in node.names if a.name in FLOORS]
            if short and folders:
                names += [(*module, folder) for folder in folders]
            if not (short and len(folders) == len(node.names)):
                names.append(module)
    return [name for name in names if name and name[0] in ("circuitjax", "experiments")]


def violations(root: pathlib.Path) -> list[str]:
    """One line for each broken rule below `root`, which holds circuitjax/ and experiments/."""
    found = []
    for path in sorted([*root.glob("circuitjax/**/*.py"), *root.glob("experiments/**/*.py")]):
        where = path.relative_to(root)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            found.append(f"{where} has {lines} lines, more than {MOST_LINES}")
        if path.name == "utils.py":
            found.append(f"{where}: name it for what it does")
        parts = where.with_suffix("").parts
        name, floor = room(parts if parts[-1] != "__init__" else parts[:-1])
        for module in imported(path, root):
            other, other_floor = room(module)
            if other != name and other_floor >= floor:
                found.append(f"{where}: {name} imports {'.'.join(module)} (floor {other_floor})")
    return found


def test_the_house_stands():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("circuitjax/core/a.py", "from circuitjax.model.config import SITES", "model.config"),
        ("circuitjax/model/a.py", "import circuitjax.tasks.base", "circuitjax.tasks.base"),
        ("circuitjax/zoo/a.py", "from circuitjax.pretrain import config", "circuitjax.pretrain"),
        ("circuitjax/zoo/a.py", "from ..prune import train", "circuitjax.prune"),
        ("circuitjax/audit/a.py", "from circuitjax import report", "circuitjax.report"),
        ("circuitjax/prune/a.py", "from circuitjax import prune_model", "imports circuitjax "),
        ("circuitjax/prune/a.py", "import circuitjax", "imports circuitjax "),
        ("circuitjax/tune/a.py", "from experiments.command import x", "experiments.command"),
        ("circuitjax/tune/a.py", "def f():\n    import circuitjax.report.page", "report.page"),
        ("circuitjax/__init__.py", "from experiments import command", "experiments"),
        ("circuitjax/tune/a.py", "x = 1\n" * 401, "401 lines"),
        ("circuitjax/tune/utils.py", "x = 1", "utils.py"),
    ],
)
def test_a_made_up_violation_is_seen(tmp_path, file, line, expected):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    found = violations(tmp_path)
    assert len(found) == 1
    assert expected in found[0]


def test_what_is_allowed_passes(tmp_path):
    for file, text in {
        "circuitjax/prune/train.py": """
            import jax
            from circuitjax.core import jobs
            from circuitjax.prune.config import PruneConfig
            from circuitjax import model, tasks
            """,
        "circuitjax/__init__.py": "from circuitjax.report.page import page\n",
        "experiments/prune.py": "import circuitjax\nfrom experiments.command import x\n",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    assert violations(tmp_path) == []


def test_an_unknown_folder_is_refused(tmp_path):
    (tmp_path / "circuitjax/attic").mkdir(parents=True)
    (tmp_path / "circuitjax/attic/a.py").write_text("")
    with pytest.raises(ValueError, match="attic stands on no floor"):
        violations(tmp_path)


def flag_definitions(module: str, seen: set[str]) -> set[tuple[str, str]]:
    """(flag, module) of what importing a module of experiments/ defines, here or in its imports."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    if module in seen or not path.exists():
        return set()
    seen.add(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {
        (ast.unparse(node.args[0]), module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE_")
    }
    return found.union(*(flag_definitions(inner, seen) for inner in binaries_in(tree)))


def binaries_in(tree: ast.AST) -> list[str]:
    """Modules of experiments/ that a file imports, and names that may be modules."""
    return [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "experiments"
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    ]


def test_tests_define_no_flag_twice():
    """Tests share processes, and absl's flags admit one definition of a name: binaries are driven."""
    seen: set[str] = set()
    defined: set[tuple[str, str]] = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for name in binaries_in(ast.parse(path.read_text(encoding="utf-8"))):
            defined |= flag_definitions(name, seen)
    for (flag, one), (other_flag, other) in itertools.combinations(sorted(defined), 2):
        assert flag != other_flag, f"tests import {one} and {other}, which both define {flag}"
