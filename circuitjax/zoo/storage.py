"""Compressed storage of a (weight-sparse) model in one `.npz`, exact to the bit, without pickle.

A mostly-zero array is stored as the gaps between its nonzero entries and their float32 values; the
bigram table, which is a function of integer counts, as those counts. Everything else is stored as
it is. `numpy.savez_compressed` does the rest. The record inside names the hashes of content, tokenizer
and means, and is itself covered by one (`core/records.py`); files of earlier versions, the built-in
models' among them, name the content's alone.
"""

import io
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from circuitjax.core.files import cut, one_line, write_bytes
from circuitjax.core.records import opened, seal
from circuitjax.model.bigram import bigram_table
from circuitjax.model.bounds import MOST_WIDTH
from circuitjax.model.record import Model, read_config

__all__ = ["pack", "unpack"]

FORMAT = "circuitjax-packed-2"
_MOST_BYTES = 2**33  # of all arrays unpacked: a file of some bytes can say that it holds more
_SPARSE_BELOW = 0.5  # density under which gaps and values are smaller than the array


def _encode(array: np.ndarray) -> dict[str, np.ndarray]:
    array = np.ascontiguousarray(array)
    where = np.flatnonzero(array.view(np.uint32))  # as bits: a -0.0 is kept
    if len(where) > _SPARSE_BELOW * array.size:
        return {"dense": array}
    gaps = np.diff(where, prepend=0)
    # Gaps are short; the rare long ones are escaped with 65535s, each worth 65535 steps.
    escapes = gaps // 65535
    small = np.full(int(escapes.sum()) + len(gaps), 65535, np.uint16)
    small[np.cumsum(escapes + 1) - 1] = gaps % 65535
    return {"gaps": small, "values": array.ravel()[where], "shape": np.array(array.shape)}


def _decode(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    if "dense" in parts:
        return parts["dense"]
    shape = [int(size) for size in parts["shape"].ravel()]
    if len(shape) > 4 or not all(0 <= size <= MOST_WIDTH for size in shape):
        raise ValueError(f"an array is shaped {cut(shape)}")
    if 4 * math.prod(shape) > _MOST_BYTES:
        raise ValueError(f"an array is shaped {cut(shape)}, more than is read")
    if parts["gaps"].dtype != np.uint16 or parts["values"].dtype.itemsize != 4:
        raise ValueError("an array's gaps or values are of another type")
    small = parts["gaps"].astype(np.int64)
    ends = np.flatnonzero(small != 65535)
    where = np.cumsum(small)[ends]
    array = np.zeros(math.prod(shape), parts["values"].dtype)
    array[where] = parts["values"]
    return array.reshape(shape)


def pack(
    path: str | os.PathLike[str],
    model: Model,
    *,
    counts: np.ndarray | None = None,
    smoothing: float = 1.0,
) -> int:
    """Writes a model to one file, atomically.

    Args:
      path: the `.npz`.
      model: what to store.
      counts: integer bigram counts `[V, V]` from which `params["bigram"]` was made; needed exactly
        when the model has that table.
      smoothing: see `bigram_table`.

    Returns:
      Bytes written.

    Raises:
      ValueError: the table is not the one these counts give, or counts are missing.
    """
    params = dict(model.params)
    arrays: dict[str, np.ndarray] = {}
    if "bigram" in params:
        table = params.pop("bigram")
        if counts is None or not np.array_equal(np.asarray(counts, np.int32), counts):
            raise ValueError("the model has a bigram table: pass the integer counts it is made of")
        if not np.array_equal(bigram_table(counts, smoothing), table):
            raise ValueError("the model's bigram table is not what the counts give: pass its own")
        for part, value in _encode(np.asarray(counts, np.int32)).items():
            arrays[f"counts/{part}"] = value
    leaves = jax.tree_util.tree_flatten_with_path({"params": params, "means": model.means})[0]
    for tree_path, leaf in leaves:
        name = "/".join(str(entry.key) for entry in tree_path)
        for part, value in _encode(np.asarray(leaf, np.float32)).items():
            arrays[f"{name}/{part}"] = value
    record = {
        "format": FORMAT,
        "name": model.name,
        "hash": model.hash,
        "identity": model.identity,
        "means_hash": model.means_hash,
        "config": model.config.to_dict(),
        "smoothing": smoothing,
        "provenance": dict(model.provenance),
    }
    texts = {"record": json.dumps(seal(record)), "tokenizer": model.tokenizer_json}
    for name, text in texts.items():
        arrays[name] = np.frombuffer(text.encode("utf-8"), np.uint8)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    write_bytes(path, packed.getvalue())
    return pathlib.Path(path).stat().st_size


def unpack(path: str | os.PathLike[str]) -> Model:
    """Reads what `pack` wrote.

    Raises:
      ValueError: an unreadable, truncated or foreign file, or one whose content does not match its
        hash: one line.
    """
    try:
        arrays = _read(path)
        record = json.loads(arrays.pop("record").tobytes().decode("utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"its record is {cut(record)}; it must be an object")
        fields = opened(record, "its record", FORMAT, older=(None,))
        tokenizer_json = arrays.pop("tokenizer").tobytes().decode("utf-8")
        config = read_config("its config", fields.object("config").to_dict())
        grouped: dict[str, dict[str, np.ndarray]] = {}
        for name, value in arrays.items():
            stem, part = name.rsplit("/", 1)
            grouped.setdefault(stem, {})[part] = value
        tree: dict[str, Any] = {}
        for stem, parts in grouped.items():
            *folders, leaf = stem.split("/")
            node = tree
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = _decode(parts)
        params = tree["params"]
        if "counts" in tree:
            params["bigram"] = bigram_table(tree["counts"], fields.number("smoothing", 0))
        model = Model(
            name=fields.text("name"),
            config=config,
            params=params,
            tokenizer_json=tokenizer_json,
            means=tree.get("means"),
            provenance=fields.object("provenance").to_dict(),
        )
        expected = fields.text("hash")
        whole = (fields["identity"], fields["means_hash"]) if fields.sealed else None
    except Exception as error:  # zip, NumPy, JSON raise many kinds; all mean the same to the caller
        why = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path} is no readable packed model: {why}") from error
    if model.hash != expected:
        raise ValueError(f"{path} is damaged: its content does not match its hash")
    if whole not in (None, (model.identity, model.means_hash)):
        raise ValueError(f"{path} is damaged: its tokenizer or means do not match its record")
    return model


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a file, once it is known that they fit."""
    with open(path, "rb") as raw, zipfile.ZipFile(raw) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MOST_BYTES:
        raise ValueError(f"unpacked it has {size} bytes, more than the {_MOST_BYTES} that are read")
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
