"""Calls the mains of binaries many times in one process of their own, which the tests of a worker share.

To start JAX, and to compile the same small programs again, takes longer than most of these calls. The
process reads one JSON line for each group of calls: a binary, its lists of arguments, the working
directory and the environment; it answers with one JSON line of [exit code, stdout, stderr] for each.
"""

import atexit
import contextlib
import functools
import importlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback
from typing import IO, NamedTuple

from tests.compiler import forget_programs

ROOT = pathlib.Path(__file__).resolve().parents[2]


def environment(cwd: pathlib.Path) -> dict[str, str]:
    """Of a binary: a cache of its own, and the tests' compiler flags, which change roundings."""
    flags = {name: os.environ[name] for name in ("XLA_FLAGS",) if name in os.environ}
    own = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": f"{cwd}/.cache"}
    return own | flags


def drive(binary: str, calls: list[list[str]], cwd: pathlib.Path) -> list[tuple[int, str, str]]:
    """Runs experiments/<binary>.py on each list of arguments, with `cwd` as working directory."""
    driven = _driven()
    request = {"binary": binary, "calls": calls, "cwd": str(cwd), "env": environment(cwd)}
    answer = ""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(request), file=driven.requests, flush=True)
        answer = driven.answers.readline()
    if not answer:  # it died: the next call starts another
        _driven.cache_clear()
        driven.errors.seek(0)
        raise AssertionError(f"experiments.{binary} ended its process: {driven.errors.read()}")
    found = json.loads(answer)
    assert "error" not in found, found["error"]
    return [tuple(row) for row in found["rows"]]


class _Driven(NamedTuple):
    """Both ends of the process, as text, and what it writes to stderr past the calls."""

    requests: IO[str]
    answers: IO[str]
    errors: IO[str]


@functools.cache
def _driven() -> _Driven:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.experiments.drive as d; "
    ours, theirs = os.pipe()
    # The files outlive this call on purpose: the process ends with the worker that closes its stdin.
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-c", script + f"d.main({theirs})"],
        stdin=subprocess.PIPE,
        stdout=errors,
        stderr=errors,
        pass_fds=[theirs],
        text=True,
        env=environment(pathlib.Path(tempfile.gettempdir())),
    )
    os.close(theirs)
    assert process.stdin is not None
    atexit.register(process.wait)  # called last: handlers run in reverse order
    atexit.register(process.stdin.close)
    return _Driven(process.stdin, open(ours), errors)


def main(answers: int) -> None:
    """The driven side: answers go to this file descriptor."""
    with open(answers, "w") as out:
        for line in sys.stdin:
            try:
                found = {"rows": _rows(**json.loads(line))}
            except Exception:
                found = {"error": traceback.format_exc()}
            print(json.dumps(found), file=out, flush=True)
            forget_programs()


def _rows(binary: str, calls: list[list[str]], cwd: str, env: dict[str, str]) -> list:
    from absl import flags

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    module = fresh(binary)
    command = importlib.import_module("experiments.command")
    rows = []
    for arguments in calls:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                module.main(command.parse_flags(module.main, [binary, *arguments]))
            except SystemExit as ended:
                code = ended.code
        flags.FLAGS.unparse_flags()
        rows.append((code, out.getvalue(), err.getvalue()))
    return rows


def fresh(binary: str):
    """The binary's module as if imported first: absl's flags admit one binary at a time."""
    from absl import flags

    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.partition(".")[0] == "experiments":
            for name in {flag.name for flag in defined} & set(flags.FLAGS):
                delattr(flags.FLAGS, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        del sys.modules[name]
    return importlib.import_module(f"experiments.{binary}")
