"""The console command finds every binary, and ends with its exit code."""

import os
import pathlib
import subprocess
import sys

import pytest

from circuitjax.core import host
from experiments import console

ROOT = pathlib.Path(__file__).resolve().parents[2]


def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.console", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def test_every_binary_is_listed_with_a_line_that_fits(capsys):
    assert console.main([]) == 0
    text = capsys.readouterr().out
    for name, line in console.binaries().items():
        assert f"\n  {name} " in text
        assert len(line) > 20
    mains = {
        path.stem
        for path in (ROOT / "experiments").glob("*.py")
        if "\n@exit_on_bad_input\ndef " in path.read_text(encoding="utf-8")
    }
    assert set(console.binaries()) == mains
    assert {"prune", "audit", "suite", "bench"} <= mains
    assert max(map(len, text.splitlines())) <= 100
    assert "130 stopped by Ctrl-C" in text


def test_listing_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "experiments.console", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "jax" not in {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prune", "--list_tasks"], 0, "single_double_quote "),
        (["prune", "--list_tasks", "more"], 2, "error: unexpected argument 'more'"),
        (["import-model", "--help"], 0, "--from=FROM "),
        (["import-model"], 2, "error: --from is missing"),
        (["prun"], 2, "no binary 'prun': did you mean prune"),
        (["command"], 2, "no binary 'command'"),
        (["../setup"], 2, "no binary '../setup'"),
        (["cache", "--clean"], 2, "knows --clear alone"),
        (["--version"], 0, "circuitjax 0."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_binary_by_name(arguments, code, words):
    done = call(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr


def test_the_cache_is_shown_and_cleared(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert console.main(["cache"]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/circuitjax/xla: 0 files, 0.0 MB of compiled programs\n"
    )
    kept = tmp_path / "circuitjax/xla/sub"
    kept.mkdir(parents=True)
    (kept / "program").write_bytes(bytes(2_500_000))
    (tmp_path / "another").write_text("stays")
    assert console.main(["cache"]) == 0
    assert "1 files, 2.5 MB" in capsys.readouterr().out
    assert console.main(["cache", "--clear"]) == 0
    assert host.cache_size() == (0, 0)
    assert (tmp_path / "another").exists()
