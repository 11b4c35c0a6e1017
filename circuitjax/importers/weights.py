"""The weights of a snapshot folder: safetensors in one file or in shards, or a PyTorch zip.

Files are memory-mapped and tensors read one at a time.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from circuitjax.core.files import cut, reason
from circuitjax.importers.jsonfile import read_object
from circuitjax.importers.state_dict import StateDict, open_state_dict

__all__ = ["SnapshotWeights", "open_weights"]

_LONGEST_NAME = 255  # bytes of a file's name
_ONE, _INDEX, _TORCH = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
_TYPES = ("F32", "F16", "BF16")


class SnapshotWeights:
    """Open safetensors files; see `family.Weights`.

    Attributes:
      path: the one file, or the index of several.
      files: {file: its open handle}.
    """

    def __init__(self, path: pathlib.Path, files: dict[pathlib.Path, Any]) -> None:
        self.path, self.files = path, files
        self.types: set[str] = set()
        self._where: dict[str, pathlib.Path] = {}
        for file, handle in files.items():
            for name in handle.keys():  # noqa: SIM118 - it is no mapping
                if name in self._where:
                    raise ValueError(
                        f"{path}: both {self._where[name].name} and {file.name} hold {name}"
                    )
                self._where[name] = file

    def names(self) -> list[str]:
        """The tensors' names."""
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        with _one_line(self._where[name]):
            return tuple(self._handle(name).get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """A tensor as finite float32 numbers."""
        file = self._where[name]
        with _one_line(file):
            kind = self._handle(name).get_slice(name).get_dtype()
            if kind in _TYPES:
                value = np.asarray(self._handle(name).get_tensor(name)).astype(np.float32)
        if kind not in _TYPES:
            raise ValueError(f"{file}: tensor {name} is {kind}; only {_TYPES} are read")
        if not np.isfinite(value).all():
            raise ValueError(f"{file}: tensor {name} holds values that are not finite")
        self.types.add(str(kind))
        return value

    def _handle(self, name: str) -> Any:
        return self.files[self._where[name]]


class TorchWeights:
    """An open PyTorch zip; see `family.Weights`."""

    def __init__(self, path: pathlib.Path, state: StateDict) -> None:
        self.path, self._state = path, state
        self.types: set[str] = set()

    def names(self) -> list[str]:
        """The tensors' names."""
        return list(self._state.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return tuple(self._state.entries[name].shape)

    def read(self, name: str) -> np.ndarray:
        """A tensor as finite float32 numbers."""
        self.types.add(self._state.entries[name].dtype)
        return self._state.read(name)


@contextlib.contextmanager
def open_weights(root: pathlib.Path) -> Iterator[tuple[SnapshotWeights | TorchWeights, str]]:
    """Opens the weights of a snapshot folder, and gives their sha256 (of shards: of theirs in order).

    Raises:
      ValueError: no weights, or a file that is missing, cut or damaged: one line that names it.
    """
    if not (root / _ONE).exists() and not (root / _INDEX).exists() and (root / _TORCH).exists():
        with open_state_dict(root / _TORCH) as state:
            yield TorchWeights(root / _TORCH, state), _digest(root / _TORCH)
        return
    path = root / (_INDEX if (root / _INDEX).exists() and not (root / _ONE).exists() else _ONE)
    names = _shards(path) if path.name == _INDEX else [_ONE]
    with contextlib.ExitStack() as stack:
        files, digests = {}, []
        for file in (root / name for name in names):
            if not file.is_file():
                of = f", which {path.name} asks for" if path.name == _INDEX else ""
                raise ValueError(f"there is no file {file}{of}: the folder must hold all weights")
            digests.append(_digest(file))
            with _one_line(file):
                files[file] = stack.enter_context(safe_open(file, framework="numpy"))
        joined = digests[0]
        if len(digests) > 1:
            joined = hashlib.sha256("".join(digests).encode()).hexdigest()
        yield SnapshotWeights(path, files), joined


def _shards(path: pathlib.Path) -> list[str]:
    """Names of the files that an index speaks of."""
    table = read_object(path).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ValueError(f"{path}: weight_map is missing or empty")
    names = sorted({str(name) for name in table.values()})
    for name in names:
        if pathlib.PurePath(name).name != name or len(name) > _LONGEST_NAME:
            raise ValueError(f"{path}: {cut(name)} is no file of this folder")
    return names


def _digest(path: pathlib.Path) -> str:
    with _one_line(path), path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


@contextlib.contextmanager
def _one_line(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None
