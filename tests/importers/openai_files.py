"""Folders of the released weight-sparse format, written by hand: instruction by instruction."""

import json
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

STORAGE = {
    "float32": b"FloatStorage",
    "float16": b"HalfStorage",
    "float64": b"DoubleStorage",
    "int64": b"LongStorage",
    "complex64": b"ComplexFloatStorage",
}


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def several(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def tensor(key: str, array: np.ndarray, **changes: Any) -> bytes:
    """The instructions that describe a contiguous tensor whose storage is called `key`."""
    strides = [step // array.itemsize for step in array.strides]
    of = {"offset": 0, "shape": array.shape, "strides": strides, "size": array.size, **changes}
    kind = b"ctorch\n" + STORAGE[array.dtype.name] + b"\n"
    storage = several(text("storage"), kind, text(key), text("cpu"), number(of["size"])) + b"Q"
    shape, steps = (several(*map(number, of[name])) for name in ("shape", "strides"))
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = several(storage, number(of["offset"]), shape, steps, b"\x89", hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def dictionary(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def write_archive(
    path: pathlib.Path,
    pickle: bytes,
    storages: Mapping[str, bytes],
    compression: int = zipfile.ZIP_STORED,
    root: str = "final_model",
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickle)
        archive.writestr(f"{root}/byteorder", "little")
        for key, raw in storages.items():
            archive.writestr(f"{root}/data/{key}", raw)
        archive.writestr(f"{root}/version", "3\n")


def write_state(path: pathlib.Path, state: Mapping[str, np.ndarray]) -> None:
    """A checkpoint of these tensors; those that are one array share a storage, as tied ones do."""
    keys = {id(array): str(index) for index, array in enumerate(state.values())}
    entries = {name: tensor(keys[id(array)], array) for name, array in state.items()}
    storages = {keys[id(array)]: array.tobytes() for array in state.values()}
    write_archive(path, pickled(dictionary(entries)), storages)


def write_folder(
    folder: pathlib.Path, fields: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "beeg_config.json").write_text(json.dumps(dict(fields)))
    write_state(folder / "final_model.pt", state)
    return folder


def write_tokenizer(folder: pathlib.Path, vocab: Mapping[str, int], merges: Any) -> None:
    """A BPE tokenizer in GPT-2's two files, the end of text left out of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = {token: number for token, number in vocab.items() if token != "<|endoftext|>"}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    lines = [
        "#version: 0.2",
        *(pair if isinstance(pair, str) else " ".join(pair) for pair in merges),
    ]
    (folder / "vocab.bpe").write_text("\n".join(lines) + "\n")
