"""What is shipped: the wheel in a clean environment, documents, the ends of the supported versions."""

import importlib.util
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
            known = defined | {"clear", "help"} | {f"no{one}" for one in defined}
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


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(tmp_path):
    source = tmp_path / "source"
    left = shutil.ignore_patterns(
        ".git", ".venv", "*.egg-info", "build", "site", "runs*", "shared", "corpus*", ".*_cache"
    )
    shutil.copytree(ROOT, source, ignore=left)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    ran(*pip, "wheel", "--no-deps", "-w", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("circuitjax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for inside in (
        "circuitjax/py.typed",
        "circuitjax/zoo/data/tiny-python/weights.npz",
        "circuitjax/circuit/schema/circuit.schema.json",
        "experiments/recipes/tiny-python.json",
    ):
        assert inside in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.startswith("circuitjax/report/viewer/assets/") for name in names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)
    ran(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    inside = tmp_path / "env/bin"
    ran(inside / "pip", "-q", "--disable-pip-version-check", "install", wheel, cwd=tmp_path)
    assert "  prune " in ran(inside / "circuitjax", cwd=tmp_path)
    assert "single_double_quote" in ran(
        inside / "circuitjax", "prune", "--list_tasks", cwd=tmp_path
    )
    ran(inside / "circuitjax", "prune", "--task=nonsense", cwd=tmp_path, code=2)
    code = "import circuitjax as cj; print(cj.__file__, cj.load_model('tiny-python').hash)"
    assert str(tmp_path / "env") in ran(inside / "python", "-c", code, cwd=tmp_path)


@pytest.mark.slow
def test_the_ends_of_the_supported_versions():
    done = subprocess.run(["bash", ".ci/versions"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
