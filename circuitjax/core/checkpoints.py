"""Orbax, in one place: arrays of a pytree to a directory and back.

A checkpoint is written to a temporary name and renamed when it is complete, with the record of its
files' hashes, so a crash leaves either the old checkpoints or the new one: never half of one, and none
that cannot be checked.
"""

import hashlib
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from circuitjax.core.files import read_object, write_bytes, write_json
from circuitjax.core.host import check_device
from circuitjax.core.records import Fields, open_sealed, seal

__all__ = [
    "is_intact",
    "latest_step",
    "load_arrays",
    "load_step",
    "save_arrays",
    "save_step",
    "write_bytes",
    "write_json",
]

# Beside Orbax's own files: the size and the hash of each. Earlier versions noted sizes alone.
_NOTED, _FORMAT = "files.json", "circuitjax-files-1"
_SIZES = "sizes.json"


def _path(directory: str | os.PathLike[str]) -> pathlib.Path:
    return pathlib.Path(directory).absolute()


def save_arrays(directory: str | os.PathLike[str], tree: Any) -> None:
    """Writes a pytree of arrays to a new directory, atomically; an existing one is replaced."""
    target = _path(directory)
    tree = jax.tree.map(np.asarray, tree)
    target.parent.mkdir(parents=True, exist_ok=True)
    new, old = (target.with_name(f".{target.name}.{word}") for word in ("new", "old"))
    # It gets its name once it is complete, with the record of its files; the old one stays until then.
    ocp.save(new, tree, overwrite=True)
    if jax.process_index() != 0:
        return
    _note(new)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)  # also that of a writer killed between the renames above


def _sizes(directory: pathlib.Path) -> dict[str, int]:
    """Size in bytes of every file of a checkpoint, but for the record of them."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in (_NOTED, _SIZES)
    }


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(directory: pathlib.Path) -> None:
    files = {
        name: {"bytes": size, "sha256": _sha256(directory / name)}
        for name, size in _sizes(directory).items()
    }
    write_json(directory / _NOTED, seal({"format": _FORMAT, "files": files}))


def _check(directory: pathlib.Path) -> None:
    """Refuses a checkpoint whose files were cut or changed, before Orbax reads any of them."""
    record, sizes = directory / _NOTED, _sizes(directory)
    hashes: dict[str, str] = {}
    if record.exists():
        files = open_sealed(record, _FORMAT).object("files")
        noted = {}
        for name in files.to_dict():
            noted[name] = files.object(name).whole("bytes", 0)
            hashes[name] = files.object(name).text("sha256")
    elif (directory / _SIZES).exists():
        fields = Fields(read_object(directory / _SIZES), _SIZES)
        noted = {name: fields.whole(name, 0) for name in fields.to_dict()}
    else:
        return
    for name, size in noted.items():
        if sizes.get(name) != size:
            held = f"{sizes[name]} bytes" if name in sizes else "missing"
            raise ValueError(f"its file {name} is {held}, {size} bytes were written")
    for name, digest in hashes.items():
        if _sha256(directory / name) != digest:
            raise ValueError(f"its file {name} was changed after it was written")


def load_arrays(directory: str | os.PathLike[str], like: Any) -> Any:
    """Reads what `save_arrays` wrote.

    Args:
      directory: where it lies.
      like: a pytree of arrays or shape structs with the expected structure, shapes and types.

    Raises:
      ValueError: nothing there, truncated or foreign content, or other shapes: one line.
    """
    source = _path(directory)
    if not source.is_dir():
        held = source.with_name(f".{source.name}.old")  # killed while it was being replaced
        if not held.is_dir():
            raise ValueError(f"no checkpoint at {source}")
        source = held
    check_device()  # a missing device is no fault of the checkpoint
    try:
        _check(source)
        found = _kinds(ocp.metadata(source).metadata)
        # Orbax itself would hand out what lies there, whatever its shape, and cast its type.
        for name, kind in _kinds(like).items():
            if found.get(name) != kind:
                raise ValueError(f"{name} should be {kind} and is {found.get(name, 'missing')}")
        # NumPy leaves ask Orbax for NumPy arrays: the caller decides where they are placed.
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        tree = ocp.load(source, abstract)
    except MemoryError:
        raise
    except Exception as error:  # Orbax raises many kinds; all mean the same to the caller.
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise ValueError(f"cannot read the checkpoint {source}: {reason}") from error
    return jax.tree.map(np.asarray, tree)


def _kinds(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def latest_step(directory: str | os.PathLike[str]) -> int | None:
    """The last complete step below a directory, or None."""
    root = _path(directory)
    steps = [int(p.name[5:]) for p in root.glob("step_*") if p.name[5:].isdigit()]
    return max(steps) if steps else None


def is_intact(directory: str | os.PathLike[str]) -> bool:
    """Whether the files of the last step below a directory, if there is one, are those written."""
    step = latest_step(directory)
    try:
        if step is not None:
            _check(_path(directory) / f"step_{step}")
    except ValueError:
        return False
    return True


def save_step(directory: str | os.PathLike[str], step: int, tree: Any, keep: int = 2) -> None:
    """Writes one step of a run and removes all but the last `keep`."""
    root = _path(directory)
    save_arrays(root / f"step_{step}", tree)
    steps = sorted(int(p.name[5:]) for p in root.glob("step_*") if p.name[5:].isdigit())
    for old in steps[:-keep]:
        shutil.rmtree(root / f"step_{old}", ignore_errors=True)


def load_step(directory: str | os.PathLike[str], step: int, like: Any) -> Any:
    """Reads one step that `save_step` wrote; see `load_arrays`."""
    return load_arrays(_path(directory) / f"step_{step}", like)
