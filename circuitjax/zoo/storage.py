"""Compressed storage of a (weight-sparse) model in one `.npz`, exact to the bit, without pickle.

A mostly-zero array is stored as the gaps between its nonzero entries and their float32 values; the
bigram table, which is a function of integer counts, as those counts. Everything else is stored as
it is. `numpy.savez_compressed` does the rest.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from circuitjax.model.bigram import bigram_table
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model

__all__ = ["pack", "unpack"]

_SPARSE_BELOW = 0.5  # density under which gaps and values are smaller than the array


def _encode(array: np.ndarray) -> dict[str, np.ndarray]:
    array = np.ascontiguousarray(array)
    where = np.flatnonzero(array.view(np.uint32))  # as bits: a -0.0 is kept
    if len(where) > _SPARSE_BELOW * array.size:
        return {"dense": array}
    gaps = np.diff(where, prepend=0)
    # Gaps are short; the rare long ones are escaped with 65535s, each worth 65535 steps.
    escapes = gaps // 65535
    small = np.repeat(65535, escapes.sum() + len(gaps)).astype(np.uint16)
    small[np.cumsum(escapes + 1) - 1] = gaps % 65535
    return {"gaps": small, "values": array.ravel()[where], "shape": np.array(array.shape)}


def _decode(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    if "dense" in parts:
        return parts["dense"]
    small = parts["gaps"].astype(np.int64)
    ends = np.flatnonzero(small != 65535)
    where = np.cumsum(small)[ends]
    array = np.zeros(int(np.prod(parts["shape"])), parts["values"].dtype)
    array[where] = parts["values"]
    return array.reshape(parts["shape"])


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
        "name": model.name,
        "hash": model.hash,
        "config": model.config.to_dict(),
        "smoothing": smoothing,
        "provenance": dict(model.provenance),
    }
    texts = {"record": json.dumps(record), "tokenizer": model.tokenizer_json}
    for name, text in texts.items():
        arrays[name] = np.frombuffer(text.encode("utf-8"), np.uint8)
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(temporary, target)
    return target.stat().st_size


def unpack(path: str | os.PathLike[str]) -> Model:
    """Reads what `pack` wrote.

    Raises:
      ValueError: an unreadable, truncated or foreign file, or one whose content does not match its
        hash: one line.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(arrays.pop("record").tobytes().decode("utf-8"))
        tokenizer_json = arrays.pop("tokenizer").tobytes().decode("utf-8")
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
            params["bigram"] = bigram_table(tree["counts"], record["smoothing"])
        model = Model(
            name=record["name"],
            config=TransformerConfig.from_dict(record["config"]),
            params=params,
            tokenizer_json=tokenizer_json,
            means=tree.get("means"),
            provenance=record["provenance"],
        )
        expected = record["hash"]
    except (
        Exception
    ) as error:  # zip, NumPy, JSON raise many kinds; all mean the same to the caller.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{path} is no readable packed model: {reason}") from error
    if model.hash != expected:
        raise ValueError(f"{path} is damaged: its content does not match its hash")
    return model
