"""Orbax, in one place: arrays of a pytree to a directory and back.

A step is written to a temporary name and renamed when complete (Orbax does that), so a crash leaves
either the old checkpoints or the new one, never half of one.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from circuitjax.core.files import write_bytes, write_json

__all__ = [
    "latest_step",
    "load_arrays",
    "load_step",
    "save_arrays",
    "save_step",
    "write_bytes",
    "write_json",
]

# Beside Orbax's own files: what each of them weighs.
_SIZES = "sizes.json"


def _path(directory: str | os.PathLike[str]) -> pathlib.Path:
    return pathlib.Path(directory).absolute()


def save_arrays(directory: str | os.PathLike[str], tree: Any) -> None:
    """Writes a pytree of arrays to a new directory, atomically; an existing one is replaced."""
    target = _path(directory)
    tree = jax.tree.map(np.asarray, tree)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        ocp.save(target, tree)
        _note_sizes(target)
        return
    # Orbax would remove the old one first; here it stays until the new one is complete.
    new, old = (target.with_name(f".{target.name}.{word}") for word in ("new", "old"))
    ocp.save(new, tree, overwrite=True)
    _note_sizes(new)
    if jax.process_index() == 0:
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old)


def _sizes(directory: pathlib.Path) -> dict[str, int]:
    """Size in bytes of every file of a checkpoint, but for the record of them."""
    return {
        str(path.relative_to(directory)): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != _SIZES
    }


def _note_sizes(directory: pathlib.Path) -> None:
    if jax.process_index() == 0:
        write_json(directory / _SIZES, _sizes(directory))


def _check_sizes(directory: pathlib.Path) -> None:
    """Refuses a checkpoint whose files were cut, before threads read them and each complains."""
    record = directory / _SIZES
    if not record.exists():
        return
    noted, found = json.loads(record.read_text(encoding="utf-8")), _sizes(directory)
    for name, size in noted.items():
        if found.get(name) != size:
            held = f"{found[name]} bytes" if name in found else "missing"
            raise ValueError(f"its file {name} is {held}, {size} bytes were written")


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
        raise ValueError(f"no checkpoint at {source}")
    # NumPy leaves ask Orbax for NumPy arrays: the caller decides where they are placed.
    abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    try:
        _check_sizes(source)
        found = _kinds(ocp.metadata(source).metadata)
        # Orbax itself would hand out what lies there, whatever its shape, and cast its type.
        for name, kind in _kinds(like).items():
            if found.get(name) != kind:
                raise ValueError(f"{name} should be {kind} and is {found.get(name, 'missing')}")
        tree = ocp.load(source, abstract)
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
