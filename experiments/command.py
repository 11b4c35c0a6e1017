"""What every binary shares: whatever ends it ends it with one clear line and an exit code.

    0    done
    1    the computation, the memory or the disk gave out: the same command goes on once that is mended
    2    bad input: a flag, a file, a setting; the line says which and what to do
    130  stopped by Ctrl-C, 143 by SIGTERM (a scheduler): the same command goes on
    141  what read our output is gone (`| head`)

Anything else is a fault of ours, and shows its traceback.
"""

import contextlib
import errno
import functools
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

from absl import app, flags, logging

from circuitjax.core.host import NoDeviceError, check_device, check_settings
from experiments.help import help_text, own_flags, wanted

__all__ = ["CODES", "command", "exit_on_bad_input", "explain", "parse_flags", "run_main"]

CODES = {"done": 0, "gave out": 1, "bad input": 2, "Ctrl-C": 130, "SIGTERM": 143, "pipe": 141}
_LONGEST = 1000  # of a line: some name many files

# What the operating system refuses, and the mend; (line, whether the input is to blame).
_REFUSED = {
    errno.ENOSPC: (
        "no space is left on the disk of {}: free some; the same command goes on",
        False,
    ),
    errno.EDQUOT: ("the disk quota is used up at {}: free some; the same command goes on", False),
    errno.EIO: ("the disk fails at {}: the same command goes on once it works", False),
    errno.EMFILE: ("too many files are open at {}: raise `ulimit -n`", False),
    errno.ENOTEMPTY: ("{} is being written by another process: wait for it", False),
    errno.EBUSY: ("{} is in use, a mount point perhaps: choose a directory below it", True),
    errno.EROFS: ("{} is on a disk that is read only: choose another place", True),
    errno.EACCES: ("{} may not be read or written by this user: choose another place", True),
    errno.EPERM: ("{} may not be changed by this user: choose another place", True),
    errno.ENOTDIR: ("{} lies below a file: choose another place", True),
    errno.EISDIR: ("{} is a directory, where a file belongs", True),
    errno.EEXIST: ("{} is there already, and is no directory: choose another place", True),
    errno.ENAMETOOLONG: ("the name {} is too long: choose a shorter one", True),
    errno.ELOOP: ("{} is a link that leads back to itself", True),
    errno.ENOENT: ("{} is not there, or vanished: the same command makes it again", True),
}
_WORDS = {  # how other libraries tell of a disk that gave out
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
    "Too many open files": errno.EMFILE,
}


def command(name: str, **given: object) -> str:
    """A command line as one types it: `circuitjax NAME --flag=VALUE ...`; None and "" are left out."""
    said = [f"--{flag}={shlex.quote(str(value))}" for flag, value in given.items() if value]
    return " ".join(["circuitjax", name, *said])


class _Terminated(BaseException):
    """SIGTERM came."""


def explain(error: BaseException) -> tuple[int, str] | None:
    """(exit code, line) for what ended a binary; None for a fault of ours."""
    if isinstance(error, KeyboardInterrupt | _Terminated):
        by, code = ("Ctrl-C", 130) if isinstance(error, KeyboardInterrupt) else ("SIGTERM", 143)
        return code, f"stopped by {by}: what was finished is kept, and the same command goes on"
    if isinstance(error, NoDeviceError):
        return 2, str(error)
    for words, number in _WORDS.items():
        if words in str(error) and not isinstance(error, OSError):
            return _of_system(number, f"{_place()} ({_line(error)[:200]})")
    if isinstance(error, MemoryError) or _device_memory(error):
        what = "on the host" if isinstance(error, MemoryError) else "on the device"
        return 1, (
            f"out of memory {what}: a smaller --batch_size, --num_jobs or model needs less; "
            f"({_line(error)})"
        )
    if isinstance(error, RecursionError):
        return 2, "the input is nested too deep: no file of ours, and no task, is"
    if isinstance(error, flags.Error):
        return 2, _of_flags(error)
    if isinstance(error, UnicodeError):
        return 2, f"text that cannot be encoded or decoded: {_line(error)}"
    if isinstance(error, ValueError):
        return 2, _line(error)
    if isinstance(error, FloatingPointError):
        return 1, _line(error)
    if isinstance(error, OSError):
        names = [name for name in (error.filename, error.filename2) if name is not None]
        where = os.fsdecode(names[0]) if names and not isinstance(names[0], int) else _place()
        if error.errno in _REFUSED:
            return _of_system(error.errno, where)
        return 1, f"the system refused {where}: {_line(error)}"
    return None


def _place() -> str:
    """What was being written, as far as flags say: what the system refused names no file."""
    given = flags.FLAGS["out"].value if "out" in flags.FLAGS else None
    return f"a file, of --out={given} perhaps" if given else "a file"


def _of_system(number: int, where: str) -> tuple[int, str]:
    text, ours = _REFUSED[number]
    return (2 if ours else 1), text.format(where if len(where) <= 300 else f"{where[:300]}...")


def _of_flags(error: flags.Error) -> str:
    """What is wrong with a command line, and what to do: the flags library says half of it."""
    line = _line(error).removeprefix("flag ")
    missing = re.match(r"--(\w+)=None: Flag --\1 must have a value other than None\.", line)
    if missing:
        return f"--{missing[1]} is missing: --help says what it is"
    return f"{line}; --help lists the flags" if line.startswith("Unknown") else line


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _device_memory(error: BaseException) -> bool:
    text = str(error)[:2000]
    return isinstance(error, RuntimeError) and (
        "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
    )


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that temporary files go and locks are released."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _any_alphabet() -> None:
    """A console that knows ASCII alone gets escapes instead of an error at the last line."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def exit_on_bad_input(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Ends a binary with one line on stderr and an exit code of `CODES`, where `explain` knows why."""

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax and JAX tell a newcomer more than they ask
        _any_alphabet()
        try:
            with _sigterm_raises():
                if len(argv) > 1:
                    raise ValueError(f"unexpected argument {argv[1]!r}: all options are --flags")
                check_settings()
                main(argv)
                sys.stdout.flush()  # a pipe that is gone, or a full disk behind `>`, shows here
        except BrokenPipeError:
            # Python flushes once more at exit: to nowhere.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(CODES["pipe"])
        except (Exception, KeyboardInterrupt, _Terminated) as error:
            _end(_without_device(error))

    return wrapped


def _end(error: BaseException) -> NoReturn:
    """One line and its exit code, where `explain` knows them; else the error as it is."""
    known = explain(error)
    if known is None:
        raise error
    code, line = known
    with contextlib.suppress(OSError):
        print(f"error: {line}" if code < 100 else line, file=sys.stderr)
    sys.exit(code)


def parse_flags(main: Callable[[list[str]], None], argv: Sequence[str]) -> list[str]:
    """What is left of a command line when its flags are read; a bad one, or --help, ends here.

    The flags library has a code and two lines of its own for a bad flag, and sorts flags by name.

    Args:
      main: of the binary; its module's docstring is what help begins with.
      argv: the binary's name, and its arguments.
    """
    asked = wanted(argv)
    if asked is not None:
        _any_alphabet()
        module = main.__module__
        name = f"circuitjax {os.path.basename(argv[0]).removesuffix('.py').split(' ')[-1]}"
        doc = sys.modules[module].__doc__ or ""
        print(help_text(name, doc, own_flags(module), full=asked == "full"))
        sys.exit(CODES["done"])
    try:
        return list(flags.FLAGS(list(argv)))
    except (flags.Error, OSError, ValueError) as error:
        _any_alphabet()
        _end(error)


def run_main(main: Callable[[list[str]], None]) -> None:
    """Runs a binary's `main` on the command line; bad flags end it as all bad input does.

    A binary that was stopped has unwound by the time it gets here, but a computation may still run in
    the compiler's threads: ending the interpreter around them can crash, and hide the exit code.
    """
    try:
        app.run(main, flags_parser=functools.partial(parse_flags, main))
    except SystemExit as ended:
        if ended.code in (CODES["Ctrl-C"], CODES["SIGTERM"]):
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(ended.code)
        raise


def _without_device(error: BaseException) -> BaseException:
    """The missing device, if that is why JAX gave up in words of its own."""
    if isinstance(error, RuntimeError | AssertionError):
        try:
            check_device()
        except NoDeviceError as missing:
            return missing
    return error
