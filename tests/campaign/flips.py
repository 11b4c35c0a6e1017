"""One bit of a file flipped, and what reading it says then."""

import contextlib
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["flip", "is_refused"]


@contextlib.contextmanager
def flip(path: pathlib.Path, rng: random.Random) -> Iterator[str]:
    """One bit of a file that is not empty is another one meanwhile; yields where."""
    raw = path.read_bytes()
    place, bit = rng.randrange(len(raw)), rng.randrange(8)
    path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :])
    yield f"{path}, byte {place}, bit {bit}"
    path.write_bytes(raw)


def is_refused(read: Callable[[], Any], expected: Any, where: str) -> bool:
    """Whether what was flipped is refused, in one line; else it has to be read as it was before."""
    try:
        found = read()
    except ValueError as error:
        said = str(error)
        if "\n" in said or len(said) > 1000 + len(where):
            raise AssertionError(f"{where}: {said}") from error
        return True
    except Exception as error:
        raise AssertionError(f"{where}: {error!r}") from error
    assert found == expected, f"{where}: read as something else"
    return False
