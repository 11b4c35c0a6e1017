"""What every binary shares: bad input ends with one clear line and exit code 2."""

import functools
import sys
from collections.abc import Callable

from absl import logging

__all__ = ["exit_on_bad_input"]


def exit_on_bad_input(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Turns ValueError, and a run that left the finite numbers, into one line on stderr."""

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax and JAX tell a newcomer more than they ask
        try:
            if len(argv) > 1:
                raise ValueError(f"unexpected argument {argv[1]!r}: all options are --flags")
            main(argv)
        except (ValueError, FloatingPointError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2 if isinstance(error, ValueError) else 1)

    return wrapped
