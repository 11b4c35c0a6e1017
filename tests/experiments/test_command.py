"""However a binary ends, it says why in one line, with the exit code that goes with it."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from experiments import command

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary(tmp_path: pathlib.Path, body: str) -> list[str]:
    """A binary whose main does this."""
    text = "import os, sys, time\nfrom absl import flags\nfrom experiments.command import *\n"
    text += 'flags.DEFINE_float("size", 1.0, "Size.")\nflags.DEFINE_string("name", "a", "Name.")\n'
    text += "@exit_on_bad_input\ndef main(argv):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    (tmp_path / "own.py").write_text(text + "\nrun_main(main)\n", encoding="utf-8")
    return [sys.executable, str(tmp_path / "own.py")]


def run(tmp_path, body, env=None, **options) -> subprocess.CompletedProcess[str]:
    own = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | (env or {})
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run(binary(tmp_path, body), env=own, cwd=tmp_path, **options)


def ended(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("a\nb"), 2, "a b"),
        (FloatingPointError("nan"), 1, "nan"),
        (FileNotFoundError(2, "No such file", "x/y"), 2, "x/y is not there, or vanished"),
        (NotADirectoryError(20, "Not a directory", "f/out"), 2, "f/out lies below a file"),
        (OSError(errno.EROFS, "Read-only", b"/mnt/x"), 2, "/mnt/x is on a disk that is read only"),
        (OSError(errno.ENOSPC, "No space", "/mnt/x"), 1, "no space is left on the disk of /mnt/x"),
        (OSError(errno.EDQUOT, "quota", "q"), 1, "the disk quota is used up at q"),
        (OSError(errno.EBUSY, "busy", "/mnt"), 2, "/mnt is in use, a mount point"),
        (PermissionError(13, "denied", "p"), 2, "p may not be read or written"),
        (OSError(errno.ENOTEMPTY, "not empty", "d"), 1, "d is being written by another process"),
        (OSError("Cannot call rmtree on a symbolic link"), 1, "rmtree on a symbolic link"),
        (OSError(errno.EPROTO, "odd", 3), 1, "the system refused a file"),
        (MemoryError(), 1, "out of memory on the host: a smaller --batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), 1, "on the device"),
        (RuntimeError("ABORTED: [errno 28] No space left on device; x"), 1, "no space is left"),
        (RecursionError("maximum recursion depth"), 2, "nested too deep"),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "no surrogates"), 2, "cannot be encoded"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C: what was finished is kept"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_each_kind_has_its_line(error, code, words):
    found, line = command.explain(error)
    assert found == code
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--size=abc", "--size=abc: could not convert string to float"),
        ("--sise=1", "Unknown command line flag 'sise'. Did you mean: size ?; --help lists"),
        ("--flagfile=none", "none"),
        ("--name", "Missing value for flag --name"),
    ],
)
def test_a_flag_that_cannot_be_is_bad_input(tmp_path, flag, words):
    command = [*binary(tmp_path, "print(1)"), flag]
    env = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    ended(done, 2, words)
    assert done.stdout == ""


def test_a_line_stays_a_line():
    assert len(command.explain(ValueError("x " * 10**6))[1]) < 1100


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AssertionError(), RuntimeError()])
def test_faults_of_ours_are_not_hidden(error):
    assert command.explain(error) is None


def test_a_fault_of_ours_shows_its_traceback(tmp_path):
    done = run(tmp_path, "raise KeyError('x')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_binary_unwinds_and_says_that_it_goes_on(tmp_path, name, code):
    body = "print('up', flush=True)\ntry: time.sleep(60)\nfinally: print('unwound', flush=True)"
    done = run(
        tmp_path,
        f"import signal, threading\n"
        f"threading.Timer(0.5, os.kill, (os.getpid(), signal.{name})).start()\n" + body,
    )
    ended(done, code, "the same command goes on")
    assert done.stdout == "up\nunwound\n"


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_what_a_stopped_binary_was_computing_does_not_change_its_code(tmp_path, name, code):
    """A computation in the compiler's threads goes on while the interpreter ends, which may crash."""
    body = f"""
        import atexit, signal, threading
        atexit.register(os.abort)  # stands for that crash
        threading.Timer(0.5, os.kill, (os.getpid(), signal.{name})).start()
        time.sleep(60)
    """
    ended(run(tmp_path, body), code, "the same command goes on")


def test_ctrl_c_while_a_binary_imports(tmp_path):
    """Imports take seconds; a newcomer who stops then is shown no traceback either."""
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "experiments.prune", "--list_tasks"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        for line in started.stderr:
            if line.rstrip().endswith("numpy"):
                break
        started.send_signal(signal.SIGINT)
        rest = [line for line in started.stderr if not line.startswith("import time")]
        started.wait()
    assert started.returncode == 130
    assert rest == ["stopped by Ctrl-C before it began\n"]


def test_an_ascii_console_gets_escapes(tmp_path):
    for env in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        done = run(tmp_path, "print('caf\\u00e9 \\u2192')", env={**env, "PYTHONCOERCECLOCALE": "0"})
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "caf\\xe9 \\u2192\n"
    done = run(tmp_path, "raise ValueError('caf\\u00e9')", env={"PYTHONIOENCODING": "ascii"})
    ended(done, 2, "caf\\xe9")


def test_a_pipe_that_is_gone_is_quiet(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = run(
        tmp_path,
        "for _ in range(9999): print('x' * 99)",
        capture_output=False,
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_behind_the_output(tmp_path):
    with open("/dev/full", "w") as full:
        done = run(
            tmp_path, "print('x')", capture_output=False, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode in (1, 120)  # the second by Python's own flush at exit
    assert "no space is left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"JAX_ENABLE_X64": "1"}, "JAX_ENABLE_X64 is set"),
        ({"JAX_DISABLE_JIT": "1"}, "JAX_DISABLE_JIT is set"),
        ({"JAX_PLATFORMS": "cuda"}, "JAX finds no device for JAX_PLATFORMS=cuda"),
        ({"JAX_PLATFORMS": "nonsense"}, "JAX finds no device for JAX_PLATFORMS=nonsense"),
    ],
)
def test_settings_of_jax_are_blamed_by_name(tmp_path, env, words):
    if env.get("JAX_PLATFORMS") == "cuda" and pathlib.Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has that device")
    ended(run(tmp_path, "import jax; jax.numpy.zeros(3)", env=env), 2, words)


def test_an_imported_model_under_64_bits_is_not_called_damaged(tmp_path, tiny_model):
    """As a library; binaries refuse the setting."""
    tiny_model.save(tmp_path / "m")
    code = (
        "import sys; from circuitjax.model.record import Model; print(Model.load(sys.argv[1]).hash)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")],
        env={**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == tiny_model.hash, done.stderr
