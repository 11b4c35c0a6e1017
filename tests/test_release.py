"""What is shipped: the wheel in a clean environment, documents, the ends of the supported versions."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

import circuitjax
from circuitjax.prune.capabilities import RULES, answers

ROOT = pathlib.Path(__file__).resolve().parents[1]
FIELDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def ran(*command: object, cwd: pathlib.Path, code: int = 0, **env: str) -> str:
    own = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "HOME": str(cwd)} | env
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=own, capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_versions_agree():
    version = FIELDS["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference():
    """By where it is defined; tuples of names and modules need no entry of their own."""
    text = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    for name in circuitjax.__all__:
        value = getattr(circuitjax, name)
        if callable(value):
            assert f"{value.__module__}.{value.__qualname__}" in listed, name


def test_the_readme_lists_what_is_refused():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [rule.what for rule in RULES if rule.what not in text] == []
    for question, known in answers().items():
        for answer in known:
            assert f"`{answer}`" in text or f"={answer}" in text, f"{question}={answer}"


def test_documents_name_only_commands_and_flags_that_exist():
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    flags = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "experiments").glob("*.py"))
    defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', flags))
    # Those of a search are defined from tables.
    told = "import experiments.pruning_flags; from absl import flags; print(*flags.FLAGS)"
    defined |= set(ran(sys.executable, "-c", told, cwd=ROOT).split())
    text = text.replace("python -m experiments.", "circuitjax ").replace("\\\n", " ")
    named = re.findall(r"(?:^|`|\$ )circuitjax (\w+)([^`\n]*)", text, re.MULTILINE)
    assert len(named) > 40
    for name, rest in named:
        if name == "NAME":  # of any binary
            continue
        assert name == "cache" or (ROOT / f"experiments/{name}.py").exists(), name
        for flag in re.findall(r"--(\w+)", rest):
            known = defined | {"clear", "help", "helpfull"} | {f"no{one}" for one in defined}
            assert flag in known, f"{name} --{flag}"


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="needs pip install '.[docs]'"
)
def test_documents_build_and_are_read_without_a_network(tmp_path):
    ran(
        sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", tmp_path / "site", cwd=ROOT
    )
    fetched = re.compile(r"""(?:src|href)=["']?(https?://[^"'> ]+\.(?:js|css|woff2?|png|svg))""")
    for page in (tmp_path / "site").rglob("*.html"):
        assert fetched.findall(page.read_text(encoding="utf-8")) == []
    index = (tmp_path / "site/reference/python.html").read_text(encoding="utf-8")
    assert "circuitjax.circuit.circuit.Circuit" in index


def python_of(version: str) -> str | None:
    """A Python of a version that runs: this one, from the path, or from pyenv."""
    own = [sys.executable] if sys.version.startswith(f"{version}.") else []
    home = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    known = [*own, shutil.which(f"python{version}")]
    known += sorted(home.glob(f"versions/{version}.*/bin/python"))
    told = "import sys; print('%d.%d' % sys.version_info[:2])"
    for one in filter(None, known):
        done = subprocess.run([one, "-c", told], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return str(one)
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in ("circuitjax", "experiments"):
        shutil.copytree(
            ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    ran(*pip, "wheel", "--no-deps", "-w", folder, folder / "source", cwd=folder)
    (made,) = folder.glob("circuitjax-*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed_and_no_more(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for inside in (
        "circuitjax/py.typed",
        "circuitjax/zoo/data/tiny-python/weights.npz",
        "circuitjax/circuit/schema/circuit.schema.json",
        "experiments/recipes/tiny-python.json",
        *(f"experiments/{path.name}" for path in (ROOT / "experiments").glob("*.py")),
    ):
        assert inside in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.startswith("circuitjax/report/viewer/assets/") for name in names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_the_wheel_works_in_a_clean_environment(wheel, version, tmp_path):
    """Every command runs outside the repository, in an environment that holds the wheel alone."""
    python = python_of(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    ran(python, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    inside, work = tmp_path / "env/bin", tmp_path / "work"
    ran(inside / "pip", "-q", "--disable-pip-version-check", "install", wheel, cwd=tmp_path)
    work.mkdir()

    def circuitjax_command(*arguments: str, code: int = 0) -> str:
        return ran(inside / "circuitjax", *arguments, cwd=work, code=code)

    code = "import circuitjax as cj; print(cj.__file__, cj.load_model('tiny-python').hash)"
    assert str(tmp_path / "env") in ran(inside / "python", "-c", code, cwd=work)
    assert "  prune " in circuitjax_command("--help")
    assert "single_double_quote" in circuitjax_command("prune", "--list_tasks")
    circuitjax_command("prune", "--task=nonsense", code=2)
    assert not [path for path in work.iterdir() if not path.name.startswith(".")]
    asked = ("prune", "--task=single_double_quote", "--steps=40", "--out=run")
    assert "written to run" in circuitjax_command(*asked)
    assert "already finished" in circuitjax_command(*asked)
    for name in ("report.json", "circuit/circuit.json", "circuit.png", "loss_vs_k.png"):
        assert (work / "run" / name).stat().st_size > 1000, name
    assert "circuit.html" in circuitjax_command("view", "--run=run")
    assert (work / "run/circuit.html").stat().st_size > 100_000
    assert re.search(r": [1-9]\d* files, ", circuitjax_command("cache"))
    assert "cleared" in circuitjax_command("cache", "--clear")


@pytest.mark.slow
def test_the_ends_of_the_supported_versions():
    done = subprocess.run(["bash", ".ci/versions"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
