"""Arrays of a page: rounded to whole numbers of few bits and written as base64.

A number x of a node is stored as round(127 x / s) with s the node's largest magnitude, which a colour
does not tell from x. The page's `data.js` is the reader.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["pack", "pack_scaled"]

_TYPES: Mapping[str, type[np.integer]] = {
    "u1": np.uint8,
    "i1": np.int8,
    "u2": np.uint16,
    "i4": np.int32,
}


def pack(values: Any, kind: str) -> dict[str, Any]:
    """{"type", "shape", "base64"} of whole numbers; little-endian, row by row.

    Args:
      values: any shape; all must fit.
      kind: u1, i1, u2 or i4.

    Raises:
      ValueError: a number that does not fit.
    """
    found, dtype = np.asarray(values), _TYPES[kind]
    limits = np.iinfo(dtype)
    if found.size and (found.min() < limits.min or found.max() > limits.max):
        raise ValueError(f"{found.min()} to {found.max()} do not fit into {kind}")
    raw = np.ascontiguousarray(found, np.dtype(dtype).newbyteorder("<")).tobytes()
    text = base64.b64encode(raw).decode("ascii")
    return {"type": kind, "shape": list(found.shape), "base64": text}


def pack_scaled(values: np.ndarray) -> dict[str, Any]:
    """The same for real numbers `[n, ...]`, and `scale` `[n]`: the largest magnitude of each."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    scale = np.abs(flat).max(axis=1, initial=0.0)
    safe = np.where(scale > 0, scale, 1.0).reshape((-1,) + (1,) * (values.ndim - 1))
    packed = pack(np.rint(127 * values / safe).astype(np.int32), "i1")
    return packed | {"scale": [float(f"{s:.4g}") for s in scale]}
