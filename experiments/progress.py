"""What a binary says besides its result: progress with the time left, and what to do next.

With --quiet it says none of this. Results, warnings and errors are always shown.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from absl import flags
from tqdm import tqdm

__all__ = ["LINES", "TABLE", "bar", "counted", "say", "tell_next"]

#: What to do with measurements, for `tell_next`.
TABLE = "docs/results.md holds the last such table, with its command; --out keeps this one"
LINES = (
    "compare two versions by running them alternately, three times each, on a machine left alone"
)

_EVERY = 60.0  # seconds between two lines
_QUIET = flags.DEFINE_bool("quiet", False, "Show the result and errors alone: no progress.")


def say(line: str) -> None:
    """A line of progress, past a bar if there is one; warnings go to stderr, and are never left out."""
    if line.startswith("warning: "):
        tqdm.write(line, file=sys.stderr)
    elif not _QUIET.value:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def tell_next(*commands: str, file: TextIO | None = None) -> None:
    """The last lines of a binary: what one may do with what it made.

    Args:
      commands: one a line; words are as good.
      file: stderr, where stdout is for other programs to read.
    """
    if not _QUIET.value:
        for line in commands:
            print(f"  next: {line}", file=file)


class _Lines:
    """What stands for a bar where nobody sees one move: a line a minute, in a log."""

    def __init__(self, total: int, unit: str) -> None:
        self.n, self._total, self._unit, self._told = 0, total, unit, ""
        self._began = self._last = time.monotonic()
        self._first: int | None = None  # of what an earlier process had done, which is told at once

    def update(self, more: int = 1) -> None:
        """So many are done."""
        self.n, now = self.n + more, time.monotonic()
        if self._first is None:
            at_once = now - self._began < _EVERY
            self._first, self._began = (self.n, now) if at_once else (0, self._began)
        if now - self._last < _EVERY or self.n >= self._total or self.n == self._first:
            return
        self._last = now
        left = (now - self._began) / (self.n - self._first) * (self._total - self.n)
        told = f"  ({self._told})" if self._told else ""
        say(f"{self._unit} {self.n} of {self._total}, about {_duration(left)} left{told}")

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """What to say besides."""
        self._told = text

    def set_postfix(self, told: Mapping[str, Any], refresh: bool = True) -> None:
        """Likewise."""
        self._told = " ".join(f"{name} {value}" for name, value in told.items())


@contextlib.contextmanager
def bar(total: int, unit: str, *, leave: bool = False) -> Iterator["tqdm | _Lines"]:
    """A bar with the time left, on a terminal; elsewhere a line a minute.

    Args:
      total: of units.
      unit: its name.
      leave: whether the bar stays when it is full.
    """
    if not sys.stderr.isatty():
        yield _Lines(total, unit)
        return
    with tqdm(total=total, unit=unit, disable=_QUIET.value, mininterval=1, leave=leave) as shown:
        yield shown


class _Counted:
    """See `counted`."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._began = total, 0, time.monotonic()

    def __call__(self, line: str) -> None:
        """One more is done, about which there is this to say."""
        self._done += 1
        left = self._total - self._done
        seconds = (time.monotonic() - self._began) / self._done * left
        told = f", about {_duration(seconds)} left" if left > 0 else ""
        say(f"{line}  ({self._done} of {self._total}{told})")


def counted(total: int) -> _Counted:
    """Says what is done, how many of `total` that are, and about how long the rest takes."""
    return _Counted(total)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
