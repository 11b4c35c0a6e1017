"""Readers of other programs' models: good snapshots and GGUF files, and inputs made from them."""

import json
import pathlib
import random
import struct
from collections.abc import Callable
from typing import Any

from circuitjax.importers.gguf_file import import_gguf
from circuitjax.importers.snapshot import import_snapshot
from circuitjax.model.record import Model
from tests.campaign.mutations import changed_bytes, changed_value, nasty, written
from tests.importers.families import snapshot
from tests.importers.test_gguf import write

__all__ = ["READERS"]

Feed = Callable[[random.Random], Callable[[], Any]]


def _changed_header(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with another header, of the right length."""
    length = struct.unpack("<Q", data[:8])[0]
    header = changed_value(rng, json.loads(data[8 : 8 + length]))
    text = json.dumps(header).encode()
    told = len(text) if rng.random() < 0.9 else rng.choice((0, 2**20, 2**40, 2**63))
    return struct.pack("<Q", told) + text + data[8 + length :]


def _snapshot(name: str) -> Callable[[pathlib.Path, Model], Feed]:
    def reader(root: pathlib.Path, _: Model) -> Feed:
        folder = snapshot(root, name)
        goods = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        goods.pop("reference.npz", None)

        def feed(rng: random.Random) -> Callable[[], Any]:
            for file, data in goods.items():
                (folder / file).write_bytes(data)
            index = folder / "model.safetensors.index.json"
            index.unlink(missing_ok=True)
            draw = rng.random()
            if draw < 0.5:
                value = changed_value(rng, json.loads(goods["config.json"]))
                (folder / "config.json").write_bytes(written(rng, value))
            elif draw < 0.7:
                data = _changed_header(rng, goods["model.safetensors"])
                (folder / "model.safetensors").write_bytes(data)
            elif draw < 0.8:
                data = changed_bytes(rng, goods["model.safetensors"])
                (folder / "model.safetensors").write_bytes(data)
            elif draw < 0.93:
                value = changed_value(rng, json.loads(goods["tokenizer.json"]))
                (folder / "tokenizer.json").write_bytes(written(rng, value))
            else:
                (folder / "model.safetensors").rename(folder / "part.safetensors")
                weights = {"model.embed_tokens.weight": "part.safetensors", "x": "../../etc/passwd"}
                value = changed_value(rng, {"metadata": {}, "weight_map": weights})
                index.write_bytes(written(rng, value))
            return lambda: import_snapshot(folder)

        return feed

    return reader


def _gguf(root: pathlib.Path, _: Model) -> Feed:
    path = write(root / "m.gguf", "llama", "llama")
    good = path.read_bytes()
    head = good.index(b"token_embd.weight")  # most of what is read lies before the tensors

    def feed(rng: random.Random) -> Callable[[], Any]:
        draw = rng.random()
        if draw < 0.7:
            data = changed_bytes(rng, good[:head]) + good[head:]
        elif draw < 0.8:  # a number of eight bytes, somewhere in the head
            place = rng.randrange(4, head - 8)
            number = nasty(rng)
            number = number if type(number) is int else rng.getrandbits(64)
            data = good[:place] + struct.pack("<Q", number % 2**64) + good[place + 8 :]
        else:
            data = changed_bytes(rng, good)
        path.write_bytes(data)
        return lambda: import_gguf(path)

    return feed


READERS: dict[str, Callable[[pathlib.Path, Model], Feed]] = {
    "neox": _snapshot("gpt_neox"),
    "llama": _snapshot("llama3"),
    "gemma": _snapshot("gemma2"),
    "gguf": _gguf,
}
