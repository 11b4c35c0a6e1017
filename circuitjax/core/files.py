"""Files written whole or not at all, and JSON read with bounds.

A file is written under a temporary name, `.NAME.XXXXXXXX.tmp`, and renamed when it is complete. The
writer holds a lock on it meanwhile, so what a killed process left behind can be told from what
another process is writing: the next writer of the same file, and `clean_leftovers`, remove the former.
"""

import errno
import json
import math
import os
import pathlib
import re
import reprlib
import tempfile
from collections.abc import Iterable
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing cleaned
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "MOST_BYTES",
    "clean_leftovers",
    "cut",
    "one_line",
    "parse_json",
    "read_json",
    "read_object",
    "read_text",
    "reason",
    "require_place",
    "write_bytes",
    "write_json",
]

#: A JSON file above this is not read: parsed, it takes up to 25 times its size.
MOST_BYTES = 2**26
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?:\.tmp)?")
_MOST_DIGITS = 40


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 4 * _MOST_DIGITS:  # written out it could be endless
            return f"a whole number of {x.bit_length()} bits"
        return repr(x)


def cut(value: Any, most: int = 120) -> str:
    """A value as an error message shows it: its `repr`, never longer than `most`, never slow."""
    text = _Short().repr(value)
    if not isinstance(value, str):  # text has its line ends escaped, and its blanks are its own
        text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(text: str, most: int = 200) -> str:
    """A name or a text from outside as a message shows it: on one line, never longer than `most`."""
    text = " ".join(text[: 2 * most].split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def reason(error: BaseException, most: int = 300) -> str:
    """What an error says, on one line that is never longer than `most`; its type if it says nothing."""
    return one_line(str(error), most) or type(error).__name__


def read_text(
    path: str | os.PathLike[str], most_bytes: int = MOST_BYTES, *, keep_mark: bool = False
) -> str:
    """The text of a UTF-8 file, as it is, line ends included.

    Args:
      path: the file.
      most_bytes: a larger file is refused.
      keep_mark: whether the mark (BOM) that some editors put first belongs to the text.

    Raises:
      ValueError: no such file, one that cannot be read, is too large or is not UTF-8: one line that
        names it.
    """
    target = pathlib.Path(path)
    try:
        if target.is_file() and target.stat().st_size > most_bytes:
            size = target.stat().st_size
            raise ValueError(f"{target} has {size} bytes, more than the {most_bytes} that are read")
        return target.read_bytes().decode("utf-8" if keep_mark else "utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"there is no file {target}") from None
    except OSError as error:
        raise ValueError(f"cannot read {target}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot read {target}: it is not UTF-8 at byte {error.start}") from None


def _no_constant(word: str) -> float:
    raise ValueError(f"it holds {word}, which is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {text[:40]}, which is too large")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it holds the field {cut(twice)} twice")
    return held


def read_json(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> Any:
    """The value a JSON file holds; stricter than `json.load`.

    Raises:
      ValueError: see `read_text`; also text that is cut or no JSON, nested too deep, with NaN or
        infinities, or with a field twice: one line that names the file.
    """
    return parse_json(read_text(path, most_bytes), os.fspath(path))


def parse_json(text: str, where: str) -> Any:
    """`read_json` for text that was read from elsewhere; `where` is what messages call it."""
    try:
        return json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once
        )
    except RecursionError:
        raise ValueError(f"{where} is no JSON that is read: it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{where} is not JSON, or was cut: {str(error)[:200]}") from None


def read_object(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object a file holds; raises ValueError, see `read_json`, if it holds none."""
    value = read_json(path, most_bytes)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}; it must be an object")
    return value


def require_place(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Refuses, before any work, a place where nothing can be written; nothing is left there.

    Args:
      path: of a file to write, or of a folder.
      folder: which of them.

    Raises:
      ValueError: a folder where a file belongs or the other way round, a place below a file, one that
        this user may not write: one line that names it.
    """
    target = pathlib.Path(path).absolute()
    if target.exists() and target.is_dir() != folder:
        found, wanted = ("file", "directory") if folder else ("directory", "file")
        raise ValueError(f"{path} is a {found}: choose another --out, a {wanted}")
    above = target if folder else target.parent
    while not above.exists():
        if above.is_symlink():
            raise ValueError(f"{path}: {above} is a link to nothing: choose another --out")
        above = above.parent
    if not above.is_dir():
        raise ValueError(f"{path} lies below a file, {above}: choose another --out")
    try:
        # The only sure question: for the superuser, and below /proc, permissions say nothing.
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE):
            raise
        known = {errno.EROFS: "its disk is read only", errno.EACCES: "this user may not"}
        why = known.get(error.errno or errno.EACCES, error.strerror)
        raise ValueError(
            f"{cut(str(path))}: nothing can be written in {above} ({why}): choose another --out"
        ) from None


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON atomically; see `write_bytes`."""
    text = json.dumps(value, indent=1, sort_keys=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Writes a file atomically: to a temporary file beside it, then renamed."""
    target = pathlib.Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(p for p in _leftovers(target.parent) if p.name.startswith(f".{target.name}."))
    handle, name = _temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()  # whole before it has the name: a small file waits in memory until then
            os.chmod(name, 0o644)
            os.replace(name, target)  # still locked: nobody takes it for a leftover
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def _temporary(target: pathlib.Path) -> tuple[int, str]:
    """An open, locked file beside the target."""
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        # Another process may have taken it for a leftover before it was locked.
        if _lock(handle) and (fcntl is None or os.fstat(handle).st_nlink == 1):
            return handle, name
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether a file is held by nobody else; a file system without locks counts as that."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _leftovers(directory: pathlib.Path) -> list[pathlib.Path]:
    try:
        with os.scandir(directory) as entries:
            names = [e.name for e in entries if e.name[0] == "." and _LEFTOVER.fullmatch(e.name)]
    except OSError:
        return []
    return [directory / name for name in names]


def _remove_dead(paths: Iterable[pathlib.Path]) -> None:
    for path in paths:
        if fcntl is None or path.is_symlink() or not path.is_file():
            continue
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            if _lock(handle):
                path.unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(handle)


def clean_leftovers(directory: str | os.PathLike[str], names: Iterable[str] | None = None) -> None:
    """Removes what killed writers left in a directory, not below it; what is being written stays.

    Args:
      directory: where; nothing happens if there is none.
      names: of the files that were being written; None means every one.
    """
    wanted = None if names is None else set(names)
    found = _leftovers(pathlib.Path(directory))
    _remove_dead(
        p
        for p in found
        if wanted is None or _LEFTOVER.fullmatch(p.name)["name"] in wanted  # type: ignore[index]
    )
