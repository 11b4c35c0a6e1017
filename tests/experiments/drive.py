"""Calls a binary's main many times in one process: absl's flags admit one binary per process.

Reads a JSON list of argument lists from stdin; writes a JSON list of [exit code, stdout, stderr].
"""

import contextlib
import importlib
import io
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def environment(cwd: pathlib.Path) -> dict[str, str]:
    """Of a binary: a cache of its own, and the tests' compiler flags, which change roundings."""
    flags = {name: os.environ[name] for name in ("XLA_FLAGS",) if name in os.environ}
    own = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": f"{cwd}/.cache"}
    return own | flags


def drive(binary: str, calls: list[list[str]], cwd: pathlib.Path) -> list[tuple[int, str, str]]:
    """Runs experiments/<binary>.py on each list of arguments, with `cwd` as working directory."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.experiments.drive as d; "
    done = subprocess.run(
        [sys.executable, "-c", script + f"d.main({binary!r})"],
        cwd=cwd,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        env=environment(cwd),
    )
    assert done.returncode == 0, done.stderr
    return [tuple(row) for row in json.loads(done.stdout)]


def main(binary: str) -> None:
    """The driven side."""
    from absl import flags

    module = importlib.import_module(f"experiments.{binary}")
    rows = []
    for arguments in json.loads(sys.stdin.read()):
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                module.main(flags.FLAGS([binary, *arguments]))
            except SystemExit as ended:
                code = ended.code
        flags.FLAGS.unparse_flags()
        rows.append((code, out.getvalue(), err.getvalue()))
    print(json.dumps(rows))
