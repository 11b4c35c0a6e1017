"""Rows of tokens from any folder of text: what means are taken over where no corpus was built.

Every file below the folder that is UTF-8 text counts, in a random order of the seed, once; hidden
files and folders do not. Texts follow each other, each behind its beginning token, and are cut into
rows, each behind one of its own, without padding.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from circuitjax.core.files import read_text
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["text_files", "text_rows"]

_LARGEST = 64 * 2**20  # bytes of one file
_LOOKED_AT = 4096  # bytes that tell whether a file is text


def text_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of text below a folder, by name.

    Raises:
      ValueError: no folder, or none with text in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: name one that holds text")
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and _is_text(path)
    ]
    if not found:
        raise ValueError(f"{folder} holds no file of UTF-8 text: name a folder that does")
    return found


def _is_text(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and b"\0" not in start  # cut within a character
    except OSError:
        return False
    return bool(start) and b"\0" not in start


def text_rows(
    files: Sequence[pathlib.Path], tokenizer_json: str, batch_size: int, length: int, seed: int
) -> Iterator[np.ndarray]:
    """Rows of all files, once: int32 `[B, T]` each, the last with fewer rows.

    Args:
      files: as from `text_files`.
      tokenizer_json: the model's tokenizer.
      batch_size: B, at most.
      length: T, at least 2.
      seed: of the order of files.

    Raises:
      ValueError: no tokenizer, a file that cannot be read, or less text than one row.
    """
    if not tokenizer_json:
        raise ValueError("the model has no tokenizer: text cannot be encoded for it")
    tokenizer = Tokenizer.from_json(tokenizer_json)
    order = np.random.default_rng(seed).permutation(len(files))
    rows: list[list[int]] = []
    waiting: list[int] = []
    made = 0
    for index in order:
        text = read_text(files[index], _LARGEST)
        waiting += [tokenizer.bos_id, *tokenizer.encode(text)]
        start = 0
        while len(waiting) - start >= length:
            # A row that begins within a text has a beginning token in front.
            begins = waiting[start] == tokenizer.bos_id
            stop = start + (length if begins else length - 1)
            rows.append(([] if begins else [tokenizer.bos_id]) + waiting[start:stop])
            start = stop
            if len(rows) == batch_size:
                yield np.array(rows, np.int32)
                made, rows = made + len(rows), []
        waiting = waiting[start:]
    if rows:
        yield np.array(rows, np.int32)
    if not made and not rows:
        raise ValueError(f"{len(files)} files hold less than one row of {length} tokens of text")
