"""Floor 8: short binaries that read like recipes."""

import os
import signal
import sys
from types import TracebackType

_before = sys.excepthook


def _stopped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        # By the number: a binary that is stopped while it imports has nothing to say yet.
        print("stopped by Ctrl-C before it began", file=sys.stderr)
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)
    if issubclass(kind, BrokenPipeError):  # `--help | head`
        os._exit(141)
    _before(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # `python -m experiments.NAME` imports for seconds before `main` runs
    sys.excepthook = _stopped
