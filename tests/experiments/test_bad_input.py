"""Bad input to every binary ends in one line that names it, soon, with code 2, and leaves nothing."""

import os
import pathlib
import subprocess
import sys

import pytest

from experiments import console
from tests.experiments.bad_input import BINARIES, calls, world
from tests.experiments.drive import ROOT, drive, environment

_ELSEWHERE = {"prune", "view", "audit"}  # tables of their own
_TORCH = {"bench_torch"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("world")
    world(folder)
    return folder


def filled(arguments: list[str], root: pathlib.Path) -> list[str]:
    return [argument.replace("%s", str(root)) for argument in arguments]


def content(root: pathlib.Path) -> set[str]:
    return {str(p) for p in root.rglob("*") if ".cache" not in p.parts and p.name != ".lock"}


def test_every_binary_is_tried():
    assert set(BINARIES) | _ELSEWHERE | _TORCH == set(console.binaries())


@pytest.mark.parametrize("name", BINARIES)
def test_bad_input_is_one_line(root, name):
    tried = list(calls(name))
    before = content(root)
    model = ["smollm2-135m"] if name == "fetch_model" else []
    found = drive(name, [[*model, *filled(arguments, root)] for _, _, arguments in tried], root)
    for (flag, value, _), (code, out, err) in zip(tried, found, strict=True):
        case = f"{name} --{flag}={value[:60]}: {code} {out[-200:]!r} {err[-400:]!r}"
        assert code == 2, case
        assert err.startswith("error: "), case
        assert err.count("\n") == 1, case
        assert len(err) < 1100, case
    assert content(root) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BINARIES) - {"corpus", "fetch_model"}))
def test_no_device_and_a_console_of_ascii(root, name):
    """A binary that computes says that JAX has no device; one that does not need not mind."""
    if pathlib.Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has that device")
    given = [f"--{flag}={value}" for flag, value in BINARIES[name].good.items()]
    env = {**environment(root), "JAX_PLATFORMS": "cuda", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *filled(given, root)],
        env={**env, "PYTHONPATH": str(ROOT), "HOME": os.fspath(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr
