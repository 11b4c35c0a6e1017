"""PyTorch's checkpoint files (`torch.save`, since 1.6) without PyTorch, and without running them.

Such a file is an uncompressed zip archive: `NAME/data.pkl` describes the tensors (`state_pickle.py`),
`NAME/data/KEY` holds the bytes of each storage, in the byte order that `NAME/byteorder` says.
"""

import contextlib
import math
import pathlib
import types
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from circuitjax.core.files import cut, one_line
from circuitjax.importers.state_pickle import MOST_PICKLE, TensorEntry, read_entries

__all__ = ["READABLE", "StateDict", "open_state_dict"]

READABLE = ("float32", "float16", "bfloat16")
_BYTES = types.MappingProxyType({"float32": 4, "float16": 2, "bfloat16": 2})


class StateDict:
    """An open checkpoint.

    Attributes:
      entries: {tensor: its type, shape and place}; nothing but that has been read yet.
    """

    def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._root = _root(archive)
        if f"{self._root}byteorder" in archive.namelist():
            order = self._small("byteorder", 99)
            if order != b"little":
                raise ValueError(f"its byte order is {order[:20]!r}; only little endian is read")
        self.entries: Mapping[str, TensorEntry] = read_entries(self._small("data.pkl", MOST_PICKLE))

    def _small(self, part: str, most: int) -> bytes:
        """A part of the archive that has at most so many bytes."""
        size = self._archive.getinfo(f"{self._root}{part}").file_size
        if size > most:
            raise ValueError(
                f"its part {part} has {size} bytes, more than the {most} that are read"
            )
        return self._archive.read(f"{self._root}{part}")

    def check_type(self, name: str) -> None:
        """Raises ValueError unless `read` knows the type of a tensor."""
        kind = self.entries[name].dtype
        if kind not in READABLE:
            kinds = ", ".join(READABLE)
            raise ValueError(
                f"{self._path}: tensor {one_line(name)} is {kind}; only {kinds} are read"
            )

    def read(self, name: str) -> np.ndarray:
        """A tensor as a float32 array; 16-bit numbers become the same numbers in 32.

        Raises:
          ValueError: another type, damaged bytes, or values that are not finite: one line.
        """
        self.check_type(name)
        entry = self.entries[name]
        with _one_line(self._path):
            raw = self._archive.read(f"{self._root}data/{entry.storage}")
            values = _view(entry, raw)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self._path}: tensor {one_line(name)} holds values that are not finite"
            )
        return values


@contextlib.contextmanager
def open_state_dict(path: pathlib.Path) -> Iterator[StateDict]:
    """Opens a checkpoint that holds one state dict.

    Raises:
      ValueError: no file, or one that is truncated, damaged, of another kind, or that would have run
        code: one line that names it.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with contextlib.ExitStack() as stack:
        with _one_line(path):
            if not zipfile.is_zipfile(path):
                raise ValueError("it is no complete zip archive, as torch.save writes since 1.6")
            archive = stack.enter_context(zipfile.ZipFile(path))
            checkpoint = StateDict(path, archive)
        yield checkpoint


@contextlib.contextmanager
def _one_line(path: pathlib.Path) -> Iterator[None]:
    """Whatever goes wrong with the file is a ValueError of one line."""
    try:
        yield
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"cannot read {path}: {reason}") from None


def _root(archive: zipfile.ZipFile) -> str:
    """The folder that holds everything, with its slash."""
    names = archive.namelist()
    found = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1 or len(set(names)) < len(names):
        raise ValueError("the archive is not laid out as torch.save does")
    for member in archive.infolist():
        # Stored as it is, a file can make no more bytes than it has.
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(
                f"its part {cut(member.filename)} is compressed, which torch.save never does"
            )
    return found[0].removesuffix("data.pkl")


def _view(entry: TensorEntry, raw: bytes) -> np.ndarray:
    """The tensor's numbers, float32, from the bytes of its storage."""
    width = _BYTES[entry.dtype]
    if len(raw) != entry.storage_size * width:
        raise ValueError(
            f"its storage {cut(entry.storage)} has {len(raw)} bytes, {entry.storage_size * width} "
            "belong there: it is truncated"
        )
    size = math.prod(entry.shape)
    steps = zip(entry.shape, entry.strides, strict=True)
    last = entry.offset + sum((count - 1) * step for count, step in steps)
    if size > entry.storage_size or (size and last >= entry.storage_size):
        raise ValueError(f"a tensor of shape {entry.shape} reaches beyond its storage")
    if entry.dtype == "bfloat16":  # the upper half of a float32
        flat = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        flat = np.frombuffer(raw, "<f4" if entry.dtype == "float32" else "<f2")
    strides = tuple(step * flat.itemsize for step in entry.strides)
    view = np.lib.stride_tricks.as_strided(
        flat[entry.offset :], entry.shape, strides, writeable=False
    )
    return view.astype(np.float32, copy=False)
